package inject

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/endpointslice"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

const unknown = "newerThanUs"

var portNames = []string{"http", "grpc", "metrics", ""}

func portRef(t *rapid.T) intstr.IntOrString {
	if name := rapid.SampledFrom(portNames).Draw(t, "ref"); name != "" {
		return intstr.FromString(name)
	}
	return intstr.FromInt32(8080)
}

func handler(t *rapid.T) corev1.ProbeHandler {
	if rapid.Bool().Draw(t, "http") {
		return corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: portRef(t)}}
	}
	return corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: portRef(t)}}
}

func probe(t *rapid.T) *corev1.Probe {
	if rapid.Bool().Draw(t, "probe") {
		return nil
	}
	return &corev1.Probe{ProbeHandler: handler(t)}
}

func container(t *rapid.T, name string) corev1.Container {
	c := corev1.Container{Name: name, LivenessProbe: probe(t), ReadinessProbe: probe(t), StartupProbe: probe(t)}
	var names []string
	for range rapid.IntRange(0, 4).Draw(t, "ports") {
		p := corev1.ContainerPort{
			Name:          rapid.SampledFrom(portNames).Draw(t, "port"),
			ContainerPort: rapid.SampledFrom([]int32{8080, 9090, 15359, 15360, 15361, 15362}).Draw(t, "number"),
			Protocol:      rapid.SampledFrom([]corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP}).Draw(t, "protocol"),
		}
		if slices.Contains(names, p.Name) {
			p.Name = "" // the API server admits a name once a container
		}
		names = append(names, p.Name)
		c.Ports = append(c.Ports, p)
	}
	if rapid.Bool().Draw(t, "lifecycle") {
		h := handler(t)
		c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{HTTPGet: h.HTTPGet, TCPSocket: h.TCPSocket}}
	}
	for _, name := range []string{"HTTP_PROXY", "no_proxy", "OTEL_PROPAGATORS", sandbox.EnvKey} {
		if rapid.IntRange(0, 4).Draw(t, name) == 0 {
			c.Env = append(c.Env, corev1.EnvVar{Name: name, Value: "own"})
		}
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if rapid.Bool().Draw(t, "limit") {
			if c.Resources.Limits == nil {
				c.Resources.Limits = corev1.ResourceList{}
			}
			c.Resources.Limits[name] = resource.MustParse("1")
		}
	}
	if rapid.Bool().Draw(t, "user") {
		c.SecurityContext = &corev1.SecurityContext{RunAsUser: ptr.To(rapid.SampledFrom([]int64{0, 1000}).Draw(t, "uid"))}
	}
	return c
}

func pod(t *rapid.T) *corev1.Pod {
	p := &corev1.Pod{}
	p.Name = "api"
	p.Labels = map[string]string{
		sandbox.LabelRole:    rapid.SampledFrom([]string{sandbox.RoleBaseline, sandbox.RoleBaseline, sandbox.RoleFork, sandbox.RoleCheck}).Draw(t, "role"),
		sandbox.LabelSandbox: "pr-42",
	}
	p.Annotations = map[string]string{sandbox.AnnotationKey: "pr-42"}
	if v := rapid.SampledFrom([]string{"-", "", "http=8080", "grpc=9090,http=8080", "http"}).Draw(t, "annotation"); v != "-" {
		p.Annotations[sandbox.AnnotationPorts] = v
	}
	if rapid.IntRange(0, 5).Draw(t, "outgoing") == 0 {
		p.Annotations[sandbox.AnnotationOutgoing] = sandbox.OutgoingOff
	}
	if v := rapid.SampledFrom([]string{"-", "frontend:8080", "frontend:8080,customer.shop:8081", "frontend"}).Draw(t, "services"); v != "-" {
		p.Annotations[sandbox.AnnotationServices] = v
	}
	p.Spec.HostNetwork = rapid.IntRange(0, 9).Draw(t, "host") == 0
	for i := range rapid.IntRange(0, 2).Draw(t, "init") {
		c := container(t, fmt.Sprintf("init-%d", i))
		if rapid.Bool().Draw(t, "sidecar") {
			c.RestartPolicy = ptr.To(corev1.ContainerRestartPolicyAlways)
		}
		p.Spec.InitContainers = append(p.Spec.InitContainers, c)
	}
	for i := range rapid.IntRange(1, 3).Draw(t, "apps") {
		p.Spec.Containers = append(p.Spec.Containers, container(t, fmt.Sprintf("app-%d", i)))
	}
	return p
}

