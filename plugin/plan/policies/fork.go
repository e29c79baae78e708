package policies

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A fork carries none of its baseline's labels, so a NetworkPolicy that selects the baseline, or admits it somewhere,
// does not apply to the fork. This file creates policies with the same effect for the fork. Policies only add: a pod
// that a policy selects is isolated, and every policy that admits a connection is enough to let it in. So a policy
// for the fork's own pods isolates them only where the baseline's pods are isolated. A policy for other pods selects
// exactly the pods of an existing policy, in its direction, which isolates them already.

// A View is the state that a fork's policies are planned against.
type View struct {
	Policies  []networkingv1.NetworkPolicy // of the namespace, but for those of forks
	Forks     []networkingv1.NetworkPolicy // of the sandbox's forks
	Elsewhere []networkingv1.NetworkPolicy // of other namespaces, as far as they may be read
	// ElsewhereCut means that Elsewhere holds only the first of them.
	ElsewhereCut bool
	// Unreadable names the kinds of policy that are in force here and that this program can't read.
	Unreadable []string
	// NamespaceLabels are the labels of the namespace. NamespaceUnread means that only its name is known.
	NamespaceLabels map[string]string
	NamespaceUnread bool
}

// AsksForNamespaces reports whether a policy selects namespaces by labels other than the name label that every
// namespace has.
func (v *View) AsksForNamespaces() bool {
	asks := func(p networkingv1.NetworkPolicy) bool {
		for _, r := range append(RulesOf(&p, networkingv1.PolicyTypeIngress), RulesOf(&p, networkingv1.PolicyTypeEgress)...) {
			for _, peer := range r.Peers {
				if s := peer.NamespaceSelector; s != nil && (len(s.MatchExpressions) > 0 || slices.ContainsFunc(slices.Collect(maps.Keys(s.MatchLabels)), func(key string) bool {
					return key != corev1.LabelMetadataName
				})) {
					return true
				}
			}
		}
		return false
	}
	return slices.ContainsFunc(v.Policies, asks) || slices.ContainsFunc(v.Elsewhere, asks)
}

// A Policy is a NetworkPolicy of a fork.
type Policy struct {
	*networkingv1.NetworkPolicy
	// Before is the existing policy; nil if there is none.
	Before *networkingv1.NetworkPolicy
}

// Changed reports whether the policy has to be written.
func (p *Policy) Changed() bool {
	return p.Before == nil || len(p.Before.OwnerReferences) == 0 ||
		!equality.Semantic.DeepEqual(p.Spec, p.Before.Spec) || !reflect.DeepEqual(p.Labels, p.Before.Labels) ||
		!reflect.DeepEqual(p.Annotations, p.Before.Annotations)
}

// Object returns the policy to apply, without the owner reference. An unchanged policy is returned as it is.
func (p *Policy) Object() *unstructured.Unstructured {
	if !p.Changed() {
		return plan.ToUnstructured(p.Before, "NetworkPolicy")
	}
	return plan.Manifest(plan.ToUnstructured(p.NetworkPolicy, "NetworkPolicy"))
}

// Verb returns what happens to the policy, in the words of `kubectl apply`.
func (p *Policy) Verb() string {
	switch {
	case p.Before == nil:
		return "created"
	case p.Changed():
		return "configured"
	}
	return "unchanged"
}

// forkPolicies plans the policies of one fork.
type forkPolicies struct {
	view           *View
	workload       *plan.Workload
	fork           string     // the Deployment's name
	baseline, pods labels.Set // of the baseline's pods, and of the fork's
	routerPorts    []uint16   // ports of the fork's pods to which the baseline's routers connect
	routed, forked *metav1.LabelSelector
	created        map[string]*networkingv1.NetworkPolicy // by selector
	origins        map[*networkingv1.NetworkPolicy][]string
	lax            []string // policies that admit the fork to what the baseline is not admitted to
	unnamed        map[string]int32
}

// A Fork is the fork that policies are planned for.
type Fork struct {
	Sandbox string
	// OwnerUID is the uid of the sandbox's ConfigMap, which owns the policies; empty if it does not exist yet.
	OwnerUID   string
	Workload   *plan.Workload             // its baseline
	Deployment *unstructured.Unstructured // the planned one
}

