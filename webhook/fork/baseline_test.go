package fork_test

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func TestParseTemplatePath(t *testing.T) {
	for _, tt := range []struct {
		path, want string // want as formatted
		bad        bool
	}{
		{path: ""},
		{path: "spec.template"},
		{path: ".spec.template"},
		{path: "spec.workload.podTemplate", want: "spec.workload.podTemplate"},
		{path: ".template", want: "template"},
		{path: "spec..template", bad: true},
		{path: ".", bad: true},
		{path: "spec.groups[0].template", bad: true},
		{path: "{.spec.template}", bad: true},
		{path: "/spec/template", bad: true},
		{path: string(make([]byte, 300)), bad: true},
	} {
		fields, err := fork.ParseTemplatePath(tt.path)
		if (err != nil) != tt.bad || err == nil && fork.FormatTemplatePath(fields) != tt.want {
			t.Errorf("path %q: got %q, %v", tt.path, fields, err)
		}
	}
}

func FuzzParseTemplatePath(f *testing.F) {
	f.Add("spec.template")
	f.Add(".a.b-c")
	f.Fuzz(func(t *testing.T, path string) {
		fields, err := fork.ParseTemplatePath(path)
		if err != nil {
			return
		}
		again, err := fork.ParseTemplatePath(fork.FormatTemplatePath(fields))
		if err != nil || !slices.Equal(again, fields) {
			t.Errorf("%q is %q, and read again %q, %v", path, fields, again, err)
		}
	})
}

func TestDeployment_OfACustomKind(t *testing.T) {
	baseline := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.com/v1", "kind": "App", "metadata": map[string]any{"name": "web", "namespace": "shop"},
		"spec": map[string]any{"parts": map[string]any{"pods": map[string]any{"spec": map[string]any{
			"containers": []any{map[string]any{"name": "web", "image": "web:1"}}, "futureField": "kept",
		}}}},
	}}
	o := fork.Options{Name: "web-pr", Sandbox: "pr", Key: "k", TemplatePath: "spec.parts.pods", Patch: []byte(`[{"op":"replace","path":"/spec/containers/0/image","value":"web:2"}]`)}
	d, err := fork.Deployment(baseline, o)
	if err != nil {
		t.Fatal(err)
	}
	a := d.GetAnnotations()
	if a[sandbox.AnnotationTemplate] != "spec.parts.pods" || a[sandbox.AnnotationAPIVersion] != "example.com/v1" {
		t.Errorf("the fork's annotations do not say what it is of: %v", a)
	}
	spec, _, _ := unstructured.NestedMap(d.Object, "spec", "template", "spec")
	if spec["futureField"] != "kept" || spec["containers"].([]any)[0].(map[string]any)["image"] != "web:2" {
		t.Errorf("got %v", spec)
	}
	o.TemplatePath = ""
	if _, err := fork.Deployment(baseline, o); err == nil || err.Error() != `App "web" has no pod template at spec.template` {
		t.Errorf("without its path: %v", err)
	}
}

// Whatever the baseline, its fork says what to read.
func TestBaselineOf(t *testing.T) {
	long := strings.Repeat("a-rather-long-name.", 4) + "x"
	for _, tt := range []struct{ apiVersion, kind, name, want string }{
		{"apps/v1", "Deployment", "api", "deployment.apps/api"},
		{"apps/v1", "StatefulSet", "db.eu", "statefulset.apps/db.eu"},
		{"v1", "ReplicationController", "old", "replicationcontroller/old"},
		{"argoproj.io/v1alpha1", "Rollout", "web", "rollout.argoproj.io/web"},
		{"example.com/v1", "Deployment", "odd", "deployment.example.com/odd"},
		{"apps/v1", "Deployment", long, "deployment.apps/" + long},
	} {
		d, err := fork.Deployment(&unstructured.Unstructured{Object: map[string]any{
			"apiVersion": tt.apiVersion, "kind": tt.kind, "metadata": map[string]any{"name": tt.name, "namespace": "shop"},
			"spec": map[string]any{"template": map[string]any{}},
		}}, fork.Options{Name: "f", Sandbox: "pr", Key: "k"})
		if err != nil {
			t.Fatal(err)
		}
		r, err := fork.BaselineOf(d)
		if err != nil || r.String() != tt.want || r.APIVersion != tt.apiVersion {
			t.Errorf("the fork of %s %s is of %s, %v", tt.kind, tt.name, r, err)
		}
	}
	if r, err := fork.BaselineOf(&unstructured.Unstructured{Object: map[string]any{}}); err == nil {
		t.Errorf("what is no fork is of %s", r)
	}
}
