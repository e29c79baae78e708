package policies_test

import (
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/policies"
)

func TestView_AsksForNamespacesOnlyWhereTheirNameDoesNotTell(t *testing.T) {
	for spec, want := range map[string]bool{
		"{policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}]}]}":                                                      false,
		"{policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {}}]}]}":                                                false,
		"{policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ops}}}]}]}": false,
		"{policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {team: a}}}]}]}":                              true,
		"{policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchExpressions: [{key: team, operator: Exists}]}}]}]}":   true,
	} {
		p := networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p"}}
		if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
			t.Fatal(err)
		}
		view := policies.View{Policies: []networkingv1.NetworkPolicy{p}}
		if got := view.AsksForNamespaces(); got != want {
			t.Errorf("%s: %t", spec, got)
		}
	}
}
