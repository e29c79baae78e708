package policies

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// unnamedPorts returns, with their numbers, the names of the baseline's ports that the fork's pods lack. The fork
// keeps another name of the same port.
func unnamedPorts(w *plan.Workload, fork *unstructured.Unstructured) map[string]int32 {
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

// PortsBeside returns the ports to admit in addition to a rule: the router's port for each captured port that the
// rule admits, unless the rule admits both. A rule without ports admits all.
func PortsBeside(rule []networkingv1.NetworkPolicyPort, captures []sandbox.Capture) []networkingv1.NetworkPolicyPort {
	if len(rule) == 0 {
		return nil
	}
	var ports []networkingv1.NetworkPolicyPort
	for _, c := range captures {
		byNumber := slices.ContainsFunc(rule, func(p networkingv1.NetworkPolicyPort) bool { return Admits(p, c.Number) })
		byName := slices.ContainsFunc(rule, func(p networkingv1.NetworkPolicyPort) bool {
			return isTCP(p) && p.Port != nil && p.Port.Type == intstr.String && p.Port.StrVal == c.Name
		})
		listens := slices.ContainsFunc(rule, func(p networkingv1.NetworkPolicyPort) bool { return Admits(p, c.Listen) })
		if (byNumber || byName) && !listens {
			ports = plan.AppendNew(ports, TCPPort(c.Listen))
		}
		if byName && !byNumber {
			ports = plan.AppendNew(ports, TCPPort(c.Number))
		}
	}
	return ports
}
