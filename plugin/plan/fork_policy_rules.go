package plan

import (
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A policyRule is one rule of a policy, of either direction.
type policyRule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

// rulesOf returns the rules of p in a direction; none if p does not have that policy type.
func rulesOf(p *networkingv1.NetworkPolicy, direction networkingv1.PolicyType) (rules []policyRule) {
	switch {
	case !isolates(p, direction):
	case direction == networkingv1.PolicyTypeIngress:
		for _, r := range p.Spec.Ingress {
			rules = append(rules, policyRule{r.From, r.Ports})
		}
	default:
		for _, r := range p.Spec.Egress {
			rules = append(rules, policyRule{r.To, r.Ports})
		}
	}
	return rules
}

func addRule(p *networkingv1.NetworkPolicy, direction networkingv1.PolicyType, r policyRule) {
	if direction == networkingv1.PolicyTypeIngress {
		p.Spec.Ingress = appendNew(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: r.peers, Ports: r.ports})
	} else {
		p.Spec.Egress = appendNew(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: r.peers, Ports: r.ports})
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
