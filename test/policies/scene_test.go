package policies

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/policies"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/inject"
)

const (
	namespace = "shop"
	control   = "kubectl-sandbox"
)

func labelsOf(ns string) map[string]string {
	return map[string]string{corev1.LabelMetadataName: ns, "team": map[string]string{namespace: "a", "ops": "b", control: "c"}[ns]}
}

// A scene is a namespace with three routed workloads, api, web and db, and one that is not, worker; a fork of api; and whom they
// may meet.
type scene struct {
	users, routed      []networkingv1.NetworkPolicy // of all namespaces: the users' own, and with those of `route`
	baseline, unrouted *end                         // a pod of api with a router, and as it was before
	fork               *end
	before             map[port][]string // the app's ports with their names
	peers              []*end
	old                map[string]*end // what peers were before they were routed
	plan               *forks.Plan
	view               policies.View
	api                *plan.Workload
}

// planned returns the policies of the fork's plan.
func planned(p *forks.Plan) []networkingv1.NetworkPolicy {
	var all []networkingv1.NetworkPolicy
	for i := range p.Forks {
		for _, q := range p.Forks[i].Policies {
			all = append(all, *q.NetworkPolicy)
		}
	}
	return all
}

// routers says whether only a router listens there.
func (s *scene) routers(at port) bool {
	_, now := s.baseline.ports[at]
	_, was := s.before[at]
	return now && !was
}

func (s *scene) was(peer *end) *end {
	if old := s.old[peer.name]; old != nil {
		return old
	}
	return peer
}

func newScene(t interface{ Fatal(...any) }, policies []networkingv1.NetworkPolicy) *scene {
	s := &scene{users: policies, old: map[string]*end{}}
	view := &routes.View{NamespaceLabels: labelsOf(namespace), ControlNamespace: control, Owners: map[types.UID]metav1.OwnerReference{}}
	workloads := map[string]*plan.Workload{
		"api": workload(t, "api", "backend"), "web": workload(t, "web", "frontend"), "db": workload(t, "db", "data"), "worker": workload(t, "worker", "backend"),
	}
	var elsewhere []networkingv1.NetworkPolicy
	for i := range policies {
		if policies[i].Namespace == namespace {
			view.Policies = append(view.Policies, &policies[i])
		} else {
			elsewhere = append(elsewhere, policies[i])
		}
	}
	names := slices.Sorted(maps.Keys(workloads))
	for i, name := range names {
		w := workloads[name]
		was := podOf(t, name, w)
		was.ip = fmt.Sprintf("10.244.1.%d", i+1)
		s.old[name] = was
		if name == "worker" {
			view.Others = append(view.Others, w)
			continue
		}
		view.Targets = append(view.Targets, w)
		view.Services = append(view.Services, service(name))
		view.Pods = append(view.Pods, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name + "-0", Namespace: namespace, Labels: was.labels, OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1", Kind: "Deployment", Name: name, UID: w.Object.GetUID(), Controller: new(true),
			}}},
			Status: corev1.PodStatus{PodIP: was.ip},
		})
	}
	_, routed, err := routes.Steps(view, routes.Route)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range routed.Policies {
		s.view.Policies = append(s.view.Policies, *p)
	}
	s.view.Elsewhere, s.view.NamespaceLabels = elsewhere, view.NamespaceLabels
	s.routed = slices.Concat(s.view.Policies, elsewhere)
	for _, w := range append(routed.Targets, workloads["worker"]) {
		now := podOf(t, w.Name(), w)
		now.ip = s.old[w.Name()].ip
		if w.Name() == "api" {
			s.api, s.baseline, s.unrouted = w, now, s.old["api"]
			s.before = s.unrouted.ports
		} else {
			s.peers = append(s.peers, now)
		}
	}
	s.peers = append(s.peers, s.strangers()...)
	s.forkWith(t, "pr-1")
	return s
}

// forkWith has the scene's fork be one that keeps those labels of its baseline's.
func (s *scene) forkWith(t interface{ Fatal(...any) }, name string, keep ...string) {
	s.plan = s.planFork(t, name, &s.view, keep...)
	d := s.plan.Forks[0].Deployment
	s.fork = podOf(t, "fork", &plan.Workload{Object: d, Resource: schema.GroupResource{Group: "apps", Resource: "deployments"}})
	s.fork.ip = "10.244.1.99"
}

