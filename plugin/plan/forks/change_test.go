package forks_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func TestParseEnv_From(t *testing.T) {
	for _, tt := range []struct{ env, want, err string }{
		{env: "A@secret/db/password", want: "A@secret/db/password"},
		{env: "A@cm/settings/a.b_c-", want: "A@configmap/settings/a.b_c-"},
		{env: "A=B@secret/db/password", want: "A=B@secret/db/password"},
		{env: "A=secret:db/password", want: "A=secret:db/password"},
		{env: "A@secret/db", err: `after "@" stands`},
		{env: "A@secret/Db/x", err: `secret "Db"`},
		{env: "A@secret/db/a b", err: `key "a b"`},
		{env: "A@pod/x/y", err: `neither secret nor configmap`},
		{env: "@secret/db/x", err: `--env "@secret/db/x"`},
		{env: "A@secret/db/x=1", err: `--env "A@secret/db/x=1"`},
	} {
		c, err := forks.ParseEnv(tt.env)
		if (err != nil) != (tt.err != "") || !strings.Contains(message(err), tt.err) || err == nil && c.String() != tt.want {
			t.Errorf("env %q: got %q, %v", tt.env, c, err)
		}
	}
}

func TestParseResources(t *testing.T) {
	for _, tt := range []struct{ in, want, err string }{
		{in: "requests.cpu=100m", want: "requests.cpu=100m"},
		{in: "requests.cpu=100m,limits.memory=1Gi,limits.cpu-", want: "requests.cpu=100m,limits.memory=1Gi,limits.cpu-"},
		{in: "limits.nvidia.com/gpu=1", want: "limits.nvidia.com/gpu=1"},
		{in: "cpu=1", err: "begins with neither"},
		{in: "limits.cpu", err: "neither NAME=QUANTITY nor NAME-"},
		{in: "limits.cpu=much", err: "is not a quantity"},
		{in: "limits.cpu=-1", err: "is negative"},
		{in: "limits.=1", err: "names no resource"},
		{in: "", err: "neither NAME=QUANTITY nor NAME-"},
	} {
		changes, err := forks.ParseResources(tt.in)
		var got []string
		for _, c := range changes {
			got = append(got, c.String())
		}
		if (err != nil) != (tt.err != "") || !strings.Contains(message(err), tt.err) || err == nil && strings.Join(got, ",") != tt.want {
			t.Errorf("resources %q: got %q, %v", tt.in, got, err)
		}
	}
}

func TestParseWords(t *testing.T) {
	for _, tt := range []struct {
		in, want []string
		bad      bool
	}{
		{in: []string{"sh", "-c", "echo [x]"}, want: []string{"sh", "-c", "echo [x]"}},
		{in: []string{`["sh", "-c", "x"]`}, want: []string{"sh", "-c", "x"}},
		{in: []string{`[sh, "8080"]`}, want: []string{"sh", "8080"}},
		{in: []string{`[]`}, want: []string{}},
		{in: []string{""}, want: []string{""}},
		{in: []string{`[sh, 8080]`}, bad: true},
		{in: []string{`["sh"`}, bad: true},
		{in: []string{`["a"]`, `["b"]`}, want: []string{`["a"]`, `["b"]`}},
	} {
		got, err := forks.ParseWords("--args", tt.in)
		if (err != nil) != tt.bad || err == nil && !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: got %q, %v", tt.in, got, err)
		}
	}
}

// changed is the template of a pod with an app, a sidecar and a native sidecar, and fields that no program knows yet.
const changed = `
metadata:
  labels: {app: api}
  annotations: {note: "1"}
spec:
  future: {deep: [{name: x, y: 1}]}
  serviceAccountName: old
  serviceAccount: old
  initContainers:
  - {name: mesh, image: mesh:1, restartPolicy: Always}
  containers:
  - name: api
    image: api:1
    args: [--a]
    futureList: [{name: q, v: 1}]
    env: [{name: A, value: "1"}, {name: B, valueFrom: {fieldRef: {fieldPath: x}}}]
    resources: {requests: {cpu: 10m}, limits: {cpu: 20m}}
  - {name: log, image: log:1}
`

