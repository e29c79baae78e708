package inject

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// capture adds a router in front of the ports that the pod's annotation names. A Service looks for a named port in one
// container after another (k8s.io/endpointslice FindPort), so moving the name moves the traffic. The app keeps the
// number.
func capture(pod *corev1.Pod, c Config) *Reason {
	value, ok := pod.Annotations[sandbox.AnnotationPorts]
	if !ok {
		return &Reason{PortsMissing, "annotation " + sandbox.AnnotationPorts + " is missing"}
	}
	ports, err := sandbox.ParsePorts(value)
	if err != nil {
		return &Reason{PortsMalformed, fmt.Sprintf("annotation %s: %v", sandbox.AnnotationPorts, err)}
	}
	if len(ports) == 0 {
		return nil // a workload that takes no requests
	}
	if done, reason := routed(pod); done || reason != nil {
		return reason
	}
	taken := declared(pod)
	captures := sandbox.Listen(ports, taken)
	if len(captures) < len(ports) {
		return &Reason{PortsExhausted, "no port number is left for the router to listen on"}
	}
	for _, p := range ports {
		if reason := unname(pod, p); reason != nil {
			return reason
		}
	}
	for _, p := range captures {
		taken = append(taken, p.Listen)
	}
	pod.Spec.InitContainers = append(pod.Spec.InitContainers, inbound(pod, c, captures, free(sandbox.AdminPort, taken)))
	pod.Spec.Volumes = append(pod.Spec.Volumes, state(), token())
	annotate(pod, c.Version)
	return nil
}

// unname removes the name from the app's port. Probes and hooks of the container get the number instead, because the
// kubelet resolves names there.
func unname(pod *corev1.Pod, p sandbox.Port) *Reason {
	var owner *corev1.Container
	var port *corev1.ContainerPort
	for container := range serving(pod) {
		for i := range container.Ports {
			q := &container.Ports[i]
			if q.Name != p.Name || q.Protocol != "" && q.Protocol != corev1.ProtocolTCP {
				continue
			}
			if owner != nil {
				return &Reason{PortShared, fmt.Sprintf("containers %s and %s both name a TCP port %s", owner.Name, container.Name, p.Name)}
			}
			owner, port = container, q
		}
	}
	switch {
	case owner == nil:
		return &Reason{PortUnknown, fmt.Sprintf("no container names a TCP port %s", p.Name)}
	case port.ContainerPort != int32(p.Number):
		return &Reason{PortMoved, fmt.Sprintf("port %s of container %s is %d, but %d in annotation %s",
			p.Name, owner.Name, port.ContainerPort, p.Number, sandbox.AnnotationPorts)}
	}
	port.Name = ""
	for _, ref := range portRefs(owner) {
		if ref.Type == intstr.String && ref.StrVal == p.Name {
			*ref = intstr.FromInt32(port.ContainerPort)
		}
	}
	return nil
}

// serving yields the containers in which a Service looks for a named port: app containers, then native sidecars.
func serving(pod *corev1.Pod) func(func(*corev1.Container) bool) {
	return func(yield func(*corev1.Container) bool) {
		for i := range pod.Spec.Containers {
			if !yield(&pod.Spec.Containers[i]) {
				return
			}
		}
		for i := range pod.Spec.InitContainers {
			if sidecar(&pod.Spec.InitContainers[i]) && !yield(&pod.Spec.InitContainers[i]) {
				return
			}
		}
	}
}

// portRefs returns all fields of a container that may hold the name of one of its ports.
func portRefs(c *corev1.Container) []*intstr.IntOrString {
	var refs []*intstr.IntOrString
	probe := func(h corev1.ProbeHandler) {
		if h.HTTPGet != nil {
			refs = append(refs, &h.HTTPGet.Port)
		}
		if h.TCPSocket != nil {
			refs = append(refs, &h.TCPSocket.Port)
		}
	}
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if p != nil {
			probe(p.ProbeHandler)
		}
	}
	if c.Lifecycle != nil {
		for _, h := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
			if h != nil {
				probe(corev1.ProbeHandler{HTTPGet: h.HTTPGet, TCPSocket: h.TCPSocket})
			}
		}
	}
	return refs
}

// declared returns the port numbers that the containers of the pod declare.
func declared(pod *corev1.Pod) []uint16 {
	var numbers []uint16
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for _, c := range containers {
			for _, p := range c.Ports {
				numbers = append(numbers, uint16(p.ContainerPort)) //nolint:gosec // the API server admits 1 to 65535
			}
		}
	}
	return numbers
}

// free returns the highest port from want downwards that is not taken. The router's ports for captured traffic are
// above.
func free(want uint16, taken []uint16) uint16 {
	for slices.Contains(taken, want) {
		want--
	}
	return want
}
