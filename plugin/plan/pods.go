package plan

import (
	"cmp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/endpointslice"
)

// Repository returns an image reference without tag and digest.
func Repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if colon := strings.LastIndex(image, ":"); colon > strings.LastIndex(image, "/") {
		image = image[:colon]
	}
	return image
}

// Live reports whether the endpoints controller considers a pod, now or later.
func Live(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

// Selects reports whether a Service selects pods with these labels.
func Selects(s *corev1.Service, l labels.Set) bool {
	return s.Spec.Type != corev1.ServiceTypeExternalName && len(s.Spec.Selector) > 0 && labels.SelectorFromSet(s.Spec.Selector).Matches(l)
}

// Protocol returns p with the API server's default, which templates of custom kinds may lack.
func Protocol(p corev1.Protocol) corev1.Protocol { return cmp.Or(p, corev1.ProtocolTCP) }

// ServingContainers returns the containers whose ports Services resolve, in the order in which they are searched.
func ServingContainers(pod *corev1.Pod) []*corev1.Container {
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

// FindPort resolves a name to a TCP port of the pod as the endpoints controller does.
func FindPort(pod *corev1.Pod, name string) (uint16, bool) {
	n, err := endpointslice.FindPort(pod, &corev1.ServicePort{Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString(name)})
	return PortNumber(int32(n)), err == nil //nolint:gosec // FindPort widens an int32
}

// PortNumber narrows a port of an object that the API server stored: it admits 1 to 65535.
func PortNumber(n int32) uint16 { return uint16(n) } //nolint:gosec // see above
