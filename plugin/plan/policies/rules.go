// Package policies is the algebra of NetworkPolicies: what a policy isolates and admits, and which policies give other
// pods the same.
package policies

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A Rule is one rule of a policy, of either direction.
type Rule struct {
	Peers []networkingv1.NetworkPolicyPeer
	Ports []networkingv1.NetworkPolicyPort
}

// RulesOf returns the rules of p in a direction; none if p does not have that policy type.
func RulesOf(p *networkingv1.NetworkPolicy, direction networkingv1.PolicyType) (rules []Rule) {
	switch {
	case !Isolates(p, direction):
	case direction == networkingv1.PolicyTypeIngress:
		for _, r := range p.Spec.Ingress {
			rules = append(rules, Rule{r.From, r.Ports})
		}
	default:
		for _, r := range p.Spec.Egress {
			rules = append(rules, Rule{r.To, r.Ports})
		}
	}
	return rules
}

func addRule(p *networkingv1.NetworkPolicy, direction networkingv1.PolicyType, r Rule) {
	if direction == networkingv1.PolicyTypeIngress {
		p.Spec.Ingress = plan.AppendNew(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: r.Peers, Ports: r.Ports})
	} else {
		p.Spec.Egress = plan.AppendNew(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: r.Peers, Ports: r.Ports})
	}
}

// both returns a selector for what a and b both select.
func both(a, b metav1.LabelSelector) metav1.LabelSelector {
	s := *a.DeepCopy()
	for key, value := range b.MatchLabels {
		metav1.AddLabelToSelector(&s, key, value)
	}
	s.MatchExpressions = append(s.MatchExpressions, b.MatchExpressions...)
	return s
}

// ofSandboxes reports whether a selector requires labels of this project, as only one written for forks does.
func ofSandboxes(s *metav1.LabelSelector) bool {
	for key := range s.MatchLabels {
		if strings.HasPrefix(key, sandbox.Prefix) {
			return true
		}
	}
	return slices.ContainsFunc(s.MatchExpressions, func(r metav1.LabelSelectorRequirement) bool {
		return strings.HasPrefix(r.Key, sandbox.Prefix)
	})
}

// Marks returns the labels of the objects that have that role for the workload.
func Marks(role string, w *plan.Workload) map[string]string {
	return map[string]string{sandbox.LabelRole: role, sandbox.LabelWorkload: w.Label()}
}

// Admits reports whether a rule's port admits the number of a TCP port.
func Admits(p networkingv1.NetworkPolicyPort, number uint16) bool {
	switch {
	case !isTCP(p):
		return false
	case p.Port == nil:
		return true
	case p.Port.Type == intstr.String:
		return false
	case p.EndPort != nil:
		return p.Port.IntVal <= int32(number) && int32(number) <= *p.EndPort
	}
	return p.Port.IntVal == int32(number)
}

func isTCP(p networkingv1.NetworkPolicyPort) bool {
	return p.Protocol == nil || *p.Protocol == corev1.ProtocolTCP
}

// TCPPort returns the port of a rule that admits one number of TCP.
func TCPPort(number uint16) networkingv1.NetworkPolicyPort {
	tcp, port := corev1.ProtocolTCP, intstr.FromInt32(int32(number))
	return networkingv1.NetworkPolicyPort{Protocol: &tcp, Port: &port}
}

// Isolates reports whether p has that policy type. The API server's default is Ingress, and Egress if p has egress
// rules.
func Isolates(p *networkingv1.NetworkPolicy, kind networkingv1.PolicyType) bool {
	if len(p.Spec.PolicyTypes) == 0 {
		return kind == networkingv1.PolicyTypeIngress || len(p.Spec.Egress) > 0
	}
	return slices.Contains(p.Spec.PolicyTypes, kind)
}

// Matches reports whether a label selector selects objects with those labels.
func Matches(selector *metav1.LabelSelector, set labels.Set) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(set) // the API server lets no other in
}

// IsPod reports whether a peer, other than an ipBlock, selects pods with those labels in a namespace with those
// labels. Without a namespaceSelector, that is the policy's own namespace.
func IsPod(peer *networkingv1.NetworkPolicyPeer, namespace map[string]string, pods labels.Set) bool {
	return (peer.NamespaceSelector == nil || Matches(peer.NamespaceSelector, labels.Set(namespace))) &&
		(peer.PodSelector == nil || Matches(peer.PodSelector, pods))
}

// InBlock reports whether a block of addresses contains an address; it contains none that is no address.
func InBlock(block *networkingv1.IPBlock, ip string) bool {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return false
	}
	within := func(cidr string) bool {
		prefix, err := netip.ParsePrefix(cidr)
		return err == nil && prefix.Contains(addr)
	}
	return within(block.CIDR) && !slices.ContainsFunc(block.Except, within)
}
