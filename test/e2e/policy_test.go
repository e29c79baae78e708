package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// This cluster's network plugin enforces no NetworkPolicy, so this test does not see a packet refused or admitted: it reads
// the policies as the API's reference defines them, for the connections that really take place, whose ports it takes
// from the EndpointSlices and the pods.
func TestNetworkPoliciesThatAdmitTheAppsPortAdmitTheRoutersAndTheHopToTheFork(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, policies string }{
		{"ingress by port number", admitPolicy},
		{"ingress from some pods only", `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: friend}}}]
    ports: [{port: 9898, protocol: TCP}]
`},
		{"everything denied but what is named", `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api}
spec:
  podSelector: {matchLabels: {app: api}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: friend}}}]
    ports: [{port: 9898}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friend}
spec:
  podSelector: {matchLabels: {app: friend}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: api}}}]
    ports: [{port: 9898}]
`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			s.create(podinfo("api", 1), podinfoService("api"))
			s.applyYAML(test.policies)
			s.available("api")
			before := s.snapshot()
			friend := peer{labels: map[string]string{"app": "friend"}, namespace: s.name}
			stranger := peer{labels: map[string]string{"app": "stranger"}, namespace: s.name}
			allowedBefore := map[string]bool{}
			for _, p := range []peer{friend, stranger} {
				allowedBefore[p.labels["app"]] = s.admitted(p, s.endpoint("api", "http"))
			}
			if !allowedBefore["friend"] {
				t.Fatal("the policies do not admit the friend even before route")
			}

			s.sandbox("route", "deploy/api")
			s.available("api")
			s.sandbox("fork", "deploy/api", "--name=pr-1", "--key=key-1", "--env=X=1")
			router := s.endpoint("api", "http", httpPort)
			for _, p := range []peer{friend, stranger} {
				if now := s.admitted(p, router); now != allowedBefore[p.labels["app"]] {
					t.Errorf("%s: admitted to the app's port before: %t, to the router's now: %t", p.labels["app"], !now, now)
				}
			}
			baseline := s.pods("app=api")[0]
			fork := s.pods("kubectl-sandbox.dev/sandbox=pr-1")[0]
			if !s.admitted(peerOf(&baseline), target{peer: peerOf(&fork), port: httpPort}) {
				t.Error("the hop from router to fork is not admitted")
			}
			webhook := s.webhookPeer()
			if !s.admitted(peerOf(&baseline), target{peer: webhook, port: 9444}) {
				t.Error("the router is not admitted to the control plane")
			}
			s.sandbox("delete", "pr-1")
			s.sandbox("unroute", "deploy/api")
			s.available("api")
			if after := s.snapshot(); after != before {
				t.Errorf("after unroute objects differ:\n%s", difference(before, after))
			}
		})
	}
}

// A peer is one end of a connection, as policies see it.
type peer struct {
	labels    map[string]string
	namespace string
	ip        string
	pod       *corev1.Pod // nil: it has no named ports that matter
}

func peerOf(p *corev1.Pod) peer { return peer{p.Labels, p.Namespace, p.Status.PodIP, p} }

// A target is a peer's TCP port.
type target struct {
	peer
	port int32
}

// endpoint returns the one ready endpoint of a Service's port that does not lead to any of the pod ports given. It waits for
// it: a pod is available before the EndpointSlice controller has written that.
func (s *space) endpoint(service, port string, not ...int32) target {
	s.t.Helper()
	var found target
	eventually(s.t, time.Minute, "an endpoint of service "+service+" for "+port, func(ctx context.Context) error {
		list, err := s.client.DiscoveryV1().EndpointSlices(s.name).List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + service})
		if err != nil {
			return err
		}
		for _, slice := range list.Items {
			for _, p := range slice.Ports {
				if *p.Name != port || slices.Contains(not, *p.Port) {
					continue
				}
				for _, e := range slice.Endpoints {
					if e.Conditions.Ready != nil && !*e.Conditions.Ready {
						continue
					}
					pod, err := s.client.CoreV1().Pods(s.name).Get(ctx, e.TargetRef.Name, metav1.GetOptions{})
					if err != nil {
						return err
					}
					found = target{peerOf(pod), *p.Port}
					return nil
				}
			}
		}
		return fmt.Errorf("none is ready among %d slices", len(list.Items))
	})
	return found
}