func workloadOf(t testing.TB, template string) *plan.Workload {
	t.Helper()
	var m map[string]any
	if err := yaml.Unmarshal([]byte(template), &m); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "api", "namespace": "shop"},
		"spec": map[string]any{"template": m},
	})
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(b); err != nil {
		t.Fatal(err)
	}
	return plan.NewWorkload(u, schema.GroupResource{Group: "apps", Resource: "deployments"}, "")
}

// A change is options of a fork, and what these come to: a patch, operation by operation and without the tests of
// names, or a problem.
type change struct {
	name    string
	change  func(*forks.Options)
	want    string
	warns   string
	problem string
}

// patch is the change of --patch.
func patch(t *testing.T, patchType, text string) func(*forks.Options) {
	t.Helper()
	return func(o *forks.Options) {
		p, err := forks.ParsePatch("--patch", patchType, text)
		if err != nil {
			t.Fatal(err)
		}
		o.Patch = p
	}
}

func TestForks_ChangesByFlags(t *testing.T) {
	for _, tt := range []change{
		{
			name:   "env from a Secret, over a plain value, in all containers",
			change: func(o *forks.Options) { o.Env = variables("A@secret/db/pw") },
			want: `remove /spec/containers/0/env/0/value; ` +
				`add /spec/containers/0/env/0/valueFrom {"secretKeyRef":{"key":"pw","name":"db"}}; ` +
				`add /spec/containers/1/env [{"name":"A","valueFrom":{"secretKeyRef":{"key":"pw","name":"db"}}}]`,
		},
		{
			name:   "env from a ConfigMap, in one container",
			change: func(o *forks.Options) { o.Env, o.Containers = variables("C@cm/s/k"), []string{"api"} },
			want:   `add /spec/containers/0/env/- {"name":"C","valueFrom":{"configMapKeyRef":{"key":"k","name":"s"}}}`,
		},
		{
			name:   "env of a native sidecar",
			change: func(o *forks.Options) { o.Env, o.Containers = variables("C=1"), []string{"mesh"} },
			want:   `add /spec/initContainers/0/env [{"name":"C","value":"1"}]`,
		},
		{
			name: "command and no args",
			change: func(o *forks.Options) {
				o.Command, o.Args, o.Containers = []string{"/x"}, []string{}, []string{"api"}
			},
			want: `remove /spec/containers/0/args; add /spec/containers/0/command ["/x"]`,
		},
		{
			name:   "command keeps args, and says so",
			change: func(o *forks.Options) { o.Command, o.Containers = []string{"/x"}, []string{"api"} },
			want:   `add /spec/containers/0/command ["/x"]`,
			warns:  `keeps its args after the new --command: ["--a"]`,
		},
		{
			name: "resources of the container whose image changes",
			change: func(o *forks.Options) {
				o.Images = options("api=api:2").Images
				o.Resources = resources("requests.cpu=5m,limits.cpu-,limits.memory=1Gi")
			},
			want: `replace /spec/containers/0/image "api:2"; remove /spec/containers/0/resources/limits/cpu; ` +
				`add /spec/containers/0/resources/limits/memory "1Gi"; ` +
				`replace /spec/containers/0/resources/requests/cpu "5m"`,
		},
		{
			name:   "resources that are not there",
			change: func(o *forks.Options) { o.Containers, o.Resources = []string{"log"}, resources("limits.cpu-") },
			warns:  `--resources limits.cpu-: container log does not set it`,
		},
		{
			name:   "service account, under both of its names",
			change: func(o *forks.Options) { o.ServiceAccount = "new" },
			want:   `replace /spec/serviceAccount "new"; replace /spec/serviceAccountName "new"`,
		},
		{
			name:   "image by --container",
			change: func(o *forks.Options) { o.Images, o.Containers = options("log:2").Images, []string{"log"} },
			want:   `replace /spec/containers/1/image "log:2"`,
		},
	} {
		t.Run(tt.name, tt.check)
	}
}

