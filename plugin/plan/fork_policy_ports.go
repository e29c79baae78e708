package plan

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// unnamedPorts returns, with their numbers, the names of the baseline's ports that the fork's pods lack. The fork
// keeps another name of the same port.
func unnamedPorts(w *Workload, fork *unstructured.Unstructured) map[string]int32 {
	template, _, _ := unstructured.NestedMap(fork.Object, "spec", "template")
	named := portNames(template)
	unnamed := map[string]int32{}
	for name, number := range portNames(w.Template()) {
		if _, ok := named[name]; !ok {
			unnamed[name] = number
		}
	}
	return unnamed
}

func portNames(template map[string]any) map[string]int32 {
	var pod corev1.PodTemplateSpec
	if runtime.DefaultUnstructuredConverter.FromUnstructured(template, &pod) != nil {
		return nil // the API server will report the error
	}
	names := map[string]int32{}
	for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
		for _, p := range c.Ports {
			if p.Name != "" {
				names[p.Name] = p.ContainerPort
			}
		}
	}
	return names
}

// numbered returns the ports of a rule with those names replaced by numbers.
func numbered(ports []networkingv1.NetworkPolicyPort, names map[string]int32) []networkingv1.NetworkPolicyPort {
	ports = slices.Clone(ports)
	for i, p := range ports {
		if p.Port == nil || p.Port.Type != intstr.String {
			continue
		}
		if number, ok := names[p.Port.StrVal]; ok {
			port := intstr.FromInt32(number)
			ports[i].Port = &port
		}
	}
	return ports
}
