// Package inject decides what admission changes in a pod: a pure function from a pod to the pod to run, or to the
// reason why it stays unchanged.
package inject

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Config is the configuration of injected routers. It depends on the cluster and the namespace, never on the pod.
type Config struct {
	Version    string // of the webhook, recorded in sandbox.AnnotationInjected
	Image      string
	PullPolicy corev1.PullPolicy
	// Requests of the router do not depend on the pod: autoscalers and quotas need them.
	Requests corev1.ResourceList
	// Limits apply to each resource of which all other containers of the pod have one. Each has a request as well.
	Limits corev1.ResourceList
	// Minimum and Maximum are the bounds that the namespace's LimitRanges set for a container's requests and limits.
	Minimum, Maximum corev1.ResourceList

	Control     string // addresses of the route stream: HOST:PORT,...
	ControlName string // TLS server name of the route stream
	CA          string // PEM bundle that verifies the route stream's certificate

	Header, Member string        // names that carry a key
	FirstWait      time.Duration // how long the app's start may wait for the first table
	StaleAfter     time.Duration // age at which a router stops using its table
}

// Pod returns the pod to run instead of in, and a reason if it lacks what its role requires. It does not change in. It
// is idempotent. Beyond what the package documents, it changes lists only by appending, so that Patch can keep fields
// that this program does not know.
func Pod(in *corev1.Pod, c Config) (*corev1.Pod, *Reason) {
	pod := in.DeepCopy()
	if reason := inject(pod, c); reason != nil {
		pod = in.DeepCopy()
		annotate(pod, "declined: "+reason.String())
		return pod, reason
	}
	return pod, nil
}

func inject(pod *corev1.Pod, c Config) *Reason {
	if reason := unfit(pod); reason != nil {
		return reason
	}
	switch role := pod.Labels[sandbox.LabelRole]; role {
	case sandbox.RoleBaseline:
		return capture(pod, c)
	case sandbox.RoleFork:
		return stamp(pod, c)
	case sandbox.RoleCheck:
		return check(pod, c)
	default:
		return &Reason{RoleUnknown, "label " + sandbox.LabelRole + "=" + role + " is no role that admission knows"}
	}
}

// unfit returns why a pod cannot have a router; nil if it can.
func unfit(pod *corev1.Pod) *Reason {
	switch {
	case pod.Annotations[corev1.MirrorPodAnnotationKey] != "":
		// The kubelet compares a mirror pod with its file, and would recreate it forever if they differed.
		return &Reason{StaticPod, "it is a static pod, which runs from a file on its node"}
	case pod.Spec.HostNetwork:
		return &Reason{HostNetwork, "it uses its node's network, where a router's ports would be the node's"}
	case windows(pod):
		return &Reason{Windows, "it runs on Windows, for which there is no router"}
	}
	return nil
}

func windows(pod *corev1.Pod) bool {
	if pod.Spec.OS != nil {
		return pod.Spec.OS.Name == corev1.Windows
	}
	return pod.Spec.NodeSelector[corev1.LabelOSStable] == string(corev1.Windows)
}

// routed reports whether the pod has our router already. The reason is set if something else has its name.
func routed(pod *corev1.Pod) (bool, *Reason) {
	named := func(c corev1.Container) bool { return c.Name == sandbox.RouterContainer }
	if i := slices.IndexFunc(pod.Spec.InitContainers, named); i >= 0 && sidecar(&pod.Spec.InitContainers[i]) &&
		mounts(&pod.Spec.InitContainers[i], stateVolume) {
		return true, nil
	} else if i >= 0 || slices.ContainsFunc(pod.Spec.Containers, named) {
		return false, &Reason{NameTaken, "it has a container named " + sandbox.RouterContainer + " that is not the router"}
	}
	for _, v := range pod.Spec.Volumes {
		if v.Name == stateVolume || v.Name == tokenVolume {
			return false, &Reason{NameTaken, "it has a volume named " + v.Name + " that is not the router's"}
		}
	}
	return false, nil
}

// sidecar reports whether an init container is a native sidecar, which starts in order and runs beside the app.
func sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func mounts(c *corev1.Container, volume string) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == volume })
}

func annotate(pod *corev1.Pod, value string) {
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	pod.Annotations[sandbox.AnnotationInjected] = value
}
