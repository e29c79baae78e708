package routes

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/policies"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// NetworkPolicies see the port of a connection at the pod: with a router in front, that is the router's port. This
// file plans policies that add to the existing ones. They select only pods that a policy already isolates, so they
// never close what was open. They admit port numbers. A rule that names the app's port by name admits only the router
// once the router has the name. For such a rule the app's number is admitted as well, for clients that dial it
// directly.

// policies returns the NetworkPolicies that a target needs, in order of name.
func (a *analysis) policies(t *target) []*networkingv1.NetworkPolicy {
	needed := a.clientPolicies(t)
	if own := a.ownPolicy(t); len(own.Spec.PolicyTypes) > 0 {
		needed = append(needed, own)
	}
	if a.isolatesForks(t) {
		p := t.policy("forks")
		p.Spec.PodSelector = *t.selector(sandbox.RoleFork)
		p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{
			From: []networkingv1.NetworkPolicyPeer{{PodSelector: t.selector(sandbox.RoleBaseline)}},
		}}
		needed = append(needed, p)
	}
	slices.SortFunc(needed, func(p, q *networkingv1.NetworkPolicy) int { return cmp.Compare(p.Name, q.Name) })
	return needed
}

// ownPolicy returns the policy of the target's own pods: it admits to the router whoever is admitted to the app, and the
// router to forks and to the control plane. Without a policy type, it is not needed.
func (a *analysis) ownPolicy(t *target) *networkingv1.NetworkPolicy {
	pods, captures := t.routedLabels(), t.captures()
	own := t.policy("")
	own.Spec.PodSelector = *t.selector(sandbox.RoleBaseline)
	var isolatesIngress, isolatesEgress bool
	for _, p := range a.foreignPolicies() {
		if !policies.Matches(&p.Spec.PodSelector, pods) {
			continue
		}
		isolatesEgress = isolatesEgress || policies.Isolates(p, networkingv1.PolicyTypeEgress)
		if !policies.Isolates(p, networkingv1.PolicyTypeIngress) {
			continue
		}
		isolatesIngress = true
		for _, rule := range p.Spec.Ingress {
			if ports := policies.PortsBeside(rule.Ports, captures); len(ports) > 0 {
				own.Spec.Ingress = plan.AppendNew(own.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{
					From: rule.From, Ports: ports,
				})
			}
		}
	}
	if isolatesIngress && len(own.Spec.Ingress) > 0 {
		own.Spec.PolicyTypes = append(own.Spec.PolicyTypes, networkingv1.PolicyTypeIngress)
	}
	if isolatesEgress {
		own.Spec.PolicyTypes = append(own.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		own.Spec.Egress = a.routerEgress(t)
	}
	return own
}

// routerEgress returns what routers of the target connect to.
func (a *analysis) routerEgress(t *target) []networkingv1.NetworkPolicyEgressRule {
	tcp := corev1.ProtocolTCP
	rules := []networkingv1.NetworkPolicyEgressRule{{
		To:    []networkingv1.NetworkPolicyPeer{{PodSelector: t.selector(sandbox.RoleFork)}},
		Ports: []networkingv1.NetworkPolicyPort{{Protocol: &tcp}},
	}}
	if a.view.ControlNamespace == "" {
		return rules
	}
	return append(rules, networkingv1.NetworkPolicyEgressRule{
		To: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{
			MatchLabels: map[string]string{corev1.LabelMetadataName: a.view.ControlNamespace},
		}}},
		Ports: []networkingv1.NetworkPolicyPort{policies.TCPPort(sandbox.RoutesPort)},
	})
}

// isolatesForks reports whether a policy that is not of `route` keeps connections from the target's forks.
func (a *analysis) isolatesForks(t *target) bool {
	forks := labels.Set(policies.Marks(sandbox.RoleFork, t.Workload))
	return slices.ContainsFunc(a.foreignPolicies(), func(p *networkingv1.NetworkPolicy) bool {
		return policies.Isolates(p, networkingv1.PolicyTypeIngress) && policies.Matches(&p.Spec.PodSelector, forks)
	})
}

