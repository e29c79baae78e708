package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// NetworkPolicies see the port of a connection at the pod: with a router in front, that is the router's port. This
// file plans policies that add to the existing ones. They select only pods that a policy already isolates, so they
// never close what was open. They admit port numbers. A rule that names the app's port by name admits only the router
// once the router has the name. For such a rule the app's number is admitted as well, for clients that dial it
// directly.

// policies returns the NetworkPolicies that a target needs, in order of name.
func (a *analysis) policies(t *routeTarget) []*networkingv1.NetworkPolicy {
	pods := labels.Set{}
	for key, value := range t.labels {
		pods[key] = value
	}
	pods[sandbox.LabelRole], pods[sandbox.LabelWorkload] = sandbox.RoleBaseline, t.Label()
	routed := &metav1.LabelSelector{MatchLabels: marks(sandbox.RoleBaseline, t.Workload)}
	forks := &metav1.LabelSelector{MatchLabels: marks(sandbox.RoleFork, t.Workload)}
	captures := t.captures()

	own := t.policy("")
	own.Spec.PodSelector = *routed
	forkPolicy := t.policy("forks")
	forkPolicy.Spec.PodSelector = *forks
	clients := map[string]*networkingv1.NetworkPolicy{}
	var isolatesIngress, isolatesEgress, isolatesForks bool
	for _, p := range a.view.Policies {
		if p.Labels[sandbox.LabelRole] == sandbox.RoleRoute {
			continue
		}
		if isolates(p, networkingv1.PolicyTypeIngress) && matches(&p.Spec.PodSelector, pods) {
			isolatesIngress = true
			for _, rule := range p.Spec.Ingress {
				if ports := portsBeside(rule.Ports, captures); len(ports) > 0 {
					own.Spec.Ingress = appendNew(own.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: rule.From, Ports: ports})
				}
			}
		}
		if isolates(p, networkingv1.PolicyTypeEgress) && matches(&p.Spec.PodSelector, pods) {
			isolatesEgress = true
		}
		if isolates(p, networkingv1.PolicyTypeIngress) && matches(&p.Spec.PodSelector, labels.Set(forks.MatchLabels)) {
			isolatesForks = true
		}
		if isolates(p, networkingv1.PolicyTypeEgress) {
			for _, rule := range p.Spec.Egress {
				ports := portsBeside(rule.Ports, captures)
				if len(ports) == 0 || !a.reaches(rule.To, t, pods) {
					continue
				}
				c := clients[p.Name]
				if c == nil {
					c = t.policy("from-" + p.Name)
					c.Spec.PodSelector = p.Spec.PodSelector
					c.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
					clients[p.Name] = c
				}
				c.Spec.Egress = appendNew(c.Spec.Egress, networkingv1.NetworkPolicyEgressRule{
					To: []networkingv1.NetworkPolicyPeer{{PodSelector: routed}}, Ports: ports,
				})
			}
		}
	}

	var needed []*networkingv1.NetworkPolicy
	if isolatesIngress && len(own.Spec.Ingress) > 0 {
		own.Spec.PolicyTypes = append(own.Spec.PolicyTypes, networkingv1.PolicyTypeIngress)
	}
	if isolatesEgress {
		own.Spec.PolicyTypes = append(own.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		tcp := corev1.ProtocolTCP
		own.Spec.Egress = append(own.Spec.Egress, networkingv1.NetworkPolicyEgressRule{
			To:    []networkingv1.NetworkPolicyPeer{{PodSelector: forks}},
			Ports: []networkingv1.NetworkPolicyPort{{Protocol: &tcp}},
		})
		if a.view.ControlNamespace != "" {
			own.Spec.Egress = append(own.Spec.Egress, networkingv1.NetworkPolicyEgressRule{
				To: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{
					MatchLabels: map[string]string{corev1.LabelMetadataName: a.view.ControlNamespace},
				}}},
				Ports: []networkingv1.NetworkPolicyPort{policyPort(sandbox.RoutesPort)},
			})
		}
	}
	if len(own.Spec.PolicyTypes) > 0 {
		needed = append(needed, own)
	}
	if isolatesForks {
		forkPolicy.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		forkPolicy.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: routed}}}}
		needed = append(needed, forkPolicy)
	}
	for _, c := range clients {
		needed = append(needed, c)
	}
	slices.SortFunc(needed, func(p, q *networkingv1.NetworkPolicy) int { return cmp.Compare(p.Name, q.Name) })
	return needed
}