func (s *space) webhookPeer() peer {
	s.t.Helper()
	list, err := s.client.CoreV1().Pods(s.release).List(s.t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) == 0 {
		s.t.Fatalf("no pod in %s: %v", s.release, err)
	}
	return peerOf(&list.Items[0])
}

// admitted says whether policies let from open a connection to to: those on its way out, and those on the way in.
func (s *space) admitted(from peer, to target) bool {
	s.t.Helper()
	return s.direction(networkingv1.PolicyTypeEgress, from, to.peer, to) && s.direction(networkingv1.PolicyTypeIngress, to.peer, from, to)
}

func (s *space) direction(kind networkingv1.PolicyType, subject, other peer, to target) bool {
	s.t.Helper()
	policies, err := s.client.NetworkingV1().NetworkPolicies(subject.namespace).List(s.t.Context(), metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	isolated := false
	for _, p := range policies.Items {
		if !slices.Contains(policyTypes(&p), kind) || !matches(s, &p.Spec.PodSelector, subject.labels) {
			continue
		}
		isolated = true
		if kind == networkingv1.PolicyTypeIngress {
			for _, r := range p.Spec.Ingress {
				if s.peersMatch(r.From, subject.namespace, other) && portsMatch(r.Ports, to) {
					return true
				}
			}
			continue
		}
		for _, r := range p.Spec.Egress {
			if s.peersMatch(r.To, subject.namespace, other) && portsMatch(r.Ports, to) {
				return true
			}
		}
	}
	return !isolated
}

func policyTypes(p *networkingv1.NetworkPolicy) []networkingv1.PolicyType {
	if len(p.Spec.PolicyTypes) > 0 {
		return p.Spec.PolicyTypes
	}
	types := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	if len(p.Spec.Egress) > 0 {
		types = append(types, networkingv1.PolicyTypeEgress)
	}
	return types
}

func (s *space) peersMatch(peers []networkingv1.NetworkPolicyPeer, own string, other peer) bool {
	if len(peers) == 0 {
		return true
	}
	for _, p := range peers {
		if p.IPBlock != nil {
			ip, err := netip.ParseAddr(other.ip)
			block := netip.MustParsePrefix(p.IPBlock.CIDR)
			if err == nil && block.Contains(ip) && !slices.ContainsFunc(p.IPBlock.Except, func(e string) bool { return netip.MustParsePrefix(e).Contains(ip) }) {
				return true
			}
			continue
		}
		inNamespace := other.namespace == own
		if p.NamespaceSelector != nil {
			ns, err := s.client.CoreV1().Namespaces().Get(s.t.Context(), other.namespace, metav1.GetOptions{})
			if err != nil {
				s.t.Fatal(err)
			}
			inNamespace = matches(s, p.NamespaceSelector, ns.Labels)
		}
		if inNamespace && (p.PodSelector == nil || matches(s, p.PodSelector, other.labels)) {
			return true
		}
	}
	return false
}

func portsMatch(ports []networkingv1.NetworkPolicyPort, to target) bool {
	if len(ports) == 0 {
		return true
	}
	for _, p := range ports {
		switch {
		case p.Protocol != nil && *p.Protocol != corev1.ProtocolTCP:
		case p.Port == nil:
			return true
		case p.Port.Type == intstr.String:
			if to.pod != nil && slices.Contains(numbersNamed(to.pod, p.Port.StrVal), to.port) {
				return true
			}
		case p.EndPort != nil:
			if p.Port.IntVal <= to.port && to.port <= *p.EndPort {
				return true
			}
		case p.Port.IntVal == to.port:
			return true
		}
	}
	return false
}

func numbersNamed(pod *corev1.Pod, name string) []int32 {
	var numbers []int32
	for _, c := range append(slices.Clone(pod.Spec.InitContainers), pod.Spec.Containers...) {
		for _, p := range c.Ports {
			if p.Name == name {
				numbers = append(numbers, p.ContainerPort)
			}
		}
	}
	return numbers
}

func matches(s *space, selector *metav1.LabelSelector, l map[string]string) bool {
	s.t.Helper()
	sel, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		s.t.Fatal(fmt.Errorf("selector %v: %w", selector, err))
	}
	return sel.Matches(labels.Set(l))
}