func TestForks_ChangesByPatch(t *testing.T) {
	for _, tt := range []change{
		{
			name: "strategic merge goes by name, and leaves what it does not know",
			change: patch(t, "strategic", `{spec: {hostNetwork: true, containers: [`+
				`{name: log, env: [{name: Z, value: z}]}, `+
				`{name: api, env: [{name: A, $patch: delete}]}]}}`),
			want: `remove /spec/containers/0/env/0; ` +
				`add /spec/containers/1/env [{"name":"Z","value":"z"}]; add /spec/hostNetwork true`,
		},
		{
			name:   "strategic merge adds a container",
			change: patch(t, "strategic", `{spec: {containers: [{name: extra, image: x}]}}`),
			want:   `add /spec/containers/- {"image":"x","name":"extra"}`,
		},
		{
			name: "merge patch",
			change: patch(t, "merge", `{metadata: {annotations: {note: null, other: "2"}}, `+
				`spec: {future: {deep: null}}}`),
			want: `remove /metadata/annotations/note; add /metadata/annotations/other "2"; remove /spec/future/deep`,
		},
		{
			name: "JSON patch, moves included",
			change: patch(t, "json", `[{op: test, path: /spec/containers/0/name, value: api}, `+
				`{op: move, from: /spec/containers/0/args, path: /spec/containers/0/command}]`),
			want: `remove /spec/containers/0/args; add /spec/containers/0/command ["--a"]`,
		},
		{
			name: "flags are laid on after the patch",
			change: func(o *forks.Options) {
				patch(t, "merge", `{spec: {serviceAccountName: mid, hostname: h}}`)(o)
				o.ServiceAccount = "new"
			},
			want: `add /spec/hostname "h"; replace /spec/serviceAccount "new"; replace /spec/serviceAccountName "new"`,
		},
		{
			name:   "a field that nobody knows",
			change: patch(t, "merge", `{spec: {hostNam: x}}`),
			want:   `add /spec/hostNam "x"`,
			warns:  `--patch: the pod template gets a field that this program does not know: spec.hostNam`,
		},
	} {
		t.Run(tt.name, tt.check)
	}
}

func TestForks_RefusesChanges(t *testing.T) {
	for _, tt := range []change{
		{name: "which container", change: func(o *forks.Options) { o.Args = []string{"x"} },
			problem: `--args does not say which container: deployment.apps/api has api, log, mesh`},
		{name: "no such container", change: func(o *forks.Options) {
			o.Env, o.Containers = variables("A=1"), []string{"ap"}
		},
			problem: `--container ap: no container is named "ap"; there is api, log, mesh`},
		{name: "wrong type", change: patch(t, "merge", `{spec: {containers: [{name: api, image: 5}]}}`),
			problem: `--patch does not fit the pod template of deployment.apps/api: `},
		{name: "no container left", change: patch(t, "merge", `{spec: {containers: []}}`),
			problem: `it removes all containers`},
		{name: "no spec left", change: patch(t, "json", `[{op: remove, path: /spec}]`),
			problem: `it removes all containers`},
		{name: "spec is no object", change: patch(t, "strategic", `{spec: 5}`), problem: `does not fit`},
		{name: "test fails", change: patch(t, "json", `[{op: test, path: /spec/containers/0/name, value: web}]`),
			problem: `testing value /spec/containers/0/name failed`},
		{name: "nothing there", change: patch(t, "json", `[{op: remove, path: /spec/nodeName}]`),
			problem: `does not fit`},
		{name: "field without schema", change: patch(t, "strategic", `{spec: {future: {more: 1}}}`),
			problem: `unable to find api field`},
		{name: "a label", change: patch(t, "strategic", `{metadata: {labels: {app: other}}}`),
			problem: `the label app can't be set on a fork`},
		{name: "a mark of ours",
			change:  patch(t, "merge", `{metadata: {annotations: {kubectl-sandbox.dev/ports: "x"}}}`),
			problem: `the annotation kubectl-sandbox.dev/ports can't be set on a fork`},
		{name: "a mark of GitOps",
			change:  patch(t, "merge", `{metadata: {annotations: {argocd.argoproj.io/tracking-id: x}}}`),
			problem: `can't be set on a fork`},
		{name: "a name", change: patch(t, "merge", `{metadata: {name: x}}`),
			problem: `metadata.name can't be set on a fork`},
	} {
		t.Run(tt.name, tt.check)
	}
}

