package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// A shape is one way in which people write a workload and its Services.
type shape struct {
	name    string
	objects []any
	route   []string // workloads
	// reach lists "SERVICE/PORT" that answer podinfo's HTTP and must do so before, while and after it is routed.
	reach []string
}

func app(name string) map[string]string { return map[string]string{"app": name} }

// change returns a podinfo Deployment called api whose pod spec do changes.
func change(do func(*corev1.PodSpec)) *appsv1.Deployment {
	return podinfo("api", 1, func(d *appsv1.Deployment) { do(&d.Spec.Template.Spec) })
}

func namedPorts(p *corev1.PodSpec) {
	p.Containers[0].Ports = []corev1.ContainerPort{{Name: "web", ContainerPort: httpPort}, {Name: "rpc", ContainerPort: grpcPort}}
}

func shapes() []shape {
	api := []string{"deploy/api"}
	http := []string{"api/http"}
	return []shape{
		{"a number for a port that has no name", []any{podinfo("api", 1), service("api", app("api"), port("http", 80, httpPort))}, api, http},
		{"a name", []any{change(namedPorts), service("api", app("api"), namedPort("http", 80, "web"))}, api, http},
		{"a number for a port that has a name", []any{change(namedPorts), service("api", app("api"), port("http", 80, httpPort))}, api, http},
		{"no targetPort at all", []any{podinfo("api", 1), service("api", app("api"), corev1.ServicePort{Name: "http", Port: httpPort})}, api, http},
		{"a port that the pod does not declare", []any{
			change(func(p *corev1.PodSpec) { p.Containers[0].Ports = nil }),
			service("api", app("api"), port("http", 80, httpPort)),
		}, api, http},
		{"several ports, one by number and one by name", []any{
			change(func(p *corev1.PodSpec) { p.Containers[0].Ports[1].Name = "rpc" }),
			service("api", app("api"), port("http", 80, httpPort), namedPort("grpc", 81, "rpc")),
		}, api, http},
		{"two Services on one port, one by number and one by name", []any{
			change(namedPorts),
			service("api", app("api"), port("http", 80, httpPort)),
			service("api-too", app("api"), namedPort("http", 8080, "web")),
		}, api, []string{"api/http", "api-too/http"}},
		{"one Service over two workloads", []any{
			podinfo("api", 1, inGroup), podinfo("api-canary", 1, inGroup),
			service("api", map[string]string{"group": "api"}, port("http", 80, httpPort)),
		}, []string{"deploy/api", "deploy/api-canary"}, http},
		{"UDP beside TCP, on one number", []any{
			change(func(p *corev1.PodSpec) {
				p.Containers[0].Ports = []corev1.ContainerPort{
					{ContainerPort: httpPort, Protocol: corev1.ProtocolTCP}, {ContainerPort: httpPort, Protocol: corev1.ProtocolUDP},
				}
			}),
			service("api", app("api"), port("http", 80, httpPort),
				corev1.ServicePort{Name: "udp", Port: 80, TargetPort: intstr.FromInt32(httpPort), Protocol: corev1.ProtocolUDP}),
		}, api, http},
		{"probes and hooks that name the port", []any{
			change(func(p *corev1.PodSpec) {
				namedPorts(p)
				web := intstr.FromString("web")
				get := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: web}}
				p.Containers[0].ReadinessProbe.HTTPGet.Port = web
				p.Containers[0].LivenessProbe = &corev1.Probe{ProbeHandler: get}
				p.Containers[0].StartupProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: web}}, PeriodSeconds: 1}
				p.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: web}}}
			}),
			service("api", app("api"), namedPort("http", 80, "web")),
		}, api, http},
		{"a second container and an init container", []any{
			change(func(p *corev1.PodSpec) {
				side := *p.Containers[0].DeepCopy()
				side.Name, side.Args, side.ReadinessProbe = "side", []string{"--port=7070", "--level=error"}, nil
				side.Ports = []corev1.ContainerPort{{Name: "side", ContainerPort: 7070}}
				p.Containers = append([]corev1.Container{side}, p.Containers...)
				first := *p.Containers[1].DeepCopy()
				first.Name, first.Args, first.ReadinessProbe, first.Ports = "first", []string{"--version"}, nil, nil
				p.InitContainers = []corev1.Container{first}
			}),
			service("api", app("api"), port("http", 80, httpPort), namedPort("side", 81, "side")),
		}, api, []string{"api/http", "api/side"}},
		{"a StatefulSet with a headless Service beside the other", []any{
			&appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "api"}, Spec: appsv1.StatefulSetSpec{
				ServiceName: "api-headless",
				Selector:    &metav1.LabelSelector{MatchLabels: app("api")},
				Template:    corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app("api")}, Spec: podinfoPod()},
			}},
			headless("api-headless"),
			service("api", app("api"), port("http", 80, httpPort)),
		}, []string{"statefulset/api"}, http},
		{"a DaemonSet", []any{
			&appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "api"}, Spec: appsv1.DaemonSetSpec{
				Selector: &metav1.LabelSelector{MatchLabels: app("api")},
				Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: app("api")}, Spec: podinfoPod()},
			}},
			service("api", app("api"), port("http", 80, httpPort)),
		}, []string{"daemonset/api"}, http},
		{"a NodePort Service that keeps to the node, with session affinity", []any{
			podinfo("api", 1),
			func() *corev1.Service {
				s := service("api", app("api"), port("http", 80, httpPort))
				s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.SessionAffinity = corev1.ServiceTypeNodePort, corev1.ServiceExternalTrafficPolicyLocal, corev1.ServiceAffinityClientIP
				return s
			}(),
		}, api, http},
	}
}

