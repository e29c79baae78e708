package policies

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

const deny = "policyTypes: [Ingress, Egress]\npodSelector: {}"

// sets are NetworkPolicySpecs, one a policy, in namespace shop; a line "# ops" puts the policy into that namespace.
var sets = []struct {
	name  string
	specs []string
	warns string // part of the one warning there is; empty: none
}{
	{name: "none"},
	{name: "everything denied", specs: []string{deny}},
	{name: "everything denied but a friend", specs: []string{deny, `
policyTypes: [Ingress]
podSelector: {matchLabels: {app: api}}
ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8080}]}]`, `
policyTypes: [Egress]
podSelector: {matchLabels: {app: web}}
egress: [{to: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 8080}]}]`}},
	{name: "a chain of friends by port name", specs: []string{deny, `
policyTypes: [Ingress, Egress]
podSelector: {matchLabels: {app: api}}
ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: http}]}]
egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: http}]}]`, `
policyTypes: [Egress]
podSelector: {matchLabels: {app: web}}
egress: [{to: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: http}]}]`, `
policyTypes: [Ingress]
podSelector: {matchLabels: {app: db}}
ingress: [{from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: http}]}]`}},
	{name: "only ingress is isolated", specs: []string{`
policyTypes: [Ingress]
podSelector: {matchLabels: {app: api}}
ingress: [{from: [{podSelector: {matchLabels: {tier: frontend}}}]}]`}},
	{name: "only egress is isolated", specs: []string{`
policyTypes: [Egress]
podSelector: {matchLabels: {app: api}}
egress: [{to: [{podSelector: {matchLabels: {app: db}}}], ports: [{port: 8080}]}, {ports: [{port: 53, protocol: UDP}, {port: 53}]}]`}},
	{name: "ingress isolated without rules", specs: []string{`
policyTypes: [Ingress]
podSelector: {matchLabels: {app: api}}`}},
	{name: "a peer admits the baseline", specs: []string{`
policyTypes: [Ingress]
podSelector: {matchLabels: {app: db}}
ingress: [{from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 8080}]}]`}},
	{name: "a peer may leave for the baseline alone", specs: []string{`
policyTypes: [Egress]
podSelector: {matchLabels: {app: web}}
egress: [{to: [{podSelector: {matchLabels: {app: api}}}]}]`}},
	{name: "pods of the baseline among themselves", specs: []string{deny, `
policyTypes: [Ingress, Egress]
podSelector: {matchLabels: {app: api}}
ingress: [{from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 8080}, {port: 5353, protocol: UDP}]}]
egress: [{to: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 8080}, {port: 5353, protocol: UDP}]}]`}},
	{name: "self reference without a default deny", specs: []string{`
policyTypes: [Ingress]
podSelector: {matchLabels: {app: api}}
ingress: [{from: [{podSelector: {matchLabels: {app: api}}}, {podSelector: {matchLabels: {app: web}}}]}]`}},
	{name: "a tier that holds the baseline and others", specs: []string{deny, `
policyTypes: [Ingress, Egress]
podSelector: {matchLabels: {tier: backend}}
ingress: [{from: [{podSelector: {matchLabels: {tier: frontend}}}], ports: [{port: 8080}]}]
egress: [{to: [{podSelector: {matchLabels: {tier: data}}}], ports: [{port: 8080}]}]`, `
policyTypes: [Ingress]
podSelector: {matchLabels: {tier: data}}
ingress: [{from: [{podSelector: {matchLabels: {tier: backend}}}], ports: [{port: 8080}]}]`}},
	{name: "everyone within the namespace", specs: []string{`
policyTypes: [Ingress, Egress]
podSelector: {}
ingress: [{from: [{podSelector: {}}]}]
egress: [{to: [{podSelector: {}}]}]`}},
	{name: "by namespace and by label", specs: []string{deny, `
policyTypes: [Ingress, Egress]
podSelector: {matchLabels: {app: db}}
ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: api}}}]}]
egress: [{to: [{namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: api}}}]}]`, `
policyTypes: [Egress]
podSelector: {matchLabels: {app: api}}
egress: [{to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}]}]`}},
	{name: "a namespace selector that does not hold here", specs: []string{deny, `
policyTypes: [Ingress]
podSelector: {matchLabels: {app: db}}
ingress: [{from: [{namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: api}}}]}]`}},
	{name: "a peer in another namespace", specs: []string{deny, `
policyTypes: [Ingress]
podSelector: {matchLabels: {app: api}}
ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ops}}, podSelector: {matchLabels: {app: prometheus}}}], ports: [{port: admin}]}]`}},
	{name: "addresses", specs: []string{`
policyTypes: [Ingress, Egress]
podSelector: {matchLabels: {app: api}}
ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]
egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8]}}], ports: [{port: 8080}]}]`}},
	{name: "a range of ports", specs: []string{`
policyTypes: [Ingress]
podSelector: {matchLabels: {app: api}}
ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8000, endPort: 9000}]}]`, `
policyTypes: [Egress]
podSelector: {matchLabels: {app: web}}
egress: [{to: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 8000, endPort: 9000}]}]`}},
	{name: "several policies of one pod", specs: []string{`
policyTypes: [Ingress]
podSelector: {matchLabels: {app: api}}
ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8080}]}]`, `
policyTypes: [Ingress]
podSelector: {matchLabels: {tier: backend}}
ingress: [{from: [{podSelector: {matchLabels: {app: worker}}}], ports: [{port: 9000}]}]`, `
policyTypes: [Egress]
podSelector: {matchExpressions: [{key: tier, operator: In, values: [backend, data]}]}
egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]`}},
	{name: "rules of a direction that does not count", specs: []string{`
policyTypes: [Egress]
podSelector: {matchLabels: {app: api}}
ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]
egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]`}},
	{name: "whatever has a label app", specs: []string{deny, `
policyTypes: [Ingress, Egress]
podSelector: {matchExpressions: [{key: app, operator: Exists}]}
ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: Exists}]}}]}]
egress: [{to: [{podSelector: {matchExpressions: [{key: app, operator: Exists}]}}]}]`}},
	{name: "isolation of pods without a label", specs: []string{`
policyTypes: [Ingress, Egress]
podSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}`}},
	{name: "isolation of all but the baseline", specs: []string{`
policyTypes: [Ingress]
podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [api]}]}
ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]`}},
	{name: "isolation of all but the baseline, which is isolated otherwise", specs: []string{`
policyTypes: [Ingress]
podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [api]}]}
ingress: [{from: [{podSelector: {matchLabels: {app: worker}}}]}]`, `
policyTypes: [Ingress]
podSelector: {matchLabels: {app: api}}
ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]`}, warns: "the fork of deployment.apps/api, which has none of its labels, is admitted where the baseline is not by networkpolicy/set-0; to keep forks out"},
	{name: "a deny of pods without a label beside a policy of the baseline", specs: []string{`
policyTypes: [Ingress]
podSelector: {matchExpressions: [{key: tier, operator: DoesNotExist}]}`, `
policyTypes: [Ingress]
podSelector: {matchLabels: {app: api}}
ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]`}},
	{name: "all but the baseline are admitted", specs: []string{`
policyTypes: [Ingress]
podSelector: {matchLabels: {app: db}}
ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [api]}]}}]}]`}, warns: "is admitted where the baseline is not by networkpolicy/set-0"},
	{name: "another namespace admits the baseline", specs: []string{`# ops
policyTypes: [Ingress]
podSelector: {matchLabels: {app: prometheus}}
ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: api}}}]}]`},
		warns: "NetworkPolicies of other namespaces admit deployment.apps/api by its labels, and so not its fork: ops/set-0"},
	{name: "another namespace admits the whole of this", specs: []string{`# ops
policyTypes: [Ingress]
podSelector: {}
ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}}]}]`}},
	{name: "policies for sandboxes", specs: []string{deny, `
policyTypes: [Ingress]
podSelector: {matchLabels: {app: api}}
ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]`, `
policyTypes: [Egress]
podSelector: {matchExpressions: [{key: kubectl-sandbox.dev/sandbox, operator: DoesNotExist}]}
egress: [{}]`}},
}