func (s *scene) planFork(t interface{ Fatal(...any) }, name string, view *policies.View, keep ...string) *forks.Plan {
	o := &forks.Options{Sandbox: name, Images: []forks.ImageChange{{Image: "api:2"}}, NewKey: "key", Now: time.Unix(0, 0)}
	for _, label := range keep {
		o.KeepLabels = append(o.KeepLabels, forks.LabelChange{Name: label})
	}
	p, err := forks.New(o, []*plan.Workload{s.api}, &forks.State{Namespace: namespace, Policies: *view})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// strangers are the pods of no workload here, and one address outside.
func (s *scene) strangers() []*end {
	old := *s.unrouted // left from before the route
	old.name, old.ip = "api of the old template", "10.244.1.20"
	canary := *s.baseline // of an older template with routers, which lacks a label
	canary.name, canary.ip, canary.labels = "api of another template", "10.244.1.21", maps.Clone(s.baseline.labels)
	delete(canary.labels, "tier")
	db := *s.old["db"]
	db.name, db.ip = "db of the old template", "10.244.1.23"
	before := old
	before.labels = maps.Clone(old.labels)
	delete(before.labels, "tier")
	s.old[canary.name] = &before
	http := map[port][]string{{corev1.ProtocolTCP, 8080}: {"http"}}
	in := func(ns, name, ip string, labels map[string]string, ports map[port][]string) *end {
		return &end{name: name, namespace: ns, namespaceLabels: labelsOf(ns), ip: ip, labels: labels, ports: ports}
	}
	return []*end{
		&old, &canary, &db,
		in(namespace, "stray", "10.244.1.22", nil, http),
		in("ops", "prometheus", "10.244.2.1", map[string]string{"app": "prometheus"}, http),
		in("ops", "api elsewhere", "10.244.2.2", map[string]string{"app": "api", "tier": "backend"}, http),
		in(control, "webhook", "10.244.3.1", map[string]string{"app": "webhook"}, map[port][]string{{corev1.ProtocolTCP, 9444}: {"routes"}}),
		{name: "outside", ip: "203.0.113.9"},
	}
}

// podOf returns a pod of a workload, as admission lets it in.
func podOf(t interface{ Fatal(...any) }, name string, w *plan.Workload) *end {
	template, err := w.PodTemplate()
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec}
	if _, ours := template.Labels["kubectl-sandbox.dev/role"]; ours {
		var reason *inject.Reason
		if pod, reason = inject.Pod(pod, inject.Config{Version: "v1", Image: "router", Control: "10.96.0.9:9444", Header: "x-sandbox-key", Member: "sandbox-key"}); reason != nil {
			t.Fatal(reason.String())
		}
	}
	e := &end{name: name, namespace: namespace, namespaceLabels: labelsOf(namespace), labels: pod.Labels, ports: map[port][]string{}}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, p := range c.Ports {
			at := port{p.Protocol, int(p.ContainerPort)}
			if at.protocol == "" {
				at.protocol = corev1.ProtocolTCP
			}
			if e.ports[at] == nil {
				e.ports[at] = []string{}
			}
			if p.Name != "" {
				e.ports[at] = append(e.ports[at], p.Name)
			}
		}
	}
	return e
}

func workload(t interface{ Fatal(...any) }, name, tier string) *plan.Workload {
	l := map[string]string{"app": name, "tier": tier}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, UID: types.UID("uid-" + name)},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: l}, Spec: corev1.PodSpec{Containers: []corev1.Container{{
				Name: name, Image: name + ":1", Ports: []corev1.ContainerPort{
					{Name: "http", ContainerPort: 8080}, {Name: "admin", ContainerPort: 9000}, {Name: "gossip", ContainerPort: 5353, Protocol: corev1.ProtocolUDP},
				},
			}}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &plan.Workload{Object: &unstructured.Unstructured{Object: content}, Resource: schema.GroupResource{Group: "apps", Resource: "deployments"}}
}

func service(name string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": name}, Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.1",
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromString("http")}},
		},
	}
}

// accept fails the test where the judge has anything against the plan that the plan does not warn of.
func (s *scene) accept(t interface {
	Helper()
	Errorf(string, ...any)
}) {
	t.Helper()
	v, warned := s.judged(planned(s.plan)), strings.Join(s.plan.Warnings, "\n")
	if strings.Contains(warned, "is admitted where the baseline is not") {
		v.gained = nil
	}
	if strings.Contains(warned, "NetworkPolicies of other namespaces admit") {
		v.outside = nil
	}
	if !v.empty() {
		t.Errorf("%s\nwarnings: %s\npolicies:\n%s", v, warned, dump(slices.Concat(s.routed, planned(s.plan))))
	}
}
