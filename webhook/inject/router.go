package inject

import (
	"math/bits"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

const (
	routerPath = "/sandbox-router" // in the image

	tokenVolume = "sandbox-router-token"
	stateVolume = "sandbox-router-state"
	statePath   = "/var/lib/sandbox-router"

	// tokenPath is where Kubernetes mounts the API token of a pod's service account. A container that mounts something
	// else there gets none (ServiceAccount admission runs again after ours). The router needs no access to the API.
	tokenPath = "/var/run/secrets/kubernetes.io/serviceaccount" //nolint:gosec // a path

	// routerUser is the router's user unless the pod determines one: "nonroot", by convention of small images.
	routerUser = 65532

	// tokenLife is the token's lifetime in seconds. The kubelet renews it at 80 %. The API server requires at least 600.
	tokenLife = 3600
)

// inbound returns the router of a baseline's pod. Like every router it is the last init container: those before it run
// unaffected, and only the app waits until it listens. As a native sidecar it stops after the app, so that requests in
// flight complete. Scheduling needs no more than the sum of what runs at the same time.
func inbound(pod *corev1.Pod, c Config, captures []sandbox.Capture, admin uint16) corev1.Container {
	router := base(pod, c, admin)
	for _, p := range captures {
		router.Ports = append(router.Ports, tcp(p.Name, p.Listen))
	}
	// The app starts when the hook ends. A startup probe would take a second or two longer, until the kubelet's next
	// probe, and would never succeed under a mesh that refuses plain connections to the pod.
	router.Lifecycle = awaitReady()
	router.VolumeMounts = []corev1.VolumeMount{
		{Name: stateVolume, MountPath: statePath},
		{Name: tokenVolume, MountPath: tokenPath, ReadOnly: true},
	}
	router.Env = append(router.Env,
		corev1.EnvVar{Name: sandbox.EnvRouterPorts, Value: sandbox.FormatCaptures(captures)},
		corev1.EnvVar{Name: sandbox.EnvRouterControl, Value: literal(c.Control)},
		corev1.EnvVar{Name: sandbox.EnvRouterControlName, Value: literal(c.ControlName)},
		corev1.EnvVar{Name: sandbox.EnvRouterCA, Value: literal(c.CA)},
		corev1.EnvVar{Name: sandbox.EnvRouterToken, Value: tokenPath + "/token"},
		corev1.EnvVar{Name: sandbox.EnvRouterState, Value: statePath},
		corev1.EnvVar{Name: sandbox.EnvRouterStaleAfter, Value: c.StaleAfter.String()},
		corev1.EnvVar{Name: sandbox.EnvRouterFirstWait, Value: c.FirstWait.String()},
		fromPod(sandbox.EnvRouterPodName, "metadata.name"),
		fromPod(sandbox.EnvRouterPodIP, "status.podIP"),
	)
	return router
}

// outbound returns the router of a fork's pod, and most of a check's. It stamps the key on requests to address that
// carry none. Nothing waits for it: it depends on nothing, and listens long before the app's container is created.
func outbound(pod *corev1.Pod, c Config, key, address string, admin uint16) corev1.Container {
	router := base(pod, c, admin)
	router.VolumeMounts = []corev1.VolumeMount{{Name: stateVolume, MountPath: tokenPath, ReadOnly: true}}
	router.Env = append(router.Env,
		corev1.EnvVar{Name: sandbox.EnvRouterOutgoing, Value: address},
		corev1.EnvVar{Name: sandbox.EnvKey, Value: key},
	)
	return router
}

// awaitReady delays the containers after the router until it is ready.
func awaitReady() *corev1.Lifecycle {
	return &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{routerPath, "wait"}}}}
}

// base returns what all routers share. There is no liveness probe: a router that is slow because its node is slow must
// not be killed with requests in flight.
func base(pod *corev1.Pod, c Config, admin uint16) corev1.Container {
	return corev1.Container{
		Name:            sandbox.RouterContainer,
		Image:           c.Image,
		ImagePullPolicy: c.PullPolicy,
		RestartPolicy:   ptr.To(corev1.ContainerRestartPolicyAlways),
		Ports:           []corev1.ContainerPort{tcp("sandbox-admin", admin)},
		Env: []corev1.EnvVar{
			{Name: sandbox.EnvRouterAdmin, Value: ":" + strconv.Itoa(int(admin))},
			{Name: sandbox.EnvRouterHeader, Value: literal(c.Header)},
			{Name: sandbox.EnvRouterMember, Value: literal(c.Member)},
		},
		Resources:                resources(pod, c),
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
		SecurityContext:          securityContext(pod),
	}
}