// Set are the NetworkPolicies of one fork.
type Set struct {
	Policies []Policy
	// Obsolete are the existing ones that the fork no longer needs.
	Obsolete []*networkingv1.NetworkPolicy
	// Warnings are the effects of existing policies that can't be reproduced for the fork.
	Warnings []string
}

// Of plans the NetworkPolicies of a fork. Every error is a *Problem.
func Of(f *Fork, view *View) (*Set, error) {
	// The API server refuses labels that are not strings.
	baseline, _, _ := unstructured.NestedStringMap(f.Workload.Template(), "metadata", "labels")
	pods, _, _ := unstructured.NestedStringMap(f.Deployment.Object, "spec", "template", "metadata", "labels")
	annotations, _, _ := unstructured.NestedStringMap(f.Deployment.Object, "spec", "template", "metadata", "annotations")
	m := &forkPolicies{
		view: view, workload: f.Workload, fork: f.Deployment.GetName(), baseline: baseline, pods: pods,
		routed: &metav1.LabelSelector{MatchLabels: Marks(sandbox.RoleBaseline, f.Workload)},
		forked: &metav1.LabelSelector{MatchLabels: map[string]string{
			sandbox.LabelSandbox: f.Sandbox, sandbox.LabelRole: sandbox.RoleFork, sandbox.LabelWorkload: f.Workload.Label(),
		}},
		created: map[string]*networkingv1.NetworkPolicy{}, origins: map[*networkingv1.NetworkPolicy][]string{},
	}
	m.unnamed = unnamedPorts(f.Workload, f.Deployment)
	if f.Workload.Routed() {
		m.routerPorts = routerPorts(f.Deployment, annotations[sandbox.AnnotationPorts])
	}
	for _, direction := range []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress} {
		m.copyPolicies(direction)
		m.admitRouters(direction)
	}
	out := &Set{}
	for _, want := range m.sorted() {
		p, err := f.own(want, view)
		if err != nil {
			return nil, err
		}
		out.Policies = append(out.Policies, *p)
	}
	for i := range view.Forks {
		have := &view.Forks[i]
		of := have.Labels[sandbox.LabelWorkload] == f.Workload.Label() && have.DeletionTimestamp == nil
		if of && !slices.ContainsFunc(out.Policies, func(q Policy) bool { return q.Name == have.Name }) {
			out.Obsolete = append(out.Obsolete, have)
		}
	}
	out.Warnings = m.warnings()
	return out, nil
}

// routerPorts returns the ports of a fork's pods to which routers connect. A captured port is found by its name, else
// by its number.
func routerPorts(fork *unstructured.Unstructured, captured string) []uint16 {
	// Admission skips pods whose annotation does not parse, so these have no routers.
	ports, _ := sandbox.ParsePorts(captured)
	var template corev1.PodTemplateSpec
	if content, _, _ := unstructured.NestedMap(fork.Object, "spec", "template"); runtime.DefaultUnstructuredConverter.FromUnstructured(content, &template) != nil {
		template = corev1.PodTemplateSpec{} // the API server will report the error
	}
	var numbers []uint16
	for _, want := range ports {
		number := want.Number
		for _, c := range template.Spec.Containers {
			for _, p := range c.Ports {
				if p.Name == want.Name && (p.Protocol == corev1.ProtocolTCP || p.Protocol == "") {
					number = plan.PortNumber(p.ContainerPort)
				}
			}
		}
		numbers = append(numbers, number)
	}
	return numbers
}

// copyPolicies creates policies for the fork's pods with the effect that the namespace's policies have on the
// baseline's, in one direction.
func (m *forkPolicies) copyPolicies(direction networkingv1.PolicyType) {
	var closed, confined bool // what policies isolate: the baseline; the fork
	var rules []Rule          // that hold for the baseline
	var gained, copied []*networkingv1.NetworkPolicy
	for i := range m.view.Policies {
		p := &m.view.Policies[i]
		if !Isolates(p, direction) {
			continue
		}
		baseline, fork := Matches(&p.Spec.PodSelector, m.baseline), Matches(&p.Spec.PodSelector, m.pods)
		closed, confined = closed || baseline, confined || fork
		switch {
		case baseline:
			rules = append(rules, RulesOf(p, direction)...)
			if !fork {
				copied = append(copied, p)
			}
		case fork:
			gained = append(gained, p)
		}
		m.admitBeside(p, direction)
		if m.admitsMore(p, m.view.NamespaceLabels, direction) {
			m.lax = plan.AppendNew(m.lax, "networkpolicy/"+p.Name)
		}
	}
	for _, p := range copied {
		m.copyPolicy(p, direction, confined)
	}
	switch {
	case confined && !closed: // as open as the baseline
		own := m.policy(*m.forked, direction, gained...)
		addRule(own, direction, Rule{})
	case closed:
		for _, p := range gained {
			more := slices.ContainsFunc(RulesOf(p, direction), func(r Rule) bool {
				return !slices.ContainsFunc(rules, func(s Rule) bool { return reflect.DeepEqual(r, s) })
			})
			if more && !m.ours(p) && !ofSandboxes(&p.Spec.PodSelector) {
				m.lax = plan.AppendNew(m.lax, "networkpolicy/"+p.Name)
			}
		}
	}
}