// captures returns the target's ports with the ports on which its routers will listen, chosen as admission chooses
// them.
func (t *routeTarget) captures() []sandbox.Capture {
	var taken []uint16
	for _, containers := range [][]corev1.Container{t.pod.Spec.InitContainers, t.pod.Spec.Containers} {
		for _, c := range containers {
			for _, p := range c.Ports {
				taken = append(taken, portNumber(p.ContainerPort))
			}
		}
	}
	return sandbox.Listen(t.ports, taken)
}

func marks(role string, w *Workload) map[string]string {
	return map[string]string{sandbox.LabelRole: role, sandbox.LabelWorkload: w.Label()}
}

// policy returns an empty NetworkPolicy that belongs to the target: it is deleted with the target and found by its
// labels.
func (t *routeTarget) policy(suffix string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		TypeMeta: metav1.TypeMeta{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "NetworkPolicy"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: t.Namespace(),
			Name:      sandbox.PolicyName(t.Kind(), t.Name(), suffix),
			Labels:    marks(sandbox.RoleRoute, t.Workload),
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: t.Object.GetAPIVersion(), Kind: t.Kind(), Name: t.Name(), UID: t.Object.GetUID(),
			}},
		},
	}
}

// portsBeside returns the ports to admit in addition to a rule: the router's port for each captured port that the
// rule admits, unless the rule admits both. A rule without ports admits all.
func portsBeside(rule []networkingv1.NetworkPolicyPort, captures []sandbox.Capture) []networkingv1.NetworkPolicyPort {
	if len(rule) == 0 {
		return nil
	}
	var ports []networkingv1.NetworkPolicyPort
	for _, c := range captures {
		byNumber := slices.ContainsFunc(rule, func(p networkingv1.NetworkPolicyPort) bool { return admits(p, c.Number) })
		byName := slices.ContainsFunc(rule, func(p networkingv1.NetworkPolicyPort) bool {
			return isTCP(p) && p.Port != nil && p.Port.Type == intstr.String && p.Port.StrVal == c.Name
		})
		listens := slices.ContainsFunc(rule, func(p networkingv1.NetworkPolicyPort) bool { return admits(p, c.Listen) })
		if (byNumber || byName) && !listens {
			ports = appendNew(ports, policyPort(c.Listen))
		}
		if byName && !byNumber {
			ports = appendNew(ports, policyPort(c.Number))
		}
	}
	return ports
}

// admits reports whether a rule's port admits the number of a TCP port.
func admits(p networkingv1.NetworkPolicyPort, number uint16) bool {
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

func policyPort(number uint16) networkingv1.NetworkPolicyPort {
	tcp, port := corev1.ProtocolTCP, intstr.FromInt32(int32(number))
	return networkingv1.NetworkPolicyPort{Protocol: &tcp, Port: &port}
}

// isolates reports whether p has that policy type. The API server's default is Ingress, and Egress if p has egress
// rules.
func isolates(p *networkingv1.NetworkPolicy, kind networkingv1.PolicyType) bool {
	if len(p.Spec.PolicyTypes) == 0 {
		return kind == networkingv1.PolicyTypeIngress || len(p.Spec.Egress) > 0
	}
	return slices.Contains(p.Spec.PolicyTypes, kind)
}

func matches(selector *metav1.LabelSelector, set labels.Set) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(set) // the API server lets no other in
}