// season puts a field that nobody knows into every object of a JSON value, and counts them.
func season(v any) int {
	n := 0
	switch v := v.(type) {
	case map[string]any:
		for _, child := range v {
			n += season(child)
		}
		v[unknown] = map[string]any{"kept": true}
		n++
	case []any:
		for _, child := range v {
			n += season(child)
		}
	}
	return n
}

func countUnknown(v any) int {
	n := 0
	switch v := v.(type) {
	case map[string]any:
		for name, child := range v {
			if name == unknown {
				n++
				continue
			}
			n += countUnknown(child)
		}
	case []any:
		for _, child := range v {
			n += countUnknown(child)
		}
	}
	return n
}

func TestPod_HoldsForAnyPod(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := pod(t)
		plain, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var object map[string]any
		if err := json.Unmarshal(plain, &object); err != nil {
			t.Fatal(err)
		}
		// Labels, annotations, limits and requests are maps of strings, where no unknown field can be.
		spec := object["spec"].(map[string]any)
		containers, _ := spec["containers"].([]any)
		inits, _ := spec["initContainers"].([]any)
		for _, c := range append(slices.Clone(containers), inits...) {
			delete(c.(map[string]any), "resources")
		}
		want := season(spec)
		raw, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}

		before, after, result, reason := admit(t, raw)
		fresh := &corev1.Pod{}
		if err := json.Unmarshal(raw, fresh); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(before, fresh) {
			t.Fatal("Pod changed what it was given")
		}
		if _, _, twin, _ := admit(t, raw); string(twin) != string(result) {
			t.Fatalf("not deterministic:\n%s\n%s", result, twin)
		}
		if _, _, again, _ := admit(t, result); string(again) != string(result) {
			t.Fatalf("a second review changed its own output:\n%s\n%s", result, again)
		}
		var got any
		if err := json.Unmarshal(result, &got); err != nil {
			t.Fatal(err)
		}
		if n := countUnknown(got); n != want {
			t.Fatalf("%d of %d unknown fields are left in\n%s", n, want, result)
		}
		if reason == nil && in.Labels[sandbox.LabelRole] == sandbox.RoleBaseline && in.Annotations[sandbox.AnnotationPorts] != "" {
			checkCaptured(t, before, after)
		}
		if reason == nil && in.Labels[sandbox.LabelRole] == sandbox.RoleCheck {
			checkForwarded(t, before, after)
		}
	})
}

// checkCaptured holds that a Service reaches the router by every captured name, and that nothing else in the pod
// noticed.
func checkCaptured(t *rapid.T, before, after *corev1.Pod) {
	router := after.Spec.InitContainers[len(after.Spec.InitContainers)-1]
	var captures []sandbox.Capture
	for _, e := range router.Env {
		if e.Name == sandbox.EnvRouterPorts {
			captures, _ = sandbox.ParseCaptures(e.Value)
		}
	}
	find := func(p *corev1.Pod, name string, protocol corev1.Protocol) int {
		number, err := endpointslice.FindPort(p, &corev1.ServicePort{TargetPort: intstr.FromString(name), Protocol: protocol})
		if err != nil {
			return 0
		}
		return number
	}
	for _, name := range []string{"http", "grpc", "metrics"} {
		i := slices.IndexFunc(captures, func(c sandbox.Capture) bool { return c.Name == name })
		want := find(before, name, corev1.ProtocolTCP)
		if i >= 0 {
			if int(captures[i].Number) != want {
				t.Fatalf("router stands in for %d, but %s is %d", captures[i].Number, name, want)
			}
			want = int(captures[i].Listen)
			if slices.Contains(declared(before), captures[i].Listen) {
				t.Fatalf("router listens on %d, which another container declares", want)
			}
		}
		if got := find(after, name, corev1.ProtocolTCP); got != want {
			t.Fatalf("a Service finds %s at %d, want %d", name, got, want)
		}
		if got, want := find(after, name, corev1.ProtocolUDP), find(before, name, corev1.ProtocolUDP); got != want {
			t.Fatalf("a Service finds UDP %s at %d, want %d", name, got, want)
		}
	}
	rest := after.DeepCopy()
	rest.Spec.InitContainers = rest.Spec.InitContainers[:len(rest.Spec.InitContainers)-1]
	for _, pair := range [][2][]corev1.Container{
		{before.Spec.Containers, rest.Spec.Containers}, {before.Spec.InitContainers, rest.Spec.InitContainers}} {
		for i := range pair[0] {
			was, is := &pair[0][i], &pair[1][i]
			wasRefs, isRefs := portRefs(was), portRefs(is)
			for j := range wasRefs {
				if got, want := resolve(is, isRefs[j]), resolve(was, wasRefs[j]); got != want {
					t.Fatalf("a probe of %s goes to %d, went to %d", was.Name, got, want)
				}
			}
		}
	}
}

