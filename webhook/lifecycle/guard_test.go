package lifecycle

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// switched makes a Service whose port 80 `route` switched from 8080 to the name http, and 53/UDP not; 81 was switched
// once, and is a number again.
func switched() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "api", UID: "u1", Labels: map[string]string{sandbox.LabelRole: sandbox.RoleService},
			Annotations: map[string]string{
				sandbox.AnnotationTargetPorts: sandbox.FormatTargetPorts(sandbox.TargetPorts{"TCP-80": {Number: 8080, Name: "http"}, "TCP-81": {Number: 8081, Name: "admin"}}),
				sandbox.AnnotationWorkloads:   "deployment.api",
			},
		},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "api"}, Ports: []corev1.ServicePort{
			{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP, TargetPort: intstr.FromString("dns")},
			{Name: "web", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("http")},
			{Name: "admin", Port: 81, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(8081)},
		}},
	}
}

// numbered creates a Service on which numeric targetPorts were restored.
func numbered() *corev1.Service {
	s := switched()
	s.Spec.Ports[1].TargetPort = intstr.FromInt32(8080)
	s.Annotations[sandbox.AnnotationRestored] = "{}"
	return s
}

// ofAPI makes a pod of Deployment api whose port 8080 has names.
func ofAPI(name string, names ...string) *corev1.Pod {
	p := stray(name, names...)
	p.Labels["pod-template-hash"] = "6f5"
	p.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "api-6f5", Controller: ptr.To(true)}}
	return p
}

// stray makes a pod on its own with the labels that the Service selects.
func stray(name string, names ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"app": "api"}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}}}}
	for _, n := range names {
		p.Spec.Containers[0].Ports = append(p.Spec.Containers[0].Ports, corev1.ContainerPort{Name: n, ContainerPort: 8080, Protocol: corev1.ProtocolTCP})
	}
	return p
}

func waiting(reason string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}}
	}
}