// copyPolicy applies the rules that p has for the baseline's pods to the fork's pods, which other policies may
// isolate too. If the peers are the baseline's pods themselves, the fork's pods are added to them.
func (m *forkPolicies) copyPolicy(p *networkingv1.NetworkPolicy, direction networkingv1.PolicyType, isolated bool) {
	rules := RulesOf(p, direction)
	if p.Name == sandbox.PolicyName(m.workload.Kind(), m.workload.Name(), "") && m.ours(p) {
		rules = nil // what only routers need
	}
	if isolated && len(rules) == 0 {
		return
	}
	own := m.policy(*m.forked, direction, p)
	for _, r := range rules {
		if !m.ours(p) && m.admitsOnlyBaseline(r.Peers, m.view.NamespaceLabels) {
			r.Peers = append(slices.Clone(r.Peers), networkingv1.NetworkPolicyPeer{PodSelector: m.forked})
		}
		if direction == networkingv1.PolicyTypeIngress {
			r.Ports = numbered(r.Ports, m.unnamed)
		}
		addRule(own, direction, r)
	}
}

// admitBeside admits the fork wherever p admits the baseline's pods by their labels.
func (m *forkPolicies) admitBeside(p *networkingv1.NetworkPolicy, direction networkingv1.PolicyType) {
	if m.ours(p) && (direction == networkingv1.PolicyTypeEgress || !Matches(&p.Spec.PodSelector, m.baseline)) {
		return // the way to the baseline's routers, which forks have none of
	}
	for _, r := range RulesOf(p, direction) {
		if m.admitsOnlyBaseline(r.Peers, m.view.NamespaceLabels) {
			if direction == networkingv1.PolicyTypeEgress {
				r.Ports = numbered(r.Ports, m.unnamed)
			}
			addRule(m.policy(p.Spec.PodSelector, direction, p), direction, Rule{
				Peers: []networkingv1.NetworkPolicyPeer{{PodSelector: m.forked}}, Ports: r.Ports,
			})
		}
	}
}

// admitRouters admits the connections from the baseline's routers to the fork, at their source or at their
// destination, unless a policy admits them already.
func (m *forkPolicies) admitRouters(direction networkingv1.PolicyType) {
	subject, selector, other, peer := m.pods, *m.forked, m.baseline, m.routed
	if direction == networkingv1.PolicyTypeEgress {
		subject, selector, other, peer = m.baseline, *m.routed, m.pods, m.forked
	}
	var on []*networkingv1.NetworkPolicy
	var rules []Rule
	for i := range m.view.Policies {
		if p := &m.view.Policies[i]; Isolates(p, direction) && Matches(&p.Spec.PodSelector, subject) {
			on, rules = append(on, p), append(rules, RulesOf(p, direction)...)
		}
	}
	isolated := len(on) > 0
	for _, p := range m.created {
		if Isolates(p, direction) && Matches(&p.Spec.PodSelector, subject) {
			isolated, rules = true, append(rules, RulesOf(p, direction)...)
		}
	}
	if !isolated {
		return
	}
	add := Rule{Peers: []networkingv1.NetworkPolicyPeer{{PodSelector: peer}}}
	for _, port := range m.routerPorts {
		if !slices.ContainsFunc(rules, func(r Rule) bool {
			return m.admitsPods(r.Peers, m.view.NamespaceLabels, other) && (len(r.Ports) == 0 ||
				slices.ContainsFunc(r.Ports, func(p networkingv1.NetworkPolicyPort) bool { return Admits(p, port) }))
		}) {
			add.Ports = plan.AppendNew(add.Ports, TCPPort(port))
		}
	}
	if len(add.Ports) == 0 {
		return
	}
	if direction == networkingv1.PolicyTypeEgress {
		// Select only pods that are isolated already: during a rollout of the baseline, pods of an older template may
		// not be. "on" is not empty, because a created policy that isolates the baseline has the selector of one in
		// it.
		on = on[:1]
		selector = both(on[0].Spec.PodSelector, selector)
	}
	addRule(m.policy(selector, direction, on...), direction, add)
}