// check plans a fork with the change.
func (tt change) check(t *testing.T) {
	o := options()
	tt.change(&o)
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	w := workloadOf(t, changed)
	before := runtime.DeepCopyJSON(w.Object.Object)
	state := &forks.State{Namespace: "shop"}
	p, err := forks.New(&o, []*plan.Workload{w}, state)
	if !reflect.DeepEqual(before, w.Object.Object) {
		t.Error("planning changed the workload")
	}
	if (err != nil) != (tt.problem != "") || !strings.Contains(message(err), tt.problem) {
		t.Fatalf("the problem is: %v", err)
	}
	if err != nil {
		return
	}
	if got := operations(t, p.Forks[0].Deployment); got != tt.want {
		t.Errorf("got  %s\nwant %s", got, tt.want)
	}
	if warned := strings.Join(p.Warnings, "\n"); !strings.Contains(warned, tt.warns) {
		t.Errorf("warned:\n%s", warned)
	}
	// The same once more, on the fork there is, changes nothing of it.
	fork := p.Forks[0].Deployment.DeepCopy()
	fork.SetGeneration(1)
	cm := p.ConfigMap.DeepCopy()
	cm.UID = "u"
	fork.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: cm.Name, UID: cm.UID}})
	state.Sandbox, state.Forks = cm, []unstructured.Unstructured{*fork}
	again := options()
	again.Env = variables("ZZ=1")
	p2, err := forks.New(&again, []*plan.Workload{w}, state)
	if err != nil {
		t.Fatal(err)
	}
	if more := operations(t, p2.Forks[0].Deployment); !strings.Contains(more, "ZZ") {
		t.Errorf("an update lost what was asked: %s", more)
	}
}

func resources(s string) []forks.ResourceChange {
	r, err := forks.ParseResources(s)
	if err != nil {
		panic(err)
	}
	return r
}

// operations writes a fork's patch for people to read, without tests.
func operations(t *testing.T, d *unstructured.Unstructured) string {
	t.Helper()
	var ops []struct {
		Op, Path string
		Value    any
	}
	if err := json.Unmarshal([]byte(d.GetAnnotations()[sandbox.AnnotationPatch]), &ops); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, op := range ops {
		switch op.Op {
		case "test":
		case "remove":
			out = append(out, "remove "+op.Path)
		default:
			v, err := json.Marshal(op.Value)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, op.Op+" "+op.Path+" "+string(v))
		}
	}
	return strings.Join(out, "; ")
}

func FuzzParseEnv(f *testing.F) {
	for _, s := range []string{"A=1", "A-", "A@secret/x/y", "A@cm/x/y-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := forks.ParseEnv(s)
		if err != nil {
			return
		}
		if again, err := forks.ParseEnv(c.String()); err != nil || again != c {
			t.Errorf("%q is %+v, and read again %+v, %v", s, c, again, err)
		}
	})
}

func FuzzParseResources(f *testing.F) {
	f.Add("requests.cpu=1,limits.a/b-")
	f.Fuzz(func(t *testing.T, s string) {
		changes, err := forks.ParseResources(s)
		if err != nil {
			return
		}
		for _, c := range changes {
			if again, err := forks.ParseResources(c.String()); err != nil || len(again) != 1 || again[0] != c {
				t.Errorf("%q is %+v, and read again %+v, %v", s, c, again, err)
			}
		}
	})
}

// Whatever the patch, it makes a template or an error of the one it is laid on, which stays as it is.
func FuzzTemplatePatch(f *testing.F) {
	for _, s := range []string{
		`{spec: {containers: [{name: log, env: [{name: Z, $patch: delete}]}]}}`, `{$patch: replace, spec: {}}`, `{spec: {containers: [null]}}`,
		`{spec: {$setElementOrder/containers: [{name: log}], $retainKeys: [x]}}`, `[{op: copy, from: /spec, path: /spec/x}]`, `[{op: move, from: /spec/x, path: /}]`,
		`{spec: {containers: {$patch: delete}}}`, `{spec: {containers: [{$patch: replace}]}}`,
	} {
		f.Add("strategic", s)
		f.Add("merge", s)
		f.Add("json", s)
	}
	f.Fuzz(func(t *testing.T, patchType, text string) {
		p, err := forks.ParsePatch("--patch", patchType, text)
		if err != nil {
			return
		}
		w := workloadOf(t, changed)
		template := w.Template()
		_, _ = p.Apply(template) // must not panic
		if !reflect.DeepEqual(template, w.Template()) {
			t.Errorf("%s changed the template it was laid on", text)
		}
	})
}