// reaches reports whether a peer of an egress rule is a pod of the target, or may be one by its addresses. A rule
// without peers reaches all pods.
func (a *analysis) reaches(peers []networkingv1.NetworkPolicyPeer, t *routeTarget, pods labels.Set) bool {
	return len(peers) == 0 || slices.ContainsFunc(peers, func(peer networkingv1.NetworkPolicyPeer) bool {
		if peer.IPBlock != nil {
			return slices.ContainsFunc(a.view.podsOf(t.Workload), func(pod *corev1.Pod) bool { return inBlock(peer.IPBlock, pod.Status.PodIP) })
		}
		return isPod(&peer, a.view.NamespaceLabels, pods)
	})
}

// isPod reports whether a peer, other than an ipBlock, selects pods with those labels in a namespace with those
// labels. Without a namespaceSelector, that is the policy's own namespace.
func isPod(peer *networkingv1.NetworkPolicyPeer, namespace map[string]string, pods labels.Set) bool {
	return (peer.NamespaceSelector == nil || matches(peer.NamespaceSelector, labels.Set(namespace))) &&
		(peer.PodSelector == nil || matches(peer.PodSelector, pods))
}

func inBlock(block *networkingv1.IPBlock, ip string) bool {
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

// writePolicies plans the writes that make the namespace's policies with our label equal to those that the targets
// need.
func (a *analysis) writePolicies() ([]RouteWrite, error) {
	var writes []RouteWrite
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
				writes = append(writes, RouteWrite{
					Resource: policiesResource(), Namespace: p.Namespace, Name: p.Name, Object: "networkpolicy.networking.k8s.io/" + p.Name,
					Change: "admits routers of " + t.Arg() + " where its own ports are admitted", Create: toUnstructured(p, "NetworkPolicy"),
				})
				continue
			}
			have := a.view.Policies[i]
			if !ofTarget(have, t.Workload) {
				return nil, &Problem{
					What: fmt.Sprintf("networkpolicy/%s exists and was not created by kubectl sandbox, which needs its name", p.Name),
					Hint: "if nobody needs it",
					Fix:  Kubectl("delete", "networkpolicy", p.Name),
				}
			}
			if reflect.DeepEqual(have.Spec, p.Spec) {
				continue
			}
			patcher := patch(toUnstructured(have, "NetworkPolicy"))
			patcher.put(toUnstructured(p, "NetworkPolicy").Object["spec"], "spec")
			writes = append(writes, RouteWrite{
				Resource: policiesResource(), Namespace: p.Namespace, Name: p.Name, Object: "networkpolicy.networking.k8s.io/" + p.Name,
				Before: toUnstructured(have, "NetworkPolicy"), Change: "follows what changed", Patch: patcher.ops, After: patcher.object,
			})
		}
	}
	return writes, nil
}

func deletePolicy(p *networkingv1.NetworkPolicy) RouteWrite {
	return RouteWrite{
		Resource: policiesResource(), Namespace: p.Namespace, Name: p.Name, Object: "networkpolicy.networking.k8s.io/" + p.Name,
		Before: toUnstructured(p, "NetworkPolicy"), Change: "is deleted", Delete: p.UID,
	}
}

// ofTarget reports whether `route` created p for w, or printed it for Git, where no uid is known.
func ofTarget(p *networkingv1.NetworkPolicy, w *Workload) bool {
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
		pods := labels.Set(marks(sandbox.RoleBaseline, t.Workload))
		for key, value := range t.labels {
			pods[key] = value
		}
		for _, p := range a.view.PoliciesElsewhere {
			if !isolates(p, networkingv1.PolicyTypeEgress) {
				continue
			}
			for _, rule := range p.Spec.Egress {
				// A peer without namespaceSelector is in the policy's own namespace, which is not the target's.
				peers := slices.DeleteFunc(slices.Clone(rule.To), func(peer networkingv1.NetworkPolicyPeer) bool {
					return peer.NamespaceSelector == nil && peer.IPBlock == nil
				})
				if len(rule.To) > 0 && len(peers) == 0 || len(portsBeside(rule.Ports, t.captures())) == 0 || !a.reaches(peers, t, pods) {
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
	return list(words)
}

// appendNew appends v unless s contains it.
func appendNew[T any](s []T, v T) []T {
	if slices.ContainsFunc(s, func(w T) bool { return reflect.DeepEqual(v, w) }) {
		return s
	}
	return append(s, v)
}
