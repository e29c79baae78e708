package inject

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	jsonpatch "gopkg.in/evanphx/json-patch.v4" // what the API server applies patches with
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

var update = flag.Bool("update", false, "write the golden files anew")

func config() Config {
	return Config{
		Version:     "v0.0.0-test",
		Image:       "example.com/sandbox-router:test",
		PullPolicy:  corev1.PullIfNotPresent,
		Requests:    quantities("10m", "32Mi"),
		Limits:      quantities("200m", "128Mi"),
		Control:     "10.96.0.9:9444,sandbox-webhook.kubectl-sandbox.svc:9444",
		ControlName: "sandbox-webhook.kubectl-sandbox.svc",
		CA:          "-----BEGIN CERTIFICATE-----\nMII$(HOME)\n-----END CERTIFICATE-----\n",
		Header:      sandbox.DefaultHeader,
		Member:      sandbox.DefaultMember,
		FirstWait:   2 * time.Second,
		StaleAfter:  15 * time.Minute,
	}
}

func quantities(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}

// admit does to the raw pod what admission does: the pod as it was, as it is to be, and as the API server makes it.
func admit(t interface{ Fatalf(string, ...any) }, raw []byte) (before, after *corev1.Pod, result []byte, reason *Reason) {
	before = &corev1.Pod{}
	if err := json.Unmarshal(raw, before); err != nil {
		t.Fatalf("decode: %v", err)
	}
	after, reason = Pod(before, config())
	ops, err := Patch(before, after)
	if err != nil {
		t.Fatalf("Patch: %v", err)
	}
	b, err := json.Marshal(ops)
	if err != nil {
		t.Fatalf("encode patch: %v", err)
	}
	patch, err := jsonpatch.DecodePatch(b)
	if err != nil {
		t.Fatalf("decode patch: %v", err)
	}
	result, err = patch.Apply(raw)
	if err != nil {
		t.Fatalf("apply %s to %s: %v", b, raw, err)
	}
	return before, after, result, reason
}

func TestPod_Golden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatal("no inputs", err)
	}
	for _, input := range inputs {
		name := strings.TrimSuffix(filepath.Base(input), ".in.yaml")
		t.Run(name, func(t *testing.T) {
			in, err := os.ReadFile(input)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := yaml.YAMLToJSON(in)
			if err != nil {
				t.Fatal(err)
			}
			_, _, result, reason := admit(t, raw)
			out, err := yaml.JSONToYAML(result)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/"+name+".out.yaml", string(out))
			report := "injected\n"
			switch {
			case reason != nil:
				report = "declined: " + reason.String() + "\n"
			case string(result) == string(raw):
				report = "unchanged\n"
			}
			golden(t, "testdata/"+name+".report", report)

			if _, _, again, _ := admit(t, result); string(again) != string(result) {
				t.Errorf("a second review changed its own output:\n%s\nto\n%s", result, again)
			}
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew); got:\n%s", file, got)
	}
}