func parse(t interface{ Fatal(...any) }, specs []string) []networkingv1.NetworkPolicy {
	var all []networkingv1.NetworkPolicy
	for i, s := range specs {
		p := networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("set-%d", i)}}
		if strings.HasPrefix(s, "# ops") {
			p.Namespace = "ops"
		}
		if err := yaml.UnmarshalStrict([]byte(s), &p.Spec); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func dump(policies []networkingv1.NetworkPolicy) string {
	var b strings.Builder
	for i := range policies {
		spec, err := yaml.Marshal(policies[i].Spec)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(&b, "--- %s/%s\n%s", policies[i].Namespace, policies[i].Name, spec)
	}
	return b.String()
}

func TestForkAndBaselineReachAndAreReachedByTheSame(t *testing.T) {
	for _, set := range sets {
		t.Run(set.name, func(t *testing.T) {
			s := newScene(t, parse(t, set.specs))
			s.accept(t)
			if set.warns == "" && len(s.plan.Warnings) > 0 || set.warns != "" && (len(s.plan.Warnings) != 1 || !strings.Contains(s.plan.Warnings[0], set.warns)) {
				t.Errorf("warnings %q, want %q", s.plan.Warnings, set.warns)
			}
		})
	}
}

// A second fork's policies are nothing to the first, and the same fork planned anew has the same.
func TestForksPoliciesAreItsOwnAndTheSameEachTime(t *testing.T) {
	for _, set := range sets {
		t.Run(set.name, func(t *testing.T) {
			s := newScene(t, parse(t, set.specs))
			own, other := planned(s.plan), planned(s.planFork(t, "pr-2", &s.view))
			if alone, together := s.judged(own).String(), s.judged(slices.Concat(own, other)).String(); alone != together {
				t.Errorf("alone:\n%s\nbeside another fork:\n%s", alone, together)
			}
			if again := planned(s.planFork(t, "pr-1", &s.view)); !reflect.DeepEqual(own, again) {
				t.Errorf("planned anew:\n%s\nwant\n%s", dump(again), dump(own))
			}
			for i := range own {
				if len(own[i].Name) > 253 || slices.ContainsFunc(other, func(p networkingv1.NetworkPolicy) bool { return p.Name == own[i].Name }) {
					t.Errorf("name %s", own[i].Name)
				}
			}
		})
	}
}

