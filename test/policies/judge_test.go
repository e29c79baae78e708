// Package policies judges the NetworkPolicies that `fork` lays for forks by an evaluator that is not the product's: cyclonus'
// matcher. No network enforces them here.
package policies

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A port is what a connection is made to.
type port struct {
	protocol corev1.Protocol
	number   int
}

func (p port) String() string { return fmt.Sprintf("%d/%s", p.number, p.protocol) }

// An end is where connections begin and end: a pod, or an address outside the cluster where namespace is empty.
type end struct {
	name, namespace, ip string
	namespaceLabels     map[string]string
	labels              map[string]string
	ports               map[port][]string // declared, with their names
}

func (e *end) peer() *matcher.TrafficPeer {
	p := &matcher.TrafficPeer{IP: e.ip}
	if e.namespace != "" {
		p.Internal = &matcher.InternalPeer{PodLabels: e.labels, Namespace: e.namespace, NamespaceLabels: e.namespaceLabels}
	}
	return p
}

// A judge says who reaches whom.
type judge struct{ policy *matcher.Policy }

func newJudge(policies []networkingv1.NetworkPolicy) *judge {
	var all []*networkingv1.NetworkPolicy
	for i := range policies {
		for _, s := range alternatives(&policies[i].Spec.PodSelector) {
			p := policies[i].DeepCopy()
			p.Spec.PodSelector = *s
			for j := range p.Spec.Ingress {
				p.Spec.Ingress[j].From = expand(p.Spec.Ingress[j].From)
			}
			for j := range p.Spec.Egress {
				p.Spec.Egress[j].To = expand(p.Spec.Egress[j].To)
			}
			all = append(all, p)
		}
	}
	return &judge{matcher.BuildNetworkPolicies(false, all)}
}

// reaches says whether the policies let from connect to a port of to. A port of several names is admitted by each.
func (j *judge) reaches(from, to *end, at port) bool {
	names := to.ports[at]
	if len(names) == 0 {
		names = []string{""}
	}
	allowed := func(ingress bool) bool {
		return slices.ContainsFunc(names, func(name string) bool {
			t := &matcher.Traffic{Source: from.peer(), Destination: to.peer(), ResolvedPort: at.number, ResolvedPortName: name, Protocol: at.protocol}
			return j.policy.IsIngressOrEgressAllowed(t, ingress).IsAllowed()
		})
	}
	return allowed(true) && allowed(false)
}

// alternatives returns selectors that together select what s does. The evaluator has NotIn want the label there, where
// Kubernetes' selectors take pods without it as well (labels.Requirement); so for each NotIn there is one more with DoesNotExist.
func alternatives(s *metav1.LabelSelector) []*metav1.LabelSelector {
	if s == nil {
		return []*metav1.LabelSelector{nil}
	}
	all := []*metav1.LabelSelector{s.DeepCopy()}
	for i, r := range s.MatchExpressions {
		if r.Operator != metav1.LabelSelectorOpNotIn {
			continue
		}
		for _, a := range slices.Clone(all) {
			b := a.DeepCopy()
			b.MatchExpressions[i] = metav1.LabelSelectorRequirement{Key: r.Key, Operator: metav1.LabelSelectorOpDoesNotExist}
			all = append(all, b)
		}
	}
	return all
}

func expand(peers []networkingv1.NetworkPolicyPeer) []networkingv1.NetworkPolicyPeer {
	var all []networkingv1.NetworkPolicyPeer
	for _, p := range peers {
		for _, namespaces := range alternatives(p.NamespaceSelector) {
			for _, pods := range alternatives(p.PodSelector) {
				all = append(all, networkingv1.NetworkPolicyPeer{IPBlock: p.IPBlock, NamespaceSelector: namespaces, PodSelector: pods})
			}
		}
	}
	return all
}

// A verdict is what the judge has against a plan.
type verdict struct {
	lost    []string // the fork is refused what the baseline is granted, within the namespace
	outside []string // the same, by a policy of another namespace
	gained  []string // the fork is granted what the baseline is refused
	noticed []string // others than the fork notice that it is there
}

func (v verdict) String() string {
	return strings.Join(slices.Concat(v.lost, v.outside, v.gained, v.noticed), "\n")
}

func (v verdict) empty() bool { return v.String() == "" }

// judged compares what fork and baseline reach, and are reached by, and what everybody else reaches with the fork there and
// without.
func (s *scene) judged(policies []networkingv1.NetworkPolicy) verdict {
	var v verdict
	pristine, without, with := newJudge(s.users), newJudge(s.routed), newJudge(slices.Concat(s.routed, policies))
	compare := func(base, fork bool, other *end, what string) {
		if router := other.labels["kubectl-sandbox.dev/role"] == "baseline" && strings.HasPrefix(what, other.name); router && fork {
			return // the baseline's own pods have routers, and these reach the fork
		}
		switch {
		case base && !fork && other.namespace != namespace && other.namespace != "":
			v.outside = append(v.outside, what+": granted to the baseline alone")
		case base && !fork:
			v.lost = append(v.lost, what+": granted to the baseline alone")
		case !base && fork:
			v.gained = append(v.gained, what+": granted to the fork alone")
		}
	}
	for _, peer := range s.peers {
		for _, at := range s.baseline.declared() {
			if s.routers(at) {
				continue
			}
			what := fmt.Sprintf("%s -> fork %s", peer.name, at)
			// A router has taken the name of the app's port, and with it what policies admit by name: what counts is what was so before.
			base := with.reaches(peer, s.baseline, at)
			if slices.Contains(s.before[at], "http") {
				base = pristine.reaches(s.was(peer), s.unrouted, at)
			}
			compare(base, with.reaches(peer, s.fork, at), peer, what)
		}
		for _, at := range peer.declared() {
			if peer.name == "webhook" && at.number == 9444 {
				continue // routers' way to their control plane, of which forks have no need
			}
			compare(with.reaches(s.baseline, peer, at), with.reaches(s.fork, peer, at), peer, fmt.Sprintf("fork -> %s %s", peer.name, at))
		}
	}
	for _, at := range s.baseline.declared() {
		among := with.reaches(s.baseline, s.baseline, at)
		compare(among, with.reaches(s.fork, s.baseline, at), s.baseline, fmt.Sprintf("fork -> baseline %s", at))
		if s.routers(at) {
			continue
		}
		compare(among, with.reaches(s.fork, s.fork, at), s.fork, fmt.Sprintf("fork -> fork %s", at))
		if hop := with.reaches(s.baseline, s.fork, at); slices.Contains(s.before[at], "http") {
			compare(true, hop, s.fork, fmt.Sprintf("router -> fork %s", at))
		} else {
			compare(among, hop, s.baseline, fmt.Sprintf("api -> fork %s", at))
		}
	}
	others := append(slices.Clone(s.peers), s.baseline)
	for _, from := range others {
		for _, to := range others {
			for _, at := range to.declared() {
				if was, is := without.reaches(from, to, at), with.reaches(from, to, at); was != is {
					v.noticed = append(v.noticed, fmt.Sprintf("%s -> %s %s: %t without the fork, %t with it", from.name, to.name, at, was, is))
				}
			}
		}
	}
	return v
}

// declared returns the ports to look at: the end's, and some that it does not have.
func (e *end) declared() []port {
	all := []port{{corev1.ProtocolTCP, 7777}, {corev1.ProtocolUDP, 5353}, {corev1.ProtocolTCP, 8080}, {corev1.ProtocolTCP, 9000}}
	for p := range e.ports {
		if !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b port) int { return strings.Compare(a.String(), b.String()) })
	return all
}