// policy returns the fork's policy with that selector, and creates it if needed. It adds the direction, and records
// the policies in on as its origins.
func (m *forkPolicies) policy(selector metav1.LabelSelector, direction networkingv1.PolicyType, on ...*networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	key, err := json.Marshal(selector)
	if err != nil {
		panic(err) // strings always encode
	}
	p := m.created[string(key)]
	if p == nil {
		suffix := string(key)
		if reflect.DeepEqual(selector, *m.forked) {
			suffix = ""
		}
		p = &networkingv1.NetworkPolicy{
			TypeMeta: metav1.TypeMeta{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "NetworkPolicy"},
			ObjectMeta: metav1.ObjectMeta{
				Namespace: m.workload.Namespace(), Name: sandbox.ForkPolicyName(m.fork, suffix), Labels: m.forked.MatchLabels,
			},
			Spec: networkingv1.NetworkPolicySpec{PodSelector: *selector.DeepCopy()},
		}
		m.created[string(key)] = p
	}
	p.Spec.PolicyTypes = plan.AppendNew(p.Spec.PolicyTypes, direction)
	for _, o := range on {
		m.origins[p] = plan.AppendNew(m.origins[p], o.Name)
	}
	return p
}

// sorted returns the created policies in order of name.
func (m *forkPolicies) sorted() []*networkingv1.NetworkPolicy {
	var all []*networkingv1.NetworkPolicy
	for _, p := range m.created {
		names := slices.Sorted(slices.Values(m.origins[p]))
		p.Annotations = map[string]string{sandbox.AnnotationPolicies: strings.Join(names, ",")}
		all = append(all, p)
	}
	slices.SortFunc(all, func(p, q *networkingv1.NetworkPolicy) int { return cmp.Compare(p.Name, q.Name) })
	return all
}

// ours reports whether `route` created p for the fork's own baseline.
func (m *forkPolicies) ours(p *networkingv1.NetworkPolicy) bool {
	return p.Labels[sandbox.LabelRole] == sandbox.RoleRoute && p.Labels[sandbox.LabelWorkload] == m.workload.Label()
}

// admitsPods reports whether peers of a policy admit pods of those labels, in a namespace of those labels.
func (m *forkPolicies) admitsPods(peers []networkingv1.NetworkPolicyPeer, namespace map[string]string, pods labels.Set) bool {
	return len(peers) == 0 || slices.ContainsFunc(peers, func(peer networkingv1.NetworkPolicyPeer) bool {
		return peer.IPBlock == nil && IsPod(&peer, namespace, pods)
	})
}

func (m *forkPolicies) admitsOnlyBaseline(peers []networkingv1.NetworkPolicyPeer, namespace map[string]string) bool {
	return m.admitsPods(peers, namespace, m.baseline) && !m.admitsPods(peers, namespace, m.pods)
}

// admitsMore reports whether p admits the fork's pods, which lack labels, but not the baseline's. It ignores policies
// that were written for sandboxes.
func (m *forkPolicies) admitsMore(p *networkingv1.NetworkPolicy, namespace map[string]string, direction networkingv1.PolicyType) bool {
	if p.Labels[sandbox.LabelRole] == sandbox.RoleRoute {
		return false
	}
	rules := RulesOf(p, direction)
	return slices.ContainsFunc(rules, func(r Rule) bool {
		if m.admitsPods(r.Peers, namespace, m.baseline) {
			return false
		}
		unasked := slices.ContainsFunc(r.Peers, func(peer networkingv1.NetworkPolicyPeer) bool {
			return peer.PodSelector != nil && !ofSandboxes(peer.PodSelector) && m.admitsPods([]networkingv1.NetworkPolicyPeer{peer}, namespace, m.pods)
		})
		return unasked && !slices.ContainsFunc(rules, func(s Rule) bool {
			return m.admitsPods(s.Peers, namespace, m.baseline) && (len(s.Ports) == 0 || reflect.DeepEqual(r.Ports, s.Ports))
		})
	})
}