// clientPolicies returns, for each policy that lets its pods reach the target's by port, one that lets them reach the
// routers.
func (a *analysis) clientPolicies(t *target) []*networkingv1.NetworkPolicy {
	pods, captures := t.routedLabels(), t.captures()
	var needed []*networkingv1.NetworkPolicy
	for _, p := range a.foreignPolicies() {
		if !policies.Isolates(p, networkingv1.PolicyTypeEgress) {
			continue
		}
		c := t.policy("from-" + p.Name)
		c.Spec.PodSelector = p.Spec.PodSelector
		c.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
		for _, rule := range p.Spec.Egress {
			ports := policies.PortsBeside(rule.Ports, captures)
			if len(ports) > 0 && a.reaches(rule.To, t, pods) {
				c.Spec.Egress = plan.AppendNew(c.Spec.Egress, networkingv1.NetworkPolicyEgressRule{
					To: []networkingv1.NetworkPolicyPeer{{PodSelector: t.selector(sandbox.RoleBaseline)}}, Ports: ports,
				})
			}
		}
		if len(c.Spec.Egress) > 0 {
			needed = append(needed, c)
		}
	}
	return needed
}

// foreignPolicies returns the policies of the namespace that are not of `route`.
func (a *analysis) foreignPolicies() []*networkingv1.NetworkPolicy {
	return slices.DeleteFunc(slices.Clone(a.view.Policies), func(p *networkingv1.NetworkPolicy) bool {
		return p.Labels[sandbox.LabelRole] == sandbox.RoleRoute
	})
}

// routedLabels returns the labels that the target's pods have once they have routers.
func (t *target) routedLabels() labels.Set {
	pods := labels.Set{}
	for key, value := range t.labels {
		pods[key] = value
	}
	pods[sandbox.LabelRole], pods[sandbox.LabelWorkload] = sandbox.RoleBaseline, t.Label()
	return pods
}

// selector selects the target's pods that have routers, or those of its forks, by role.
func (t *target) selector(role string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: policies.Marks(role, t.Workload)}
}

// captures returns the target's ports with the ports on which its routers will listen, chosen as admission chooses
// them.
func (t *target) captures() []sandbox.Capture {
	var taken []uint16
	for _, containers := range [][]corev1.Container{t.pod.Spec.InitContainers, t.pod.Spec.Containers} {
		for _, c := range containers {
			for _, p := range c.Ports {
				taken = append(taken, plan.PortNumber(p.ContainerPort))
			}
		}
	}
	return sandbox.Listen(t.ports, taken)
}

// policy returns an empty NetworkPolicy that belongs to the target: it is deleted with the target and found by its
// labels.
func (t *target) policy(suffix string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		TypeMeta: metav1.TypeMeta{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "NetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: t.Namespace(),
			Name:      sandbox.PolicyName(t.Kind(), t.Name(), suffix),
			Labels:    policies.Marks(sandbox.RoleRoute, t.Workload),
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: t.Object.GetAPIVersion(), Kind: t.Kind(), Name: t.Name(), UID: t.Object.GetUID(),
			}},
		},
	}
}

// reaches reports whether a peer of an egress rule is a pod of the target, or may be one by its addresses. A rule
// without peers reaches all pods.
func (a *analysis) reaches(peers []networkingv1.NetworkPolicyPeer, t *target, pods labels.Set) bool {
	return len(peers) == 0 || slices.ContainsFunc(peers, func(peer networkingv1.NetworkPolicyPeer) bool {
		if peer.IPBlock != nil {
			return slices.ContainsFunc(a.view.podsOf(t.Workload), func(pod *corev1.Pod) bool { return policies.InBlock(peer.IPBlock, pod.Status.PodIP) })
		}
		return policies.IsPod(&peer, a.view.NamespaceLabels, pods)
	})
}