func TestDecideService(t *testing.T) {
	sidecar := func(policy corev1.ContainerRestartPolicy) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.InitContainers = []corev1.Container{{Name: sandbox.RouterContainer, RestartPolicy: &policy,
				Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 15361, Protocol: corev1.ProtocolTCP}},
				Env:   []corev1.EnvVar{{Name: "OTHER"}, {Name: sandbox.EnvRouterPorts, Value: "http=15361:8080"}}}}
		}
	}
	udp := func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].Protocol = corev1.ProtocolUDP }
	annotation := func(key, value string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Annotations[key] = value }
	}
	const lacks = "pod b has no port named http"
	names, numbers := switched, numbered
	for _, tt := range []struct {
		name    string
		service *corev1.Service
		pods    []*corev1.Pod
		gone    bool
		want    string // ACTION REASON, then " strays: ..."
	}{
		{"no pods", names(), nil, false, ""},
		{"all have the name", names(), []*corev1.Pod{ofAPI("a", "http"), ofAPI("b", "other", "http")}, false, ""},
		{"the router has the name", names(), []*corev1.Pod{with(ofAPI("b"), sidecar(corev1.ContainerRestartPolicyAlways))}, false, ""},
		{"an init container that ends does not count", names(), []*corev1.Pod{with(ofAPI("b"), sidecar(corev1.ContainerRestartPolicyNever))}, false, "put back " + lacks},
		{"one lacks it", names(), []*corev1.Pod{ofAPI("a", "http"), ofAPI("b", "metrics")}, false, "put back " + lacks},
		{"of another protocol", names(), []*corev1.Pod{with(ofAPI("b", "http"), udp)}, false, "put back " + lacks},
		{"one that is being deleted", names(), []*corev1.Pod{with(ofAPI("b"), deleting)}, false, ""},
		{"one that has finished", names(), []*corev1.Pod{with(ofAPI("b"), succeeded)}, false, ""},
		{"one that is being created", names(), []*corev1.Pod{with(ofAPI("b"), waiting("ContainerCreating"))}, false, "put back " + lacks},
		{"one that crashes at its start", names(), []*corev1.Pod{ofAPI("a", "http"), with(ofAPI("b"), waiting("CrashLoopBackOff"))}, false, ""},
		{"one without a node", names(), []*corev1.Pod{ofAPI("a", "http"), with(ofAPI("b"), func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse}}
		})}, false, ""},
		{"a stray pod", names(), []*corev1.Pod{ofAPI("a", "http"), stray("b")}, false, " strays: b"},
		{"nothing but a stray pod", names(), []*corev1.Pod{stray("b")}, false, "put back " + lacks},
		{"a pod of another workload", names(), []*corev1.Pod{ofAPI("a", "http"), with(ofAPI("b"), func(p *corev1.Pod) { p.OwnerReferences[0].Name = "canary-6f5" })}, false, " strays: b"},
		{"a stray pod, and a Service of an earlier version", with(names(), annotation(sandbox.AnnotationWorkloads, "")),
			[]*corev1.Pod{with(stray("a", "http"), func(p *corev1.Pod) {
				p.Labels[sandbox.LabelRole], p.Labels[sandbox.LabelWorkload] = sandbox.RoleBaseline, "deployment.api"
			}), stray("b")}, false, " strays: b"},
		{"a Service whose targetPort is another's name now", with(names(), func(s *corev1.Service) { s.Spec.Ports[1].TargetPort = intstr.FromString("web") }), []*corev1.Pod{ofAPI("b")}, false, ""},
		{"a Service without a selector", with(names(), func(s *corev1.Service) { s.Spec.Selector = nil }), []*corev1.Pod{ofAPI("b")}, false, ""},

		{"put back, and all have the name", numbers(), []*corev1.Pod{ofAPI("a", "http"), with(ofAPI("b"), sidecar(corev1.ContainerRestartPolicyAlways))}, false, "forward http"},
		{"put back, and a stray pod lacks it", numbers(), []*corev1.Pod{ofAPI("a", "http"), stray("b")}, false, "forward http"},
		{"put back, and one lacks it still", numbers(), []*corev1.Pod{ofAPI("a", "http"), ofAPI("b")}, false, ""},
		{"put back, and one that crashes lacks it", numbers(), []*corev1.Pod{ofAPI("a", "http"), with(ofAPI("b"), waiting("CrashLoopBackOff"))}, false, ""},
		{"put back, and no pods", numbers(), nil, false, ""},
		{"put back, and the name is another's number now", numbers(), []*corev1.Pod{with(ofAPI("a", "http"), func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].ContainerPort = 9090 })}, false, ""},
		{"put back, and the owner named the port anew", numbers(), []*corev1.Pod{ofAPI("a", "web"), ofAPI("b", "web")}, false, "forward web"},
		{"another number that all have a name for", with(numbers(), func(s *corev1.Service) { s.Spec.Ports[1].TargetPort = intstr.FromInt32(9090) }),
			[]*corev1.Pod{with(ofAPI("a", "http"), func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].ContainerPort = 9090 })}, false, "forward http"},

		{"the workload is gone", names(), []*corev1.Pod{ofAPI("a", "http")}, true, "release deployment.api deleted"},
		{"released", with(names(), annotation(sandbox.AnnotationTargetPorts, "{}")), nil, false, "forget"},
		{"a label without a record", with(names(), annotation(sandbox.AnnotationTargetPorts, "")), nil, false, "forget"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var pods []corev1.Pod
			for _, p := range tt.pods {
				stripped, err := stripGuarded(p)
				if err != nil {
					t.Fatal(err)
				}
				pods = append(pods, *stripped.(*corev1.Pod))
			}
			d, err := decideService(tt.service, pods, func(string) bool { return tt.gone })
			if err != nil {
				t.Fatal(err)
			}
			got := string(d.action)
			switch d.action {
			case guardForward:
				got += " " + d.targets[1].StrVal
			case guardRestore, guardRelease:
				got += " " + d.reason
				if d.targets[1].IntVal != 8080 {
					t.Errorf("targets %v", d.targets)
				}
			}
			if len(d.strays) > 0 {
				got += " strays: " + strings.Join(d.strays, ",")
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if _, err := decideService(with(switched(), annotation(sandbox.AnnotationTargetPorts, "x")), nil, func(string) bool { return false }); err == nil {
		t.Error("no error for an annotation that can't be read")
	}
}

// Applied one after the other, decisions lead back to the initial Service, or to a Service without marks.
func TestGuardDecision_Patch(t *testing.T) {
	apply := func(s *corev1.Service, d guardDecision) (*corev1.Service, error) {
		raw, err := d.patch(s, sandbox.Restored{Time: "2026-01-02T03:04:05Z", Reason: d.reason})
		if err != nil {
			t.Fatal(err)
		}
		return patched(t, s, raw)
	}
	decide := func(s *corev1.Service, gone bool, pods ...corev1.Pod) guardDecision {
		d, err := decideService(s, pods, func(string) bool { return gone })
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	made := switched()
	back, err := apply(made, decide(made, false, *ofAPI("b")))
	if err != nil || back.Spec.Ports[1].TargetPort != intstr.FromInt32(8080) || back.Spec.Ports[0] != made.Spec.Ports[0] || back.Spec.Ports[2] != made.Spec.Ports[2] {
		t.Fatalf("%v %+v", err, back)
	}
	note, err := sandbox.ParseRestored(back.Annotations[sandbox.AnnotationRestored])
	if err != nil || note.Reason != "pod b has no port named http" || back.Annotations[sandbox.AnnotationTargetPorts] != made.Annotations[sandbox.AnnotationTargetPorts] {
		t.Errorf("%v %+v", err, back.Annotations)
	}
	if d := decide(back, false, *ofAPI("b")); d.action != "" {
		t.Errorf("what was put back: %s", d.action)
	}
	forward, err := apply(back, decide(back, false, *ofAPI("b", "web")))
	if err != nil || forward.Spec.Ports[1].TargetPort != intstr.FromString("web") || forward.Annotations[sandbox.AnnotationRestored] == "" {
		t.Errorf("%v %+v %+v", err, forward.Spec, forward.Annotations) // port 81 is a number still
	}
	if record, _ := sandbox.ParseTargetPorts(forward.Annotations[sandbox.AnnotationTargetPorts]); record["TCP-80"].Name != "web" || record["TCP-81"].Name != "admin" {
		t.Errorf("%v", record)
	}
	released, err := apply(forward, decide(forward, true))
	if err != nil || released.Spec.Ports[1].TargetPort != intstr.FromInt32(8080) || released.Annotations[sandbox.AnnotationTargetPorts] != "{}" {
		t.Errorf("%v %+v %+v", err, released.Spec, released.Annotations)
	}
	bare, err := apply(released, decide(released, true))
	if err != nil || len(bare.Annotations)+len(bare.Labels) != 0 {
		t.Errorf("%v %v %v", err, bare.Annotations, bare.Labels)
	}

	raw, err := (&guardDecision{action: guardRestore, targets: map[int]intstr.IntOrString{1: intstr.FromInt32(8080)}, record: sandbox.TargetPorts{}}).patch(made, sandbox.Restored{})
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*corev1.Service){
		"another Service of that name": func(s *corev1.Service) { s.UID = "u2" },
		"ports in another order":       func(s *corev1.Service) { s.Spec.Ports = slices.Concat(s.Spec.Ports[1:], s.Spec.Ports[:1]) },
		"put back by somebody":         func(s *corev1.Service) { s.Spec.Ports[1].TargetPort = intstr.FromInt32(8080) },
		"released by somebody":         func(s *corev1.Service) { s.Annotations[sandbox.AnnotationTargetPorts] = "{}" },
	} {
		s := switched()
		change(s)
		if _, err := patched(t, s, raw); err == nil {
			t.Errorf("applies to %s", name)
		}
	}
}

func patched(t *testing.T, s *corev1.Service, raw []byte) (*corev1.Service, error) {
	t.Helper()
	patch, err := jsonpatch.DecodePatch(raw)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = patch.Apply(b); err != nil {
		return nil, err
	}
	var got corev1.Service
	return &got, json.Unmarshal(b, &got)
}

// Caches keep no ports of routers: the names that they capture are read from the pod's annotation.
func TestNamed(t *testing.T) {
	injected := func(name, captured string) *corev1.Pod {
		p := ofAPI(name)
		p.Labels[sandbox.LabelRole], p.Labels[sandbox.LabelWorkload] = sandbox.RoleBaseline, "deployment.api"
		p.Annotations = map[string]string{sandbox.AnnotationPorts: captured}
		p.Spec.InitContainers = []corev1.Container{{Name: sandbox.RouterContainer, RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)}}
		p.Spec = health.StripSpec(&p.Spec)
		return p
	}
	own := ofAPI("own", "http")
	own.Labels[sandbox.LabelRole], own.Labels[sandbox.LabelWorkload] = sandbox.RoleBaseline, "deployment.api"
	elsewhere := injected("elsewhere", "web=8080")
	elsewhere.Namespace = "other"
	for name, tt := range map[string]struct {
		pods []*corev1.Pod
		want bool
	}{
		"no pod":                        {nil, false},
		"by the router":                 {[]*corev1.Pod{injected("a", "http=8080"), injected("b", "http=8080")}, true},
		"by a container":                {[]*corev1.Pod{injected("a", "http=8080"), own}, true},
		"one lacks it":                  {[]*corev1.Pod{injected("a", "http=8080"), injected("b", "web=8080")}, false},
		"a pod of another namespace":    {[]*corev1.Pod{injected("a", "http=8080"), elsewhere}, true},
		"none of the routed workload's": {[]*corev1.Pod{stray("x", "http")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := fake.NewClientBuilder()
			for _, p := range tt.pods {
				c.WithObjects(p.DeepCopy())
			}
			s := switched()
			s.Spec.Ports = s.Spec.Ports[1:2]
			if got := Named(t.Context(), c.Build(), s); got != tt.want {
				t.Errorf("got %t", got)
			}
		})
	}
}