// warnings lists the effects of existing policies that can't be reproduced for the fork.
func (m *forkPolicies) warnings() []string {
	var warnings []string
	var strict []string
	for i := range m.view.Elsewhere {
		p := &m.view.Elsewhere[i]
		for _, direction := range []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress} {
			elsewhere := *p
			elsewhere.Spec.Ingress, elsewhere.Spec.Egress = nil, nil
			for _, r := range RulesOf(p, direction) {
				// A peer without namespaceSelector is in the policy's own namespace, which is another one.
				if len(r.Peers) > 0 {
					r.Peers = slices.DeleteFunc(slices.Clone(r.Peers), func(peer networkingv1.NetworkPolicyPeer) bool {
						return peer.NamespaceSelector == nil && peer.IPBlock == nil
					})
					if len(r.Peers) == 0 {
						continue
					}
				}
				addRule(&elsewhere, direction, r)
				if m.admitsOnlyBaseline(r.Peers, m.view.NamespaceLabels) {
					strict = plan.AppendNew(strict, p.Namespace+"/"+p.Name)
				}
			}
			if m.admitsMore(&elsewhere, m.view.NamespaceLabels, direction) {
				m.lax = plan.AppendNew(m.lax, "networkpolicy/"+p.Name+" of namespace "+p.Namespace)
			}
		}
	}
	forks := fmt.Sprintf("{matchLabels: {%s: %s, %s: %s}}", sandbox.LabelRole, sandbox.RoleFork, sandbox.LabelWorkload, m.workload.Label())
	if len(strict) > 0 {
		warnings = append(warnings, fmt.Sprintf("NetworkPolicies of other namespaces admit %s by its labels, and so not its fork: %s; admit podSelector %s of this namespace there too",
			m.workload, plan.JoinWords(strict), forks))
	}
	if len(m.lax) > 0 {
		warnings = append(warnings, fmt.Sprintf("the fork of %s, which has none of its labels, is admitted where the baseline is not by %s; to keep forks out, add matchExpressions {key: %s, operator: DoesNotExist} to the selector",
			m.workload, plan.JoinWords(m.lax), sandbox.LabelSandbox))
	}
	if m.view.ElsewhereCut {
		warnings = append(warnings, fmt.Sprintf("only %d NetworkPolicies of other namespaces were looked at; more of them may admit %s by its labels, and so not its fork",
			len(m.view.Elsewhere), m.workload))
	}
	if m.view.NamespaceUnread {
		warnings = append(warnings, "the labels of this namespace may not be read: policies that admit by them are taken not to admit its pods")
	}
	for _, kind := range m.view.Unreadable {
		warnings = append(warnings, fmt.Sprintf("this namespace has %s, which this program can't read: where they name %s by its labels, name podSelector %s too", kind, m.workload, forks))
	}
	return warnings
}

// own returns a wanted policy with the existing one, or a *Problem if the policy of that name is not the fork's.
func (f *Fork) own(want *networkingv1.NetworkPolicy, view *View) (*Policy, error) {
	named := func(q networkingv1.NetworkPolicy) bool { return q.Name == want.Name }
	if slices.ContainsFunc(view.Policies, named) {
		return nil, &plan.Problem{
			What: fmt.Sprintf("networkpolicy/%s exists and was not created by kubectl sandbox, which needs its name", want.Name),
			Hint: "if nobody needs it",
			Fix:  plan.Kubectl("delete", "networkpolicy", want.Name),
		}
	}
	add := &Policy{NetworkPolicy: want}
	if i := slices.IndexFunc(view.Forks, named); i >= 0 {
		add.Before = &view.Forks[i]
		owners := add.Before.OwnerReferences
		left := len(owners) > 0 && !slices.ContainsFunc(owners, func(r metav1.OwnerReference) bool { return string(r.UID) == f.OwnerUID })
		if left || add.Before.DeletionTimestamp != nil {
			return nil, &plan.Problem{
				What: fmt.Sprintf("networkpolicy/%s is left from an earlier sandbox %q, and will be deleted with it", want.Name, f.Sandbox),
				Hint: "wait until it is deleted, then fork again", Fix: plan.Kubectl("wait", "--for=delete", "networkpolicy/"+want.Name),
			}
		}
	}
	return add, nil
}