func inGroup(d *appsv1.Deployment) { d.Spec.Template.Labels["group"] = "api" }

func headless(name string) *corev1.Service {
	s := service(name, app("api"), port("http", httpPort, httpPort))
	s.Spec.ClusterIP = corev1.ClusterIPNone
	return s
}

func TestAfterUnrouteObjectsAreIdentical(t *testing.T) {
	t.Parallel()
	for _, shape := range shapes() {
		t.Run(shape.name, func(t *testing.T) {
			t.Parallel()
			s := newSpace(t)
			s.create(shape.objects...)
			s.rolledOut(shape.route)
			before := s.snapshot()
			reach := func(when string) {
				t.Helper()
				for _, r := range shape.reach {
					service, port, _ := strings.Cut(r, "/")
					c := newH1(s.address(service, port))
					defer c.close()
					eventually(t, 60*time.Second, r+" answers "+when, func(ctx context.Context) error {
						_, err := c.call(ctx, carrier{})
						return err
					})
				}
			}
			reach("before route")

			s.sandbox(append([]string{"route"}, shape.route...)...)
			s.rolledOut(shape.route)
			reach("while routed")
			s.sandbox("fork", shape.route[0], "--name=pr-1", "--key=key-1", "--env=PODINFO_UI_MESSAGE=forked")
			for _, r := range shape.reach {
				service, port, _ := strings.Cut(r, "/")
				c := newH1(s.address(service, port))
				defer c.close()
				for _, carry := range carriers("key-1") {
					// Of a Service over two workloads, only those requests that reach the forked one's pods can go to its fork.
					if len(shape.route) > 1 {
						continue
					}
					if a, err := c.call(t.Context(), carry); err != nil {
						t.Errorf("%s keyed by %s: %v", r, carry.name, err)
					} else if port == "http" && a.Message != "forked" {
						t.Errorf("%s keyed by %s: answered by %+v", r, carry.name, a)
					}
				}
			}
			s.sandbox("delete", "pr-1")

			s.sandbox(append([]string{"unroute"}, shape.route...)...)
			s.rolledOut(shape.route)
			reach("after unroute")
			if after := s.snapshot(); after != before {
				t.Errorf("objects differ.\nbefore:\n%s\nafter:\n%s\ndifference:\n%s", before, after, difference(before, after))
			}
		})
	}
}

func (s *space) rolledOut(workloads []string) {
	s.t.Helper()
	for _, w := range workloads {
		s.kubectl("rollout", "status", w, "--timeout=120s")
	}
}

// snapshot returns specs, labels and annotations of all that `route` may touch, as text. It leaves out only what the
// cluster's own controllers write at every rollout.
func (s *space) snapshot() string {
	s.t.Helper()
	type object struct {
		Kind     string
		Metadata struct {
			Name        string
			Labels      map[string]string
			Annotations map[string]string
			OwnerRefs   []any `json:"ownerReferences"`
			Finalizers  []any
		}
		Spec any
	}
	var all struct{ Items []object }
	raw := s.kubectl("get", "deployments,statefulsets,daemonsets,services,networkpolicies,configmaps,serviceaccounts,secrets,roles,rolebindings,poddisruptionbudgets", "-o", "json")
	if err := json.Unmarshal([]byte(raw), &all); err != nil {
		s.t.Fatal(err)
	}
	var b strings.Builder
	for _, o := range all.Items {
		delete(o.Metadata.Annotations, "deployment.kubernetes.io/revision")
		delete(o.Metadata.Annotations, "deprecated.daemonset.template.generation")
		if len(o.Metadata.Annotations) == 0 {
			o.Metadata.Annotations = nil
		}
		text, err := json.MarshalIndent(o, "", "  ")
		if err != nil {
			s.t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s\n", text)
	}
	return b.String()
}

// difference returns the lines of one text that the other lacks.
func difference(before, after string) string {
	var b strings.Builder
	minus := func(sign, a, b2 string) {
		seen := map[string]int{}
		for l := range strings.Lines(b2) {
			seen[l]++
		}
		for l := range strings.Lines(a) {
			if seen[l]--; seen[l] < 0 {
				b.WriteString(sign + l)
			}
		}
	}
	minus("-", before, after)
	minus("+", after, before)
	return b.String()
}
