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

	// tokenPath is where Kubernetes mounts the API token of a pod's service account. A container that mounts something else
	// there gets none (ServiceAccount admission runs once more after ours): the router has no business with the API.
	tokenPath = "/var/run/secrets/kubernetes.io/serviceaccount" //nolint:gosec // a path

	// routerUser is whom the router runs as where the pod has no say in it: "nonroot", by custom of small images.
	routerUser = 65532

	// tokenLife in seconds; the kubelet renews the token at 80 % of it. The API server takes no less than 10 minutes.
	tokenLife = 3600
)

// inbound returns the router of a baseline's pod. Like every router it is the last of the init containers: those before it run
// as if it were not there, and only the app waits until it listens; as native sidecar it goes after the app when the pod
// ends, so that requests in flight come to their end. Scheduling needs no more room than the sum of what runs together.
func inbound(pod *corev1.Pod, c Config, captures []sandbox.Capture, admin uint16) corev1.Container {
	router := base(pod, c, admin)
	for _, p := range captures {
		router.Ports = append(router.Ports, tcp(p.Name, p.Listen))
	}
	// The app starts when the hook ends. A startup probe would do the same a second or two later, at the kubelet's next look, and
	// where a mesh refuses plain connections to the pod, never.
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

// outbound returns the router of a fork's pod, and the larger part of a check's: it stamps key on requests that come to address and carry none. Nothing waits for
// it: it needs nobody to be ready, and listens long before the app's container is even made.
func outbound(pod *corev1.Pod, c Config, key, address string, admin uint16) corev1.Container {
	router := base(pod, c, admin)
	router.VolumeMounts = []corev1.VolumeMount{{Name: stateVolume, MountPath: tokenPath, ReadOnly: true}}
	router.Env = append(router.Env,
		corev1.EnvVar{Name: sandbox.EnvRouterOutgoing, Value: address},
		corev1.EnvVar{Name: sandbox.EnvKey, Value: key},
	)
	return router
}

// awaitReady holds up the containers after the router's until it is ready.
func awaitReady() *corev1.Lifecycle {
	return &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{routerPath, "wait"}}}}
}

// base returns what routers have in common. There is no liveness probe: a router that is slow because its node is must not be
// killed with requests in flight.
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

// user returns the user that all containers of the pod run as, where they are set to one and it is not root: the policy that chose
// it admits it here too, and the kubelet keeps the pod's tokens readable by that user alone, which it does only while
// no container differs. Otherwise routerUser.
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

// resources returns what the router asks for, such that a namespace that admits the pod without it admits it with it, short of
// a quota that is used up.
//
//   - A limit of each kind that every container has: a quota on limits wants one of all.
//   - All within the namespace's bounds.
//   - A request that is no smaller part of the limit than with the container whose request
//     is the smallest part of its own: a LimitRange may bound that ratio, and a Guaranteed pod stays that.
//   - Nothing of a kind that the pod as a whole is given (pod-level resources): the containers' sum must not exceed it.
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

// smallestPart says whether every container of the pod has a limit of the resource, and returns the part of limit that the
// smallest of their requests is of its own limit, rounded up. A request that is left out is the limit (API defaulting).
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

// state returns the volume of the router's last table. It lives in memory: a few kilobytes that change with every route, and a pod
// with an emptyDir on disk keeps the cluster autoscaler from removing its node.
func state() corev1.Volume {
	return corev1.Volume{Name: stateVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
		Medium: corev1.StorageMediumMemory, SizeLimit: ptr.To(resource.MustParse("32Mi")),
	}}}
}

// token returns the volume of the token with which the router introduces itself to the route stream.
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