// declinable is a pod that gets a router, for tests to spoil.
func declinable(role string) *corev1.Pod {
	pod := &corev1.Pod{}
	pod.Name = "api"
	pod.Labels = map[string]string{sandbox.LabelRole: role, sandbox.LabelSandbox: "pr-42"}
	pod.Annotations = map[string]string{sandbox.AnnotationPorts: "http=8080", sandbox.AnnotationKey: "pr-42"}
	pod.Spec.Containers = []corev1.Container{{Name: "api", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}
	return pod
}

func TestPod_DeclinesWithAReason(t *testing.T) {
	for _, tt := range []struct {
		name  string
		role  string
		spoil func(*corev1.Pod)
		want  string
	}{
		{"host network", sandbox.RoleBaseline, func(p *corev1.Pod) { p.Spec.HostNetwork = true },
			"host-network: it uses its node's network, where a router's ports would be the node's"},
		{"host network of a fork", sandbox.RoleFork, func(p *corev1.Pod) { p.Spec.HostNetwork = true },
			"host-network: it uses its node's network, where a router's ports would be the node's"},
		{"windows", sandbox.RoleBaseline, func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} },
			"windows: it runs on Windows, for which there is no router"},
		{"windows by node", sandbox.RoleFork, func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"kubernetes.io/os": "windows"} },
			"windows: it runs on Windows, for which there is no router"},
		{"static pod", sandbox.RoleBaseline, func(p *corev1.Pod) { p.Annotations[corev1.MirrorPodAnnotationKey] = "x" },
			"static-pod: it is a static pod, which runs from a file on its node"},
		{"role of something else", sandbox.RoleRoute, func(*corev1.Pod) {},
			"role-unknown: label kubectl-sandbox.dev/role=route is no role that admission knows"},
		{"check without a sandbox", sandbox.RoleCheck, func(p *corev1.Pod) { delete(p.Labels, sandbox.LabelSandbox) },
			"sandbox-unknown: label kubectl-sandbox.dev/sandbox must not be empty"},
		{"check without a key", sandbox.RoleCheck, func(p *corev1.Pod) { delete(p.Annotations, sandbox.AnnotationKey) },
			"key-malformed: annotation kubectl-sandbox.dev/key must not be empty"},
		{"check with a Service without port", sandbox.RoleCheck, func(p *corev1.Pod) { p.Annotations[sandbox.AnnotationServices] = "frontend" },
			`services-malformed: annotation kubectl-sandbox.dev/services: service "frontend" is not HOST:PORT`},
		{"container has the router's name", sandbox.RoleBaseline, func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: sandbox.RouterContainer})
		}, "name-taken: it has a container named sandbox-router that is not the router"},
		{"init container has the router's name", sandbox.RoleFork, func(p *corev1.Pod) {
			p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: sandbox.RouterContainer})
		}, "name-taken: it has a container named sandbox-router that is not the router"},
		{"volume has the router's name", sandbox.RoleBaseline, func(p *corev1.Pod) {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: tokenVolume})
		}, "name-taken: it has a volume named sandbox-router-token that is not the router's"},
		{"no ports annotation", sandbox.RoleBaseline, func(p *corev1.Pod) { delete(p.Annotations, sandbox.AnnotationPorts) },
			"ports-missing: annotation kubectl-sandbox.dev/ports is missing"},
		{"malformed ports annotation", sandbox.RoleBaseline, func(p *corev1.Pod) { p.Annotations[sandbox.AnnotationPorts] = "http" },
			`ports-malformed: annotation kubectl-sandbox.dev/ports: port "http" is not NAME=NUMBER`},
		{"malformed ports annotation of a fork", sandbox.RoleFork, func(p *corev1.Pod) { p.Annotations[sandbox.AnnotationPorts] = "http=0" },
			`ports-malformed: annotation kubectl-sandbox.dev/ports: port "http=0": "0" is not a port number`},
		{"unknown port", sandbox.RoleBaseline, func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].Name = "web" },
			"port-unknown: no container names a TCP port http"},
		{"port of another protocol", sandbox.RoleBaseline, func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].Protocol = corev1.ProtocolUDP },
			"port-unknown: no container names a TCP port http"},
		{"port of a plain init container", sandbox.RoleBaseline, func(p *corev1.Pod) {
			p.Spec.InitContainers, p.Spec.Containers = p.Spec.Containers, []corev1.Container{{Name: "app"}}
		}, "port-unknown: no container names a TCP port http"},
		{"shared port name", sandbox.RoleBaseline, func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "other", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8081}}})
		}, "port-shared: containers api and other both name a TCP port http"},
		{"other number", sandbox.RoleBaseline, func(p *corev1.Pod) { p.Spec.Containers[0].Ports[0].ContainerPort = 9090 },
			"port-moved: port http of container api is 9090, but 8080 in annotation kubectl-sandbox.dev/ports"},
		{"no number left", sandbox.RoleBaseline, func(p *corev1.Pod) {
			for n := int32(sandbox.FirstListenPort); n <= 65535; n++ {
				p.Spec.Containers[0].Ports = append(p.Spec.Containers[0].Ports, corev1.ContainerPort{ContainerPort: n})
			}
		}, "ports-exhausted: no port number is left for the router to listen on"},
		{"fork without a sandbox", sandbox.RoleFork, func(p *corev1.Pod) { delete(p.Labels, sandbox.LabelSandbox) },
			"sandbox-unknown: label kubectl-sandbox.dev/sandbox must not be empty"},
		{"fork without a key", sandbox.RoleFork, func(p *corev1.Pod) { p.Annotations[sandbox.AnnotationKey] = "a b" },
			"key-malformed: annotation kubectl-sandbox.dev/key must consist of lowercase letters, digits, '-', '_' and '.'"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := declinable(tt.role)
			if _, reason := Pod(pod, config()); reason != nil && tt.role != sandbox.RoleRoute {
				t.Fatalf("declined before it was spoilt: %v", reason)
			}
			tt.spoil(pod)
			out, reason := Pod(pod, config())
			if reason == nil || reason.String() != tt.want {
				t.Fatalf("got reason %v, want %s", reason, tt.want)
			}
			if got := out.Annotations[sandbox.AnnotationInjected]; got != "declined: "+tt.want {
				t.Errorf("annotation says %q", got)
			}
			delete(out.Annotations, sandbox.AnnotationInjected)
			if want, got := encode(t, pod), encode(t, out); got != want {
				t.Errorf("declined, but changed from\n%s\nto\n%s", want, got)
			}
		})
	}
}

func encode(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