// writePolicies plans the writes that make the namespace's policies with our label equal to those that the targets
// need.
func (a *analysis) writePolicies() ([]Write, error) {
	var writes []Write
	for _, t := range a.targets {
		want := a.policies(t)
		for _, have := range a.view.Policies {
			if ofTarget(have, t.Workload) && !slices.ContainsFunc(want, func(p *networkingv1.NetworkPolicy) bool { return p.Name == have.Name }) {
				writes = append(writes, deletePolicy(have))
			}
		}
		for _, p := range want {
			i := slices.IndexFunc(a.view.Policies, func(q *networkingv1.NetworkPolicy) bool { return q.Name == p.Name })
			if i < 0 {
				writes = append(writes, Write{
					Resource: policiesResource(), Namespace: p.Namespace, Name: p.Name, Object: "networkpolicy.networking.k8s.io/" + p.Name,
					Change: "admits routers of " + t.Arg() + " where its own ports are admitted", Create: plan.ToUnstructured(p, "NetworkPolicy"),
				})
				continue
			}
			have := a.view.Policies[i]
			if !ofTarget(have, t.Workload) {
				return nil, &plan.Problem{
					What: fmt.Sprintf("networkpolicy/%s exists and was not created by kubectl sandbox, which needs its name", p.Name),
					Hint: "if nobody needs it",
					Fix:  plan.Kubectl("delete", "networkpolicy", p.Name),
				}
			}
			if reflect.DeepEqual(have.Spec, p.Spec) {
				continue
			}
			patcher := patch(plan.ToUnstructured(have, "NetworkPolicy"))
			patcher.put(plan.ToUnstructured(p, "NetworkPolicy").Object["spec"], "spec")
			writes = append(writes, Write{
				Resource: policiesResource(), Namespace: p.Namespace, Name: p.Name, Object: "networkpolicy.networking.k8s.io/" + p.Name,
				Before: plan.ToUnstructured(have, "NetworkPolicy"), Change: "follows what changed", Patch: patcher.ops, After: patcher.object,
			})
		}
	}
	return writes, nil
}

func deletePolicy(p *networkingv1.NetworkPolicy) Write {
	return Write{
		Resource: policiesResource(), Namespace: p.Namespace, Name: p.Name, Object: "networkpolicy.networking.k8s.io/" + p.Name,
		Before: plan.ToUnstructured(p, "NetworkPolicy"), Change: "is deleted", Delete: p.UID,
	}
}

// ofTarget reports whether `route` created p for w, or printed it for Git, where no uid is known.
func ofTarget(p *networkingv1.NetworkPolicy, w *plan.Workload) bool {
	return p.Labels[sandbox.LabelRole] == sandbox.RoleRoute && p.Labels[sandbox.LabelWorkload] == w.Label() &&
		(len(p.OwnerReferences) == 0 || slices.ContainsFunc(p.OwnerReferences, func(ref metav1.OwnerReference) bool { return ref.UID == w.Object.GetUID() }))
}

// policyNotices lists the policies that `route` can't extend itself.
func (a *analysis) policyNotices() []string {
	var notices []string
	for _, kind := range a.view.Unreadable {
		notices = append(notices, fmt.Sprintf("this namespace has %s, which this program can't read: where they name the app's ports, admit the router's too (from %d upwards)", kind, sandbox.FirstListenPort))
	}
	for _, t := range a.targets {
		pods := labels.Set(policies.Marks(sandbox.RoleBaseline, t.Workload))
		for key, value := range t.labels {
			pods[key] = value
		}
		for _, p := range a.view.PoliciesElsewhere {
			if !policies.Isolates(p, networkingv1.PolicyTypeEgress) {
				continue
			}
			for _, rule := range p.Spec.Egress {
				// A peer without namespaceSelector is in the policy's own namespace, which is not the target's.
				peers := slices.DeleteFunc(slices.Clone(rule.To), func(peer networkingv1.NetworkPolicyPeer) bool {
					return peer.NamespaceSelector == nil && peer.IPBlock == nil
				})
				if len(rule.To) > 0 && len(peers) == 0 || len(policies.PortsBeside(rule.Ports, t.captures())) == 0 || !a.reaches(peers, t, pods) {
					continue
				}
				notices = append(notices, fmt.Sprintf("networkpolicy/%s in namespace %s lets its pods reach %s by port: add the router's (%s) there", p.Name, p.Namespace, t.Workload, describeListens(t.captures())))
				break
			}
		}
	}
	return notices
}

func describeListens(captures []sandbox.Capture) string {
	words := make([]string, len(captures))
	for i, c := range captures {
		words[i] = fmt.Sprintf("%d for %s", c.Listen, c.Name)
	}
	return plan.JoinWords(words)
}