// Every policy that is planned counts: without it, the judge has something against the plan. So do its rules, its directions and
// its selector, which shows that the judge sees what it is asked for.
func TestJudgeSeesWhatIsTakenAwayFromThePlan(t *testing.T) {
	seen, all := map[string]int{}, map[string]int{}
	for _, set := range sets {
		s := newScene(t, parse(t, set.specs))
		good := s.judged(planned(s.plan)).String()
		try := func(kind string, must bool, change func(i int, all []networkingv1.NetworkPolicy) []networkingv1.NetworkPolicy) {
			for i := range planned(s.plan) {
				changed := change(i, copied(planned(s.plan)))
				if changed == nil {
					continue
				}
				all[kind]++
				if s.judged(changed).String() != good {
					seen[kind]++
				} else if must {
					t.Errorf("%s: %s, %s: the judge sees no difference\n%s", set.name, kind, planned(s.plan)[i].Name, dump(planned(s.plan)))
				}
			}
		}
		try("policy left out", true, func(i int, all []networkingv1.NetworkPolicy) []networkingv1.NetworkPolicy {
			return slices.Delete(all, i, i+1)
		})
		try("last ingress rule left out", false, func(i int, all []networkingv1.NetworkPolicy) []networkingv1.NetworkPolicy {
			n := len(all[i].Spec.Ingress)
			if n == 0 {
				return nil
			}
			all[i].Spec.Ingress = all[i].Spec.Ingress[:n-1]
			return all
		})
		try("last egress rule left out", false, func(i int, all []networkingv1.NetworkPolicy) []networkingv1.NetworkPolicy {
			n := len(all[i].Spec.Egress)
			if n == 0 {
				return nil
			}
			all[i].Spec.Egress = all[i].Spec.Egress[:n-1]
			return all
		})
		try("isolates in a further direction", false, func(i int, all []networkingv1.NetworkPolicy) []networkingv1.NetworkPolicy {
			if len(all[i].Spec.PolicyTypes) == 2 {
				return nil
			}
			all[i].Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
			return all
		})
		try("selects all pods", false, func(i int, all []networkingv1.NetworkPolicy) []networkingv1.NetworkPolicy {
			all[i].Spec.PodSelector = metav1.LabelSelector{}
			return all
		})
		try("admits to all ports", false, func(i int, all []networkingv1.NetworkPolicy) []networkingv1.NetworkPolicy {
			for j := range all[i].Spec.Ingress {
				all[i].Spec.Ingress[j].Ports = nil
			}
			for j := range all[i].Spec.Egress {
				all[i].Spec.Egress[j].Ports = nil
			}
			return all
		})
		try("admits everybody", false, func(i int, all []networkingv1.NetworkPolicy) []networkingv1.NetworkPolicy {
			for j := range all[i].Spec.Ingress {
				all[i].Spec.Ingress[j].From = nil
			}
			for j := range all[i].Spec.Egress {
				all[i].Spec.Egress[j].To = nil
			}
			return all
		})
	}
	for kind := range all {
		t.Logf("%s: seen in %d of %d plans", kind, seen[kind], all[kind])
		if seen[kind] == 0 {
			t.Errorf("%s: never seen", kind)
		}
	}
}

func copied(policies []networkingv1.NetworkPolicy) []networkingv1.NetworkPolicy {
	var all []networkingv1.NetworkPolicy
	for i := range policies {
		all = append(all, *policies[i].DeepCopy())
	}
	return all
}
