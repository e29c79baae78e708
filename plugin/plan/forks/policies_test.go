package forks_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/policies"
)

// What the policies mean is judged in ../../../test/policies.

func policyNamed(name, spec string) networkingv1.NetworkPolicy {
	p := networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		panic(err)
	}
	return p
}

func allow(name string) networkingv1.NetworkPolicy {
	return policyNamed(name, "{podSelector: {matchLabels: {app: api}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}")
}

// forkUnder plans a fork of deployment api, update of it where there is a sandbox, under policies.
func forkUnder(view policies.View, files ...string) (*forks.Plan, error) {
	in := read(nil, append([]string{"deployment"}, files...)...)
	in.state.Policies = view
	o := options("api:2")
	return forks.New(&o, in.workloads, in.state)
}

func TestForkPolicies_AreWrittenWhereTheyDifferAndRemovedWhereNotNeeded(t *testing.T) {
	view := policies.View{Policies: []networkingv1.NetworkPolicy{allow("one"), allow("two")}}
	p, err := forkUnder(view, "sandbox")
	if err != nil {
		t.Fatal(err)
	}
	f := &p.Forks[0]
	if len(f.Policies) != 1 || f.Policies[0].Verb() != "created" || f.Policies[0].Annotations["kubectl-sandbox.dev/policies"] != "one,two" {
		t.Fatalf("policies %+v", f.Policies)
	}
	have := *f.Policies[0].DeepCopy()
	have.OwnerReferences = []metav1.OwnerReference{{Kind: "ConfigMap", UID: types.UID(p.Exists)}}
	old := *have.DeepCopy()
	old.Name = "sandbox-fork-of-old"
	view.Forks = []networkingv1.NetworkPolicy{have, old}
	if p, err = forkUnder(view, "sandbox"); err != nil {
		t.Fatal(err)
	}
	f = &p.Forks[0]
	if f.Policies[0].Verb() != "unchanged" || len(f.Obsolete) != 1 || f.Obsolete[0].Name != old.Name {
		t.Errorf("%s, obsolete %v", f.Policies[0].Verb(), f.Obsolete)
	}
	view.Forks[0].Spec.Ingress = nil
	if p, err = forkUnder(view, "sandbox"); err != nil || p.Forks[0].Policies[0].Verb() != "configured" {
		t.Errorf("%v, %v", p, err)
	}
}

func TestForkPolicies_NeverTakeOverAnothersOrOneThatIsLeft(t *testing.T) {
	taken := allow("sandbox-fork-api-pr-42")
	left := *taken.DeepCopy()
	left.Labels = map[string]string{"kubectl-sandbox.dev/sandbox": "pr-42", "kubectl-sandbox.dev/role": "fork", "kubectl-sandbox.dev/workload": "deployment.api"}
	left.OwnerReferences = []metav1.OwnerReference{{Kind: "ConfigMap", UID: "another"}}
	for name, view := range map[string]policies.View{
		"exists and was not created by kubectl sandbox": {Policies: []networkingv1.NetworkPolicy{allow("one"), taken}},
		"left from an earlier sandbox":                  {Policies: []networkingv1.NetworkPolicy{allow("one")}, Forks: []networkingv1.NetworkPolicy{left}},
	} {
		_, err := forkUnder(view, "sandbox")
		var p *plan.Problem
		if !errors.As(err, &p) || !strings.Contains(p.What, name) || len(p.Fix) == 0 {
			t.Errorf("want a problem that says %q, got %v", name, err)
		}
	}
}

func TestForkPolicies_WarnOfWhatCannotBeSeen(t *testing.T) {
	p, err := forkUnder(policies.View{Unreadable: []string{"ciliumnetworkpolicies.cilium.io"}, ElsewhereCut: true, NamespaceUnread: true})
	if err != nil {
		t.Fatal(err)
	}
	said := fmt.Sprint(p.Warnings)
	for _, want := range []string{"ciliumnetworkpolicies.cilium.io, which this program can't read", "of other namespaces were looked at", "labels of this namespace may not be read"} {
		if !strings.Contains(said, want) {
			t.Errorf("want %q in %s", want, said)
		}
	}
}
