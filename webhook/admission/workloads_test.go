package admission

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4" // what the API server applies patches with
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func textOf(v any) string { return fmt.Sprint(v) }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// checkPatch applies the difference as the API server does.
func checkPatch(t *testing.T, after, kept *unstructured.Unstructured) {
	t.Helper()
	doc, err := after.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	ops, err := json.Marshal(difference(after, kept))
	if err != nil {
		t.Fatal(err)
	}
	if string(ops) == "null" {
		ops = []byte("[]")
	}
	patch, err := jsonpatch.DecodePatch(ops)
	if err != nil {
		t.Fatal(err)
	}
	got, err := patch.Apply(doc)
	if err != nil {
		t.Fatalf("%v: %s", err, ops)
	}
	want, err := kept.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	if !jsonpatch.Equal(got, want) {
		t.Errorf("patched, it is\n%s\nnot\n%s", got, want)
	}
}

const (
	plain  = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: api}, spec: {template: {metadata: {labels: {app: api}}, spec: {newer: 1, containers: [{name: app, image: a, ports: [{containerPort: 8080}]}, {name: log}]}}}}`
	routed = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: api, annotations: {kubectl-sandbox.dev/routed: '{"names":[{"container":"app","port":8080,"name":"sbx-8080","made":"name"}],"ports":"sbx-8080=8080","made":["/spec/template/metadata/annotations"],"since":3}'}},
		spec: {template: {metadata: {labels: {app: api, kubectl-sandbox.dev/role: baseline, kubectl-sandbox.dev/workload: deployment.api}, annotations: {kubectl-sandbox.dev/ports: sbx-8080=8080}},
		spec: {newer: 1, containers: [{name: app, image: a, ports: [{containerPort: 8080, name: sbx-8080}]}, {name: log}]}}}}`
	// The port was not declared.
	bare     = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: api}, spec: {template: {metadata: {labels: {app: api}}, spec: {containers: [{name: app, image: a}]}}}}`
	declared = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: api, annotations: {kubectl-sandbox.dev/routed: '{"names":[{"container":"app","port":8080,"name":"sbx-8080","made":"ports"}],"ports":"sbx-8080=8080","made":["/spec/template/metadata/annotations"]}'}},
		spec: {template: {metadata: {labels: {app: api, kubectl-sandbox.dev/role: baseline, kubectl-sandbox.dev/workload: deployment.api}, annotations: {kubectl-sandbox.dev/ports: sbx-8080=8080}},
		spec: {containers: [{name: app, image: a, ports: [{name: sbx-8080, containerPort: 8080, protocol: TCP}]}]}}}}`
)

