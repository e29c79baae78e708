// Package inject decides what admission does to a pod: it is a pure function from a pod to the pod as it should run, or to
// the reason for leaving it alone.
package inject

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Config is what an injected router is made of. All of it is the cluster's or the namespace's: nothing depends on the pod.
type Config struct {
	Version    string // of the injection, recorded in sandbox.AnnotationInjected
	Image      string
	PullPolicy corev1.PullPolicy
	// Requests are the router's, whatever the pod: autoscalers and quotas need them.
	Requests corev1.ResourceList
	// Limits apply resource by resource, where every other container of the pod has one too. There is a request of each.
	Limits corev1.ResourceList
	// Minimum and Maximum are what the pod's namespace wants of each container's requests and limits (LimitRange).
	Minimum, Maximum corev1.ResourceList

	Control     string // HOST:PORT,... of the route stream
	ControlName string // TLS server name of the route stream
	CA          string // PEM bundle that the route stream's certificate chains to

	Header, Member string        // what carries a key
	FirstWait      time.Duration // how long the app's start may wait for the first table
	StaleAfter     time.Duration // age from which a table is not used any more
}

// Pod returns in as it should run, and why where that is without what its role asks for. It never changes in itself.
// Reviewed again, its own output comes back as it is. Besides what the package documents, the result differs from in only at
// the end of lists, so that Patch can leave fields alone that this program does not know.
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

// unfit finds what keeps a router out of any pod.
func unfit(pod *corev1.Pod) *Reason {
	switch {
	case pod.Annotations[corev1.MirrorPodAnnotationKey] != "":
		// The kubelet compares a mirror pod with its file and makes it anew, for ever, when they differ.
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

// routed says whether pod has a router of ours already, and whether the name of one is taken by something else.
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

// sidecar says whether an init container is a native sidecar: started in order, kept running beside the app.
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
