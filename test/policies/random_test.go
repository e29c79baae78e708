package policies

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"
)

func TestForkAndBaselineReachTheSameUnderAnyPolicies(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var all []networkingv1.NetworkPolicy
		lax := rapid.Bool().Draw(r, "selectors of what is not there")
		if rapid.Bool().Draw(r, "default deny") {
			all = append(all, drawPolicy(r, 0, namespace, lax))
			all[0].Spec = networkingv1.NetworkPolicySpec{PolicyTypes: drawTypes(r)}
		}
		for range rapid.IntRange(0, 6).Draw(r, "policies") {
			all = append(all, drawPolicy(r, len(all), namespace, lax))
		}
		for range rapid.IntRange(0, 1).Draw(r, "elsewhere") {
			all = append(all, drawPolicy(r, len(all), "ops", lax))
		}
		s := newScene(r, all)
		s.accept(r)
	})
}

func drawPolicy(r *rapid.T, n int, ns string, lax bool) networkingv1.NetworkPolicy {
	p := networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: fmt.Sprintf("set-%d", n)}}
	p.Spec.PodSelector, p.Spec.PolicyTypes = drawSelector(r, lax), drawTypes(r)
	for range rapid.IntRange(0, 2).Draw(r, "ingress rules") {
		p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: drawPeers(r, lax), Ports: drawPorts(r)})
	}
	for range rapid.IntRange(0, 2).Draw(r, "egress rules") {
		p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: drawPeers(r, lax), Ports: drawPorts(r)})
	}
	return p
}

func drawTypes(r *rapid.T) []networkingv1.PolicyType {
	in, out := networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress
	return rapid.SampledFrom([][]networkingv1.PolicyType{{in}, {out}, {in, out}}).Draw(r, "types")
}

func drawSelector(r *rapid.T, lax bool) metav1.LabelSelector {
	var s metav1.LabelSelector
	values := map[string][]string{"app": {"api", "web", "db", "worker", "prometheus"}, "tier": {"backend", "frontend", "data"}}
	for _, key := range []string{"app", "tier"} {
		operators := []metav1.LabelSelectorOperator{"", "", "=", "=", metav1.LabelSelectorOpIn, metav1.LabelSelectorOpExists}
		if lax {
			operators = append(operators, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpDoesNotExist)
		}
		value := rapid.SampledFrom(values[key])
		switch op := rapid.SampledFrom(operators).Draw(r, key); op {
		case "":
		case "=":
			metav1.AddLabelToSelector(&s, key, value.Draw(r, "value"))
		default:
			e := metav1.LabelSelectorRequirement{Key: key, Operator: op}
			if op == metav1.LabelSelectorOpIn || op == metav1.LabelSelectorOpNotIn {
				e.Values = rapid.SliceOfNDistinct(value, 1, 2, rapid.ID).Draw(r, "values")
			}
			s.MatchExpressions = append(s.MatchExpressions, e)
		}
	}
	return s
}

func drawPeers(r *rapid.T, lax bool) []networkingv1.NetworkPolicyPeer {
	var peers []networkingv1.NetworkPolicyPeer
	for range rapid.IntRange(0, 2).Draw(r, "peers") {
		pods := drawSelector(r, lax)
		namespaces := rapid.SampledFrom([]metav1.LabelSelector{
			{}, {MatchLabels: map[string]string{"team": "a"}}, {MatchLabels: map[string]string{corev1.LabelMetadataName: "ops"}},
		}).Draw(r, "namespaces")
		block := rapid.SampledFrom([]networkingv1.IPBlock{
			{CIDR: "0.0.0.0/0", Except: []string{"10.0.0.0/8"}}, {CIDR: "203.0.113.0/24"}, {CIDR: "10.244.0.0/16"},
		}).Draw(r, "block")
		switch rapid.IntRange(0, 5).Draw(r, "peer") {
		case 0:
			peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: &block})
		case 1:
			peers = append(peers, networkingv1.NetworkPolicyPeer{NamespaceSelector: &namespaces})
		case 2:
			peers = append(peers, networkingv1.NetworkPolicyPeer{NamespaceSelector: &namespaces, PodSelector: &pods})
		default:
			peers = append(peers, networkingv1.NetworkPolicyPeer{PodSelector: &pods})
		}
	}
	return peers
}

func drawPorts(r *rapid.T) []networkingv1.NetworkPolicyPort {
	tcp, udp := corev1.ProtocolTCP, corev1.ProtocolUDP
	number := func(n int32) *intstr.IntOrString { return new(intstr.FromInt32(n)) }
	return rapid.SliceOfN(rapid.SampledFrom([]networkingv1.NetworkPolicyPort{
		{Protocol: &tcp, Port: number(8080)}, {Protocol: &tcp, Port: number(9000)}, {Protocol: &udp, Port: number(5353)}, {Protocol: &tcp},
		{Protocol: &tcp, Port: new(intstr.FromString("http"))}, {Protocol: &tcp, Port: new(intstr.FromString("admin"))},
		{Protocol: &tcp, Port: number(8000), EndPort: new(int32(8500))}, {Protocol: &tcp, Port: number(7000), EndPort: new(int32(16000))},
	}), 0, 2).Draw(r, "ports")
}
