package plan

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/endpointslice"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// selects reports whether a Service selects pods with these labels.
func selects(s *corev1.Service, l labels.Set) bool {
	return s.Spec.Type != corev1.ServiceTypeExternalName && len(s.Spec.Selector) > 0 && labels.SelectorFromSet(s.Spec.Selector).Matches(l)
}

// protocol returns p with the API server's default, which templates of custom kinds may lack.
func protocol(p corev1.Protocol) corev1.Protocol { return cmp.Or(p, corev1.ProtocolTCP) }

// templatePod returns a pod of the template, for findPort.
func templatePod(t *corev1.PodTemplateSpec) *corev1.Pod {
	pod := &corev1.Pod{Spec: *t.Spec.DeepCopy()}
	for _, c := range servingContainers(pod) {
		for i := range c.Ports {
			c.Ports[i].Protocol = protocol(c.Ports[i].Protocol)
		}
	}
	return pod
}

// appView returns the pod with the numbers of its router's ports replaced by those of the app's ports that they stand
// for.
func appView(pod *corev1.Pod) *corev1.Pod {
	r := router(pod)
	if r == nil {
		return pod
	}
	var captures []sandbox.Capture
	for _, env := range r.Env {
		if env.Name == sandbox.EnvRouterPorts {
			captures, _ = sandbox.ParseCaptures(env.Value) // none: the names then resolve to ports that fit nothing
		}
	}
	pod = pod.DeepCopy()
	r = router(pod)
	for i := range r.Ports {
		for _, c := range captures {
			if r.Ports[i].ContainerPort == int32(c.Listen) {
				r.Ports[i].ContainerPort = int32(c.Number)
			}
		}
	}
	return pod
}

func router(pod *corev1.Pod) *corev1.Container {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == sandbox.RouterContainer {
			return &pod.Spec.InitContainers[i]
		}
	}
	return nil
}

// servingContainers returns the containers whose ports Services resolve, in the order in which they are searched.
func servingContainers(pod *corev1.Pod) []*corev1.Container {
	var containers []*corev1.Container
	for i := range pod.Spec.Containers {
		containers = append(containers, &pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			containers = append(containers, c)
		}
	}
	return containers
}

// findPort resolves a name to a TCP port of the pod as the endpoints controller does.
func findPort(pod *corev1.Pod, name string) (uint16, bool) {
	n, err := endpointslice.FindPort(pod, &corev1.ServicePort{Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString(name)})
	return portNumber(int32(n)), err == nil //nolint:gosec // FindPort widens an int32
}

// portNumber narrows a port of an object that the API server stored: it admits 1 to 65535.
func portNumber(n int32) uint16 { return uint16(n) } //nolint:gosec // see above

// namesOf returns the names that resolve to number.
func namesOf(pod *corev1.Pod, number uint16) []string {
	var names []string
	for _, c := range servingContainers(pod) {
		for _, p := range c.Ports {
			if p.Name == "" || p.ContainerPort != int32(number) || slices.Contains(names, p.Name) {
				continue
			}
			if n, ok := findPort(pod, p.Name); ok && n == number {
				names = append(names, p.Name)
			}
		}
	}
	return names
}

// containersNaming returns the containers that give a TCP port this name. If there are several, Services use only the
// first, and admission does not change the pod.
func containersNaming(pod *corev1.Pod, name string) []string {
	var containers []string
	for _, c := range servingContainers(pod) {
		if slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == name && p.Protocol == corev1.ProtocolTCP }) {
			containers = append(containers, c.Name)
		}
	}
	return containers
}

// nameTaken reports whether a port of any protocol has this name: a container may not use it twice.
func nameTaken(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(servingContainers(pod), func(c *corev1.Container) bool {
		return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == name })
	})
}