// checkForwarded holds that a test finds each of its Services on a port of its own that nothing in the pod declares,
// and that its end is not held up by the router.
func checkForwarded(t *rapid.T, before, after *corev1.Pod) {
	services, _ := sandbox.ParseServices(before.Annotations[sandbox.AnnotationServices])
	if len(services) == 0 {
		return
	}
	router := after.Spec.InitContainers[len(after.Spec.InitContainers)-1]
	if router.Name != sandbox.RouterContainer || !sidecar(&router) {
		t.Fatalf("the last init container is %s, not the router", router.Name)
	}
	var forwards []sandbox.Forward
	taken := declared(after)
	for _, e := range router.Env {
		if e.Name == sandbox.EnvRouterForwards {
			forwards, _ = sandbox.ParseForwards(e.Value)
		}
	}
	if len(forwards) != len(services) {
		t.Fatalf("%d Services, forwards %v", len(services), forwards)
	}
	for i, f := range forwards {
		if f.Service != services[i] || slices.Contains(taken, f.Listen) {
			t.Fatalf("forward %v for %v, where %v are taken", f, services[i], taken)
		}
		taken = append(taken, f.Listen)
		for _, app := range after.Spec.Containers {
			if !slices.Contains(app.Env, corev1.EnvVar{Name: sandbox.URLEnv(f.Host), Value: "http://" + loopback(f.Listen)}) {
				t.Fatalf("container %s does not know of %v", app.Name, f)
			}
		}
	}
}

// resolve finds a probe's port as the kubelet does; zero when there is no such name.
func resolve(c *corev1.Container, ref *intstr.IntOrString) int32 {
	if ref.Type == intstr.Int {
		return ref.IntVal
	}
	for _, p := range c.Ports {
		if p.Name == ref.StrVal {
			return p.ContainerPort
		}
	}
	return 0
}

// The patch has all that Pod changed in it, and nothing else is lost.
func TestPatch_MakesThePodThatPodReturned(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw, err := json.Marshal(pod(t))
		if err != nil {
			t.Fatal(err)
		}
		_, after, result, _ := admit(t, raw)
		want, err := json.Marshal(after)
		if err != nil {
			t.Fatal(err)
		}
		var got corev1.Pod
		if err := json.Unmarshal(result, &got); err != nil {
			t.Fatal(err)
		}
		again, err := json.Marshal(&got)
		if err != nil {
			t.Fatal(err)
		}
		if string(again) != string(want) {
			t.Fatalf("patched:\n%s\nwant:\n%s", again, want)
		}
	})
}

// A change that no operation would stand for is an error, and not lost.
func TestPatch_FailsWhereAChangeWouldBeLost(t *testing.T) {
	base := func() *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "app", Env: []corev1.EnvVar{{Name: "A"}}}}, Volumes: []corev1.Volume{{Name: "v"}},
		}}
	}
	for name, change := range map[string]func(*corev1.Pod){
		"a field of the pod":         func(p *corev1.Pod) { p.Spec.HostNetwork = true },
		"a label":                    func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} },
		"a field of a container":     func(p *corev1.Pod) { p.Spec.Containers[0].Image = "other" },
		"a variable":                 func(p *corev1.Pod) { p.Spec.Containers[0].Env[0].Name = "B" },
		"a variable that is gone":    func(p *corev1.Pod) { p.Spec.Containers[0].Env = nil },
		"a container that is gone":   func(p *corev1.Pod) { p.Spec.Containers = nil },
		"a volume":                   func(p *corev1.Pod) { p.Spec.Volumes[0].Name = "w" },
		"an annotation that is gone": func(p *corev1.Pod) { p.Annotations = nil },
	} {
		before, after := base(), base()
		before.Annotations, after.Annotations = map[string]string{"x": "y"}, map[string]string{"x": "y"}
		change(after)
		if ops, err := Patch(before, after); err == nil {
			t.Errorf("%s: got %v", name, ops)
		}
	}
}
