package routes_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
)

// Whatever the namespace, and wherever the command is killed, however often and in whichever direction it is run again:
// no Service loses an endpoint on the way, and in the end all is as it was.
func TestRoute_IsUndoneFromWhereverItWasKilled(t *testing.T) {
	var routed, refused int
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		names := slices.Sorted(maps.Keys(w.workloads))
		targets := rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, len(names), rapid.ID[string]).Draw(t, "targets")
		before, endpoints := w.snapshot(), w.endpoints()

		if _, err := routes.Route(w.view(targets...)); err != nil {
			var p *plan.Problem
			if !errors.As(err, &p) {
				t.Fatal(err)
			}
			refused++
			return
		}
		for range rapid.IntRange(0, 3).Draw(t, "attempts") {
			next := routes.Route
			if rapid.Bool().Draw(t, "undo") {
				next = routes.Unroute
			}
			if err := w.run(t, next, rapid.IntRange(0, 8).Draw(t, "writes"), targets...); err != nil {
				t.Fatalf("refused after it had begun: %v", err)
			}
		}
		if rapid.Bool().Draw(t, "complete") {
			if err := w.run(t, routes.Route, -1, targets...); err != nil {
				t.Fatal(err)
			}
			for _, name := range targets {
				for _, pod := range w.view(targets...).PodsOf(w.workloads[name]) {
					if routes.Router(pod) == nil {
						t.Fatalf("%s has no router", pod.Name)
					}
				}
			}
			w.writes = 0
			if err := w.run(t, routes.Route, -1, targets...); err != nil || w.writes != 0 {
				t.Fatalf("routing what is routed: %d writes, %v", w.writes, err)
			}
			routed++
		}
		if err := w.run(t, routes.Unroute, -1, targets...); err != nil {
			t.Fatal(err)
		}
		if after := w.snapshot(); after != before {
			t.Fatalf("undone, the namespace is\n%s\nand was\n%s", after, before)
		}
		if after := w.endpoints(); !maps.Equal(after, endpoints) {
			t.Fatalf("undone, endpoints are %v, were %v", after, endpoints)
		}
		w.writes = 0
		if err := w.run(t, routes.Unroute, -1, targets...); err != nil || w.writes != 0 {
			t.Fatalf("undoing what is undone: %d writes, %v", w.writes, err)
		}
	})
	t.Logf("routed %d, refused %d", routed, refused)
	if routed == 0 || refused == 0 {
		t.Error("the generator has become one-sided")
	}
}

func drawWorld(t *rapid.T) *world {
	numbers := []int32{53, 8080, 9090, 15361}
	names := []string{"http", "grpc", "dns", "sbx-8080"}
	var objects []any
	n := rapid.IntRange(1, 3).Draw(t, "workloads")
	for i := range n {
		labels := map[string]string{"app": fmt.Sprintf("w%d", i), "tier": rapid.SampledFrom([]string{"front", "back"}).Draw(t, "tier")}
		var spec corev1.PodSpec
		for c := range rapid.IntRange(1, 2).Draw(t, "containers") {
			spec.Containers = append(spec.Containers, drawContainer(t, fmt.Sprintf("c%d", c), numbers, names))
		}
		if rapid.Bool().Draw(t, "sidecar") {
			always := corev1.ContainerRestartPolicyAlways
			c := drawContainer(t, "sidecar", numbers, names)
			c.RestartPolicy = &always
			spec.InitContainers = append(spec.InitContainers, c)
		}
		template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec}
		meta := metav1.ObjectMeta{Name: fmt.Sprintf("w%d", i), Namespace: "shop"}
		if rapid.Bool().Draw(t, "annotated") {
			meta.Annotations = map[string]string{"deployment.kubernetes.io/revision": "1"}
			template.Annotations = map[string]string{"team": "a"}
		}
		replicas := int32(rapid.IntRange(0, 2).Draw(t, "replicas"))
		selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": labels["app"]}}
		if rapid.Bool().Draw(t, "stateful") {
			objects = append(objects, workload(&appsv1.StatefulSet{
				TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "StatefulSet"}, ObjectMeta: meta,
				Spec: appsv1.StatefulSetSpec{Replicas: &replicas, Selector: selector, Template: template,
					UpdateStrategy: appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType}},
			}))
		} else {
			objects = append(objects, workload(&appsv1.Deployment{
				TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}, ObjectMeta: meta,
				Spec: appsv1.DeploymentSpec{Replicas: &replicas, Selector: selector, Template: template},
			}))
		}
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "services") {
		selector := map[string]string{"app": fmt.Sprintf("w%d", rapid.IntRange(0, n-1).Draw(t, "app"))}
		if rapid.IntRange(0, 3).Draw(t, "wide") == 0 {
			selector = map[string]string{"tier": "front"}
		}
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("s%d", i), Namespace: "shop"}, Spec: corev1.ServiceSpec{Selector: selector, ClusterIP: "10.1.0.1"}}
		if rapid.IntRange(0, 9).Draw(t, "headless") == 0 {
			s.Spec.ClusterIP = corev1.ClusterIPNone
		}
		for p := range rapid.IntRange(1, 3).Draw(t, "service ports") {
			port := corev1.ServicePort{Name: fmt.Sprintf("p%d", p), Port: int32(80 + p), Protocol: drawProtocol(t)}
			if rapid.IntRange(0, 3).Draw(t, "by name") == 0 {
				port.TargetPort = intstr.FromString(rapid.SampledFrom(names).Draw(t, "target name"))
			} else {
				port.TargetPort = intstr.FromInt32(rapid.SampledFrom(numbers).Draw(t, "target"))
			}
			s.Spec.Ports = append(s.Spec.Ports, port)
		}
		if rapid.Bool().Draw(t, "labelled") {
			s.Labels = map[string]string{"team": "a"}
		}
		objects = append(objects, s)
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "policies") {
		tcp := corev1.ProtocolTCP
		port := intstr.FromInt32(rapid.SampledFrom(numbers).Draw(t, "policy port"))
		p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i), Namespace: "shop"}}
		if rapid.Bool().Draw(t, "narrow") {
			p.Spec.PodSelector.MatchLabels = map[string]string{"tier": "front"}
		}
		ports := []networkingv1.NetworkPolicyPort{{Protocol: &tcp, Port: &port}}
		if rapid.Bool().Draw(t, "egress") {
			p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
			p.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{Ports: ports}}
		} else {
			p.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
			p.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{Ports: ports}}
		}
		objects = append(objects, p)
	}
	return newWorld(objects...)
}

func drawContainer(t *rapid.T, name string, numbers []int32, names []string) corev1.Container {
	c := corev1.Container{Name: name, Image: "app:1"}
	used := map[string]bool{}
	for range rapid.IntRange(0, 2).Draw(t, "ports") {
		p := corev1.ContainerPort{ContainerPort: rapid.SampledFrom(numbers).Draw(t, "port"), Protocol: drawProtocol(t)}
		if rapid.Bool().Draw(t, "named") {
			if name := rapid.SampledFrom(names).Draw(t, "name"); !used[name] {
				p.Name, used[name] = name, true
			}
		}
		c.Ports = append(c.Ports, p)
	}
	return c
}

func drawProtocol(t *rapid.T) corev1.Protocol {
	if rapid.IntRange(0, 4).Draw(t, "udp") == 0 {
		return corev1.ProtocolUDP
	}
	return corev1.ProtocolTCP
}