func TestKeepWorkload(t *testing.T) {
	change := strings.NewReplacer
	named := change("[{containerPort: 8080}]", "[{containerPort: 8080, name: http}]").Replace(plain)
	namedRouted := change("[{containerPort: 8080, name: sbx-8080}]", "[{containerPort: 8080, name: http}]", "sbx-8080=8080", "http=8080",
		`"names":[{"container":"app","port":8080,"name":"sbx-8080","made":"name"}],`, "").Replace(routed)
	leaving := change(`"since":3`, `"leaving":true,"since":4`).Replace(routed)
	names := change(`"ports":"sbx-8080=8080",`, "").Replace(routed) // the template asks for routers, the record is an earlier version's
	const kept = "app[8080:sbx-8080] log[] sbx-8080=8080 (app 8080 sbx-8080 name)"
	for _, tt := range []struct{ name, before, after, want string }{
		{"never routed", plain, change("image: a", "image: b").Replace(plain), "app[8080:] log[]"},
		{"route", plain, routed, kept},
		{"another image", routed, change("image: a", "image: b").Replace(routed), kept},
		{"replace: the manifest without a mark", routed, plain, kept},
		{"undo: an earlier template", routed, change(`,"since":3`, "").Replace(strings.Replace(plain, "name: api}", "name: api, annotations: {kubectl-sandbox.dev/routed: '{\"names\":[]}'}}", 1)), kept},
		{"undo: the template of an unroute", routed, change(`"since":3`, `"leaving":true,"since":2`).Replace(strings.Replace(plain, "name: api}", "name: api, annotations: {kubectl-sandbox.dev/routed: '{\"leaving\":true,\"since\":2}'}}", 1)), kept},
		{"a record of an earlier version", names, plain, kept},
		{"a template that lost its marks", strings.Replace(plain, "metadata: {name: api}", routed[strings.Index(routed, "metadata:"):strings.Index(routed, ",\n\t\tspec")], 1), change("image: a", "image: b").Replace(plain), kept},
		{"unroute begins", routed, change(`"since":3`, `"leaving":true,"since":4`).Replace(strings.Replace(plain, "name: api}", "name: api, annotations: {kubectl-sandbox.dev/routed: '{\"leaving\":true,\"since\":4}'}}", 1)), "app[8080:] log[] leaving"},
		{"unroute ends", leaving, plain, "app[8080:] log[]"},
		{"the owner names the port", routed, named, "app[8080:http] log[] http=8080"},
		{"another number", routed, change("8080", "9090").Replace(plain), "app[9090:sbx-8080] log[] sbx-8080=9090 (app 9090 sbx-8080 name)"},
		{"another number, named", routed, change("8080", "9090").Replace(named), "app[9090:http] log[] http=9090"},
		{"a port more", routed, change("ports: [", "ports: [{containerPort: 9090}, ").Replace(plain), "app[9090:,8080:sbx-8080] log[] sbx-8080=8080 (app 8080 sbx-8080 name)"},
		{"the port gone", routed, change(", ports: [{containerPort: 8080}]", "").Replace(plain), "app[] log[] none"},
		{"the container renamed", routed, change("name: app,", "name: server,").Replace(plain), "server[8080:sbx-8080] log[] sbx-8080=8080 (server 8080 sbx-8080 name)"},
		{"the container gone", routed, change("{name: app, image: a, ports: [{containerPort: 8080}]}, ", "").Replace(plain), "log[] none"},
		{"the name given to another port", routed, change("[{containerPort: 8080}]", "[{containerPort: 9090, name: sbx-8080}]").Replace(plain), "app[9090:sbx-8080] log[] sbx-8080=9090"},
		{"a port of another protocol", routed, change("[{containerPort: 8080}]", "[{containerPort: 8080, protocol: UDP}, {containerPort: 8080}]").Replace(plain), kept},

		{"a port that was not declared", declared, bare, "app[8080:sbx-8080] sbx-8080=8080 (app 8080 sbx-8080 ports)"},
		{"a port that was not declared, and others are", declared, change("image: a", "image: a, ports: [{containerPort: 1, name: x}]").Replace(bare), "app[1:x,8080:sbx-8080] sbx-8080=8080 (app 8080 sbx-8080 port)"},
		{"a port that was not declared, and is now", declared, change("image: a", "image: a, ports: [{containerPort: 8080}]").Replace(bare), "app[8080:sbx-8080] sbx-8080=8080 (app 8080 sbx-8080 name)"},

		{"the owner's own name", namedRouted, named, "app[8080:http] log[] http=8080"},
		{"the owner's own name changed", namedRouted, change("name: http", "name: web").Replace(named), "app[8080:web] log[] web=8080"},
		{"the owner's own name taken off", namedRouted, plain, "app[8080:http] log[] http=8080 (app 8080 http name)"},
		{"the owner's own name at another number", namedRouted, change("8080", "9090").Replace(named), "app[9090:http] log[] http=9090"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			after := object(t, tt.after)
			got, err := KeepWorkload(object(t, tt.before), after)
			if err != nil {
				t.Fatal(err)
			}
			if said := describeWorkload(t, got); said != tt.want {
				t.Errorf("got %q, want %q", said, tt.want)
			}
			checkPatch(t, after, got)
			again, err := KeepWorkload(object(t, tt.before), got)
			if err != nil || len(difference(got, again)) != 0 {
				t.Errorf("a second review changes its own output: %v %v", err, difference(got, again))
			}
		})
	}
}

