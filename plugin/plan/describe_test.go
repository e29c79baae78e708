package plan

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
)

// Each testdata/status/NAME.yaml is a namespace as an API server has it; NAME.sandboxes.json and NAME.routes.json are what `list -o json`
// and `route -o json` print of it. A field that programs read is one of these files' lines.
func TestDescribe_Golden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/status/*.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatal("no input", err)
	}
	for _, input := range inputs {
		t.Run(filepath.Base(input), func(t *testing.T) {
			v := readInventory(t, input)
			command := func(words []string) string { return Quote(words) }
			base := input[:len(input)-len(".yaml")]
			golden(t, base+".sandboxes.json", v.DescribeSandboxes(command))
			golden(t, base+".routes.json", v.DescribeRoutes(command))
		})
	}
}

func golden(t *testing.T, path string, object any) {
	t.Helper()
	got, err := json.MarshalIndent(object, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// readInventory reads an inventory of 2026-03-01 10:00 UTC from a file of YAML documents.
func readInventory(t *testing.T, path string) *Inventory {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	v := &Inventory{Now: time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC), BaselineStates: map[string]BaselineState{}, Services: &[]corev1.Service{}, Current: true}
	var workloads []*Workload
	for _, document := range documents(string(text)) {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &u.Object); err != nil {
			t.Fatal(err)
		}
		into := func(out any) {
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out); err != nil {
				t.Fatal(err)
			}
		}
		fork := u.GetLabels()["kubectl-sandbox.dev/role"] == "fork"
		switch u.GetKind() {
		case "ConfigMap":
			v.ConfigMaps = append(v.ConfigMaps, corev1.ConfigMap{})
			into(&v.ConfigMaps[len(v.ConfigMaps)-1])
		case "Service":
			*v.Services = append(*v.Services, corev1.Service{})
			into(&(*v.Services)[len(*v.Services)-1])
		case "Pod":
			v.Pods = append(v.Pods, corev1.Pod{})
			into(&v.Pods[len(v.Pods)-1])
		case "ReplicaSet":
			v.Sets = append(v.Sets, appsv1.ReplicaSet{})
			into(&v.Sets[len(v.Sets)-1])
		case "Deployment":
			if fork {
				v.Forks = append(v.Forks, appsv1.Deployment{})
				into(&v.Forks[len(v.Forks)-1])
				v.BaselineStates["shop/"+u.GetName()] = BaselineState{Behind: u.GetAnnotations()["behind"] != "", Gone: u.GetAnnotations()["gone"] != ""}
				continue
			}
			workloads = append(workloads, &Workload{Object: u, Resource: appsv1.Resource("deployments")})
		default:
			t.Fatalf("%s: a %s", path, u.GetKind())
		}
	}
	v.Routed = RoutedWorkloads(workloads)
	return v
}

func documents(text string) []string {
	return slices.DeleteFunc(strings.Split(text, "\n---\n"), func(d string) bool { return strings.TrimSpace(d) == "" })
}

// A sandbox is as well as its worst fork, and what is not known is no worse than what is broken.
func TestState_IsThatOfTheWorstFork(t *testing.T) {
	for _, tt := range []struct {
		a, b Finding
		want bool
	}{
		{Finding{State: "Failed"}, Finding{State: "NotRouted"}, true},
		{Finding{State: "NotRouted"}, Finding{State: "Waiting"}, true},
		{Finding{State: "Waiting"}, Finding{State: "Routed"}, true},
		{Finding{State: "Routed", Unknown: true}, Finding{State: "Routed"}, true},
		{Finding{State: "NotRouted"}, Finding{State: "Routed", Unknown: true}, true},
		{Finding{State: "Routed"}, Finding{State: "Running"}, true},
	} {
		if graver(tt.a, tt.b) != tt.want || graver(tt.b, tt.a) == tt.want {
			t.Errorf("%v is graver than %v: want %t", tt.a, tt.b, tt.want)
		}
	}
}

// Every code has one exit status, and those that say what to do next differ.
func TestExitOf(t *testing.T) {
	for code, want := range map[string]int{
		status.CodeUsage: 4, status.CodeTimedOut: 5, status.CodeNoCluster: 6, status.CodeUnauthorized: 6, status.CodeInterrupted: 130,
		status.CodeRefused: 1, status.CodeFailed: 1, "NotFound": 1, "CrashLoop": 1,
	} {
		if got := status.ExitOf(code); got != want {
			t.Errorf("%s ends with %d, want %d", code, got, want)
		}
	}
}

// Only what is surely no HTTP is taken for that.
func TestUnroutableProtocol(t *testing.T) {
	tcp := "tcp"
	pg, http := "postgresql", "http"
	pod := func(image string, ports ...corev1.ContainerPort) *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: image, Ports: ports}}}}
	}
	for _, tt := range []struct {
		name  string
		image string
		ports []corev1.ServicePort
		want  bool
	}{
		{"web", "web:1", []corev1.ServicePort{{Name: "http", Port: 80}}, false},
		{"nothing is known", "app:1", []corev1.ServicePort{{Port: 9000}}, false},
		{"database by number", "app:1", []corev1.ServicePort{{Port: 5432}}, true},
		{"database by image", "docker.io/library/redis:7", []corev1.ServicePort{{Port: 7000}}, true},
		{"database by name", "app:1", []corev1.ServicePort{{Name: "mysql", Port: 4000}}, true},
		{"stated TCP", "app:1", []corev1.ServicePort{{Port: 8080, AppProtocol: &tcp}}, true},
		{"stated postgres", "app:1", []corev1.ServicePort{{Port: 8080, AppProtocol: &pg}}, true},
		{"HTTP on the number of a database, stated", "app:1", []corev1.ServicePort{{Port: 6379, AppProtocol: &http}}, false},
		{"HTTP on the number of a database, by name", "app:1", []corev1.ServicePort{{Name: "http-api", Port: 9092}}, false},
		{"TLS alone", "app:1", []corev1.ServicePort{{Name: "https", Port: 443}}, true},
		{"TLS by number", "app:1", []corev1.ServicePort{{Port: 443}}, true},
		{"TLS and HTTP", "app:1", []corev1.ServicePort{{Name: "https", Port: 443}, {Name: "web", Port: 80}}, false},
		{"database with metrics", "postgres:16", []corev1.ServicePort{{Name: "metrics", Port: 9187}, {Name: "pg", Port: 5432}}, true},
		{"metrics alone", "app:1", []corev1.ServicePort{{Name: "metrics", Port: 9187}}, false},
		{"the broker's console", "rabbitmq:4", []corev1.ServicePort{{Name: "amqp", Port: 5672}, {Name: "http-stats", Port: 15672}}, false},
	} {
		s := &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1", Selector: map[string]string{"app": "x"}, Ports: tt.ports}}
		s.Name = "x"
		got := unroutableProtocol([]*corev1.Service{s}, pod(tt.image), map[string]string{"app": "x"})
		if (got != "") != tt.want {
			t.Errorf("%s: %q, want one: %t", tt.name, got, tt.want)
		}
	}
}

// `route --all` leaves out what was broken before and what no key can work at, and routes the rest.
func TestChooseRoutes(t *testing.T) {
	w := readWorld(t, []byte(chooseWorld))
	broken := w.workloads["broken"].Object
	if err := unstructured.SetNestedField(broken.Object, int64(0), "status", "availableReplicas"); err != nil {
		t.Fatal(err)
	}
	candidates, _, left := RouteAll(w.view())
	chosen, more := ChooseRoutes(w.view(), candidates)
	var names []string
	for _, c := range chosen {
		names = append(names, c.Name())
	}
	if want := []string{"web"}; !slices.Equal(names, want) {
		t.Errorf("routes %v, want %v", names, want)
	}
	got := slices.Concat(left, more)
	slices.Sort(got)
	want := []string{
		"deployment.apps/beside: service/pair also selects pods of deployment/broken, where port 8080 has no name",
		"deployment.apps/broken: it is not healthy: deployment \"broken\" rollout to finish: 0 of 1 updated replicas are available",
		"deployment.apps/db: port 5432 of service/db is not HTTP: a router finds no key there",
	}
	if !slices.Equal(got, want) {
		t.Errorf("leaves out\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

const chooseWorld = `# route
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop}, spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: "web:1", ports: [{containerPort: 8080}]}]}}}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.0.0.1, selector: {app: web}, ports: [{port: 80, targetPort: 8080, protocol: TCP}]}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: db, namespace: shop}, spec: {selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, image: "postgres:16", ports: [{containerPort: 5432}]}]}}}}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop}, spec: {clusterIP: 10.0.0.2, selector: {app: db}, ports: [{port: 5432, targetPort: 5432, protocol: TCP}]}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: broken, namespace: shop}, spec: {selector: {matchLabels: {app: broken}}, template: {metadata: {labels: {app: broken, set: pair}}, spec: {containers: [{name: c, image: "web:1", ports: [{containerPort: 8080}]}]}}}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: beside, namespace: shop}, spec: {selector: {matchLabels: {app: beside}}, template: {metadata: {labels: {app: beside, set: pair}}, spec: {containers: [{name: c, image: "web:1", ports: [{containerPort: 8080}]}]}}}}
---
{apiVersion: v1, kind: Service, metadata: {name: pair, namespace: shop}, spec: {clusterIP: 10.0.0.3, selector: {set: pair}, ports: [{port: 80, targetPort: 8080, protocol: TCP}]}}
`
