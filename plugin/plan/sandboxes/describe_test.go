package sandboxes

import (
	"encoding/json"
	"flag"
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

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
)

var update = flag.Bool("update", false, "write what comes out into the golden files")

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
			command := func(words []string) string { return plan.Quote(words) }
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
	var workloads []*plan.Workload
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
			workloads = append(workloads, &plan.Workload{Object: u, Resource: appsv1.Resource("deployments")})
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