// A ReplicaSet carries copies of its Deployment's annotations, whatever its template.
func TestKeepWorkload_LeavesWhatAControllerOwns(t *testing.T) {
	yes := true
	after := object(t, strings.Replace(plain, "kind: Deployment", "kind: ReplicaSet", 1))
	after.SetOwnerReferences([]metav1.OwnerReference{{Kind: "Deployment", Name: "api", Controller: &yes}})
	got, err := KeepWorkload(object(t, routed), after)
	if err != nil || len(difference(after, got)) != 0 {
		t.Errorf("%v %v", err, difference(after, got))
	}
}

// A custom kind has its template where its annotation says.
func TestKeepWorkload_FindsTheTemplateOfACustomKind(t *testing.T) {
	at := strings.NewReplacer("spec: {template:", "spec: {workload: {template:", "{name: log}]}}}}", "{name: log}]}}}}}", "kind: Deployment", "kind: Fleet",
		"annotations: {kubectl-sandbox.dev/routed: '{", `annotations: {kubectl-sandbox.dev/template: spec.workload.template, kubectl-sandbox.dev/routed: '{"template":true,`)
	got, err := KeepWorkload(object(t, at.Replace(routed)), object(t, at.Replace(plain)))
	if err != nil {
		t.Fatal(err)
	}
	if label, _, _ := unstructured.NestedString(got.Object, "spec", "workload", "template", "metadata", "labels", sandbox.LabelWorkload); label != "fleet.api" {
		t.Errorf("workload label %q of %v", label, got.Object)
	}
	if got.GetAnnotations()[sandbox.AnnotationTemplate] != "spec.workload.template" {
		t.Errorf("annotations %v", got.GetAnnotations())
	}
}

// describeWorkload says which ports containers have, what is captured, and what is recorded.
func describeWorkload(t *testing.T, u *unstructured.Unstructured) string {
	t.Helper()
	var words []string
	for _, c := range templateOf(u, []string{"spec", "template"}) {
		var ports []string
		for _, p := range c.ports() {
			ports = append(ports, textOf(p.number())+":"+p.name())
		}
		words = append(words, c.name()+"["+strings.Join(ports, ",")+"]")
	}
	at := []string{"spec", "template"}
	if role := templateText(u, at, "labels", sandbox.LabelRole); role != "" {
		captured := templateText(u, at, "annotations", sandbox.AnnotationPorts)
		if captured == "" {
			captured = "none"
		}
		words = append(words, captured)
		if label := templateText(u, at, "labels", sandbox.LabelWorkload); label != "deployment.api" {
			t.Errorf("workload label %q", label)
		}
	}
	record, err := sandbox.ParseRouteRecord(u.GetAnnotations()[sandbox.AnnotationRouted])
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range record.Names {
		words = append(words, fmt.Sprintf("(%s %d %s %s)", n.Container, n.Port, n.Name, n.Made))
	}
	if record.Leaving {
		words = append(words, "leaving")
	}
	return strings.Join(words, " ")
}

// Nobody owns what is kept at another value than a manifest's, and our managers own nothing of a spec.
func TestDisown(t *testing.T) {
	entry := func(manager, fields string) map[string]any {
		var parsed any
		if err := json.Unmarshal([]byte(fields), &parsed); err != nil {
			t.Fatal(err)
		}
		return map[string]any{"manager": manager, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": parsed}
	}
	const target = `{"f:spec":{"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:targetPort":{}}}}}`
	after := object(t, routedService)
	_ = unstructured.SetNestedSlice(after.Object, []any{
		entry("helm", target), entry(sandbox.FormerFieldManager, `{"f:metadata":{"f:labels":{"f:a":{}}},"f:spec":{"f:x":{}}}`),
		entry(sandbox.FieldManager, target), entry("kubectl-edit", `{"f:spec":{"f:type":{}}}`),
	}, "metadata", "managedFields")
	kept, err := KeepService(object(t, routedService), after, Write{})
	if err != nil {
		t.Fatal(err)
	}
	checkPatch(t, after, kept)
	var got []string
	for _, e := range kept.GetManagedFields() {
		got = append(got, e.Manager+e.FieldsV1.GetRawString())
	}
	want := []string{
		`helm{"f:spec":{"f:ports":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{}}}}`,
		sandbox.FormerFieldManager + `{"f:metadata":{"f:labels":{"f:a":{}}}}`,
		`kubectl-edit{"f:spec":{"f:type":{}}}`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