// securityContext satisfies Pod Security's "restricted".
func securityContext(pod *corev1.Pod) *corev1.SecurityContext {
	return &corev1.SecurityContext{
		RunAsNonRoot:             ptr.To(true),
		RunAsUser:                ptr.To(user(pod)),
		AllowPrivilegeEscalation: ptr.To(false),
		Privileged:               ptr.To(false),
		ReadOnlyRootFilesystem:   ptr.To(true),
		Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile:           &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
}

// user returns the user of all containers of the pod, if they share one and it is not root. The policy that admits them
// admits the router with it too. The kubelet keeps the pod's tokens readable by that user alone, but only while no
// container differs. Otherwise it returns routerUser.
func user(pod *corev1.Pod) int64 {
	var common *int64
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for _, c := range containers {
			var uid *int64
			if pod.Spec.SecurityContext != nil {
				uid = pod.Spec.SecurityContext.RunAsUser
			}
			if c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil {
				uid = c.SecurityContext.RunAsUser
			}
			if uid == nil || common != nil && *common != *uid {
				return routerUser
			}
			common = uid
		}
	}
	if common == nil || *common == 0 {
		return routerUser
	}
	return *common
}

// resources returns the router's requests and limits. A namespace that admits the pod without the router must admit it
// with the router, except if a quota is used up.
//
//   - A limit of each kind that every container has: a quota on limits requires one of all.
//   - All within the namespace's bounds.
//   - A ratio of request to limit no smaller than the smallest in the pod: a LimitRange may bound the ratio,
//     and a Guaranteed pod stays Guaranteed.
//   - Nothing of a kind that the pod as a whole has (pod-level resources): the sum of containers must not exceed it.
func resources(pod *corev1.Pod, c Config) corev1.ResourceRequirements {
	r := corev1.ResourceRequirements{Requests: corev1.ResourceList{}}
	for name, request := range c.Requests {
		if podLevel(pod, name) {
			continue
		}
		if most, ok := c.Maximum[name]; ok && request.Cmp(most) > 0 {
			request = most
		}
		if least, ok := c.Minimum[name]; ok && request.Cmp(least) < 0 {
			request = least
		}
		if limit, ok := c.Limits[name]; ok {
			if most, ok := c.Maximum[name]; ok && limit.Cmp(most) > 0 {
				limit = most
			}
			if part, limited := smallestPart(pod, name, limit); limited {
				if request.Cmp(part) < 0 {
					request = part
				}
				if limit.Cmp(request) < 0 {
					limit = request
				}
				if r.Limits == nil {
					r.Limits = corev1.ResourceList{}
				}
				r.Limits[name] = limit
			}
		}
		r.Requests[name] = request
	}
	return r
}

func podLevel(pod *corev1.Pod, name corev1.ResourceName) bool {
	if pod.Spec.Resources == nil {
		return false
	}
	_, request := pod.Spec.Resources.Requests[name]
	_, limit := pod.Spec.Resources.Limits[name]
	return request || limit
}

// smallestPart reports whether every container of the pod has a limit of the resource. part is limit, scaled by the
// smallest ratio of request to limit among them, rounded up. A missing request equals the limit (API defaulting).
func smallestPart(pod *corev1.Pod, name corev1.ResourceName, limit resource.Quantity) (part resource.Quantity, limited bool) {
	part = limit
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for _, c := range containers {
			own, ok := c.Resources.Limits[name]
			if !ok {
				return part, false
			}
			request, ok := c.Resources.Requests[name]
			if !ok || request.Cmp(own) >= 0 {
				continue
			}
			if p := proportion(name, limit, request, own); p.Cmp(part) < 0 {
				part = p
			}
		}
	}
	return part, true
}

// proportion returns limit * request / own, rounded up, where 0 <= request < own.
func proportion(name corev1.ResourceName, limit, request, own resource.Quantity) resource.Quantity {
	units, quantity := (*resource.Quantity).Value, resource.NewQuantity
	if name == corev1.ResourceCPU {
		units, quantity = (*resource.Quantity).MilliValue, resource.NewMilliQuantity
	}
	if request.Sign() <= 0 {
		return *quantity(0, limit.Format)
	}
	high, low := bits.Mul64(uint64(units(&limit)), uint64(units(&request)))            //nolint:gosec // none is negative
	quotient, rest := bits.Div64(high, low, uint64(max(units(&own), units(&request)))) //nolint:gosec // none is negative
	if rest > 0 {
		quotient++
	}
	return *quantity(int64(quotient), limit.Format) //nolint:gosec // at most limit
}

// state returns the volume for the router's last table. It is in memory: the table is small and changes with every
// route, and an emptyDir on disk would keep the cluster autoscaler from removing the node.
func state() corev1.Volume {
	return corev1.Volume{Name: stateVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
		Medium: corev1.StorageMediumMemory, SizeLimit: ptr.To(resource.MustParse("32Mi")),
	}}}
}

// token returns the volume of the token with which the router authenticates to the route stream.
func token() corev1.Volume {
	return corev1.Volume{Name: tokenVolume, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
			Audience: sandbox.Audience, ExpirationSeconds: ptr.To[int64](tokenLife), Path: "token",
		}}},
	}}}
}

func tcp(name string, number uint16) corev1.ContainerPort {
	return corev1.ContainerPort{Name: name, ContainerPort: int32(number), Protocol: corev1.ProtocolTCP}
}

func fromPod(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{
		FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}}}
}
