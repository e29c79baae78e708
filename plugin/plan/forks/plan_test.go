package forks_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

var update = flag.Bool("update", false, "write what comes out into the golden files")

func at(s string) time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t
}

// options returns those of `fork --name pr-42 --image IMAGES...`.
func options(images ...string) forks.Options {
	o := forks.Options{Sandbox: "pr-42", NewKey: "new-key", Now: at("2026-03-01T10:00:00Z")}
	for _, s := range images {
		c, err := forks.ParseImage(s)
		if err != nil {
			panic(err)
		}
		o.Images = append(o.Images, c)
	}
	return o
}

func with(o forks.Options, change func(*forks.Options)) forks.Options {
	change(&o)
	return o
}

func variables(changes ...string) (out []forks.EnvChange) {
	for _, s := range changes {
		c, err := forks.ParseEnv(s)
		if err != nil {
			panic(err)
		}
		out = append(out, c)
	}
	return out
}

func ptr[T any](v T) *T { return &v }

// A forkCase plans a fork of the files' workloads, in the order of the files, against what else is in them.
type forkCase struct {
	name    string
	files   []string
	options forks.Options
	state   func(*forks.State)
}

var forkCases = []forkCase{
	{name: "image", files: []string{"deployment"}, options: options("api:pr-42")},
	{name: "image-of-init-container", files: []string{"deployment"}, options: options("migrate=api:pr-42")},
	{name: "env", files: []string{"deployment"}, options: with(options(), func(o *forks.Options) {
		o.Env = variables("LOG_LEVEL=debug", "PASSWORD-", "NEW=a=b", "ABSENT-")
	})},
	{name: "all-options", files: []string{"deployment"}, options: with(options("api=api:pr-42"), func(o *forks.Options) {
		o.Replicas, o.Key, o.WhenUnready, o.TTL = ptr(int64(0)), "my-key", sandbox.WhenUnreadyBaseline, ptr(time.Duration(0))
	})},
	{name: "statefulset", files: []string{"statefulset"}, options: options("db:pr-42")},
	{name: "without-service", files: []string{"worker"}, options: options("worker:pr-42")},
	{name: "custom-kind", files: []string{"rollout"}, options: options("web:2")},
	{name: "several", files: []string{"deployment", "worker", "rollout"}, options: options("api=api:2", "web=web:2")},
	{name: "several-by-repository", files: []string{"worker", "statefulset"}, options: options("db:2")},
	{name: "update-keeps-what-was-asked-before", files: []string{"deployment", "sandbox"}, options: with(options(), func(o *forks.Options) {
		o.Env = variables("LOG_LEVEL=debug")
	})},
	{name: "update-same-image", files: []string{"deployment", "sandbox"}, options: options("api:pr-42")},
	{name: "update-restart", files: []string{"deployment", "sandbox"}, options: with(options("api:pr-42"), func(o *forks.Options) { o.Restart = true })},
	{name: "update-adds-a-workload", files: []string{"worker", "sandbox"}, options: with(options("worker:2"), func(o *forks.Options) {
		o.TTL = ptr(24 * time.Hour)
	})},
	{name: "update-by-another-user", files: []string{"deployment", "sandbox"}, options: options("api:3"), state: func(s *forks.State) { s.User = "joe" }},
	{name: "fork-name-taken", files: []string{"deployment"}, options: options("api:2"), state: func(s *forks.State) { s.Taken = map[string]bool{"api-pr-42": true} }},
	{name: "from-git-not-adopted", files: []string{"deployment", "sandbox"}, options: options("api:3"), state: func(s *forks.State) {
		s.Forks[0].SetOwnerReferences(nil)
	}},
	{name: "route-first", files: []string{"unrouted"}, options: with(options("plain:2"), func(o *forks.Options) { o.Route = true })},

	{name: "problem-unrouted", files: []string{"unrouted", "deployment"}, options: options("plain=plain:2")},
	{name: "problem-no-webhook", files: []string{"deployment"}, options: options("api:2"), state: func(s *forks.State) { s.NoWebhook = true }},
	{name: "problem-wrong-container", files: []string{"deployment"}, options: with(options("ap=api:2"), func(o *forks.Options) {
		o.Env, o.Key, o.TTL, o.Replicas = variables("A=it's", "B-"), "k", ptr(time.Hour), ptr(int64(3))
	})},
	{name: "problem-which-container", files: []string{"rollout", "deployment"}, options: options("other:2")},
	{name: "problem-container-of-several", files: []string{"deployment", "unrouted"}, options: with(options("main=x:2"), func(o *forks.Options) { o.Route = true })},
	{name: "problem-name-taken", files: []string{"deployment", "sandbox"}, options: options("api:2"), state: func(s *forks.State) { s.Sandbox.Labels = nil }},
	{name: "problem-key-differs", files: []string{"deployment", "sandbox"}, options: with(options("api:2"), func(o *forks.Options) { o.Key = "other" })},
	{name: "problem-key-in-use", files: []string{"deployment"}, options: with(options("api:2"), func(o *forks.Options) { o.Key = "k42" }), state: func(s *forks.State) {
		s.Sandboxes = []corev1.ConfigMap{*read(nil, "sandbox").state.Sandbox}
	}},
	{name: "problem-being-deleted", files: []string{"deployment", "sandbox"}, options: options("api:2"), state: func(s *forks.State) {
		now := metav1.NewTime(at("2026-03-01T09:59:00Z"))
		s.Sandbox.DeletionTimestamp = &now
	}},
	{name: "problem-damaged", files: []string{"deployment", "sandbox"}, options: options("api:2"), state: func(s *forks.State) { s.Sandbox.Data = nil }},
	{name: "problem-left-from-an-earlier-sandbox", files: []string{"deployment", "sandbox"}, options: options("api:2"), state: func(s *forks.State) { s.Sandbox = nil }},
	{name: "problem-not-ours", files: []string{"deployment", "sandbox"}, options: options("api:2"), state: func(s *forks.State) {
		s.Forks[0].SetOwnerReferences(nil)
		s.Forks[0].SetAnnotations(nil)
	}},
	{name: "problem-change-no-longer-fits", files: []string{"deployment", "sandbox"}, options: options("api:2"), state: func(s *forks.State) {
		s.Forks[0].SetAnnotations(map[string]string{sandbox.AnnotationPatch: `[{"op":"test","path":"/spec/containers/0/name","value":"app"}]`})
	}},
	{name: "problem-fork-of-a-fork", files: []string{"deployment"}, options: options("api:2"), state: nil},
}

func TestForks(t *testing.T) {
	for _, tt := range forkCases {
		t.Run(tt.name, func(t *testing.T) {
			in := read(t, tt.files...)
			if tt.state != nil {
				tt.state(in.state)
			}
			if tt.name == "problem-fork-of-a-fork" {
				in.workloads[0].Object.SetLabels(map[string]string{
					sandbox.LabelRole: sandbox.RoleFork, sandbox.LabelSandbox: "pr-1", sandbox.LabelWorkload: "deployment.api",
				})
			}
			if err := tt.options.Validate(); err != nil {
				t.Fatal(err)
			}
			before := fmt.Sprint(in.workloads[0].Object.Object)
			p, err := forks.New(&tt.options, in.workloads, in.state)
			if strings.HasPrefix(tt.name, "problem") != (err != nil) {
				t.Fatalf("the problem is: %v", err)
			}
			if after := fmt.Sprint(in.workloads[0].Object.Object); after != before {
				t.Errorf("planning changed the workload\n%s\nto\n%s", before, after)
			}
			golden(t, filepath.Join("testdata", "fork", tt.name+".golden"), show(t, p, err))
		})
	}
}

// An update with what was asked for already makes what there is, whatever the options.
func TestForks_AgainChangesNothing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		file := rapid.SampledFrom([]string{"deployment", "statefulset", "worker", "rollout"}).Draw(rt, "workload")
		in := read(t, file)
		o := options()
		if rapid.Bool().Draw(rt, "image") {
			o.Images = []forks.ImageChange{{Container: container(in.workloads[0]), Image: rapid.SampledFrom([]string{"x:1", "x:2"}).Draw(rt, "tag")}}
		}
		for range rapid.IntRange(0, 3).Draw(rt, "variables") {
			name := rapid.SampledFrom([]string{"A", "LOG_LEVEL", "PASSWORD"}).Draw(rt, "variable")
			o.Env = append(o.Env, rapid.SampledFrom(variables(name+"=1", name+"=2", name+"-")).Draw(rt, "change"))
		}
		if rapid.Bool().Draw(rt, "replicas") {
			o.Replicas = ptr(rapid.Int64Range(0, 5).Draw(rt, "count"))
		}
		first, err := forks.New(&o, in.workloads, in.state)
		if err != nil {
			rt.Fatal(err)
		}
		made := first.Forks[0].Deployment.DeepCopy()
		cm := first.ConfigMap.DeepCopy()
		cm.UID = "33333333-3333-3333-3333-333333333333"
		in.state.Sandbox, in.state.Forks = cm, []unstructured.Unstructured{*made}
		for _, again := range []forks.Options{o, options()} {
			second, err := forks.New(&again, in.workloads, in.state)
			if err != nil {
				rt.Fatal(err)
			}
			d := second.Forks[0].Deployment.DeepCopy()
			owners := d.GetOwnerReferences()
			if len(owners) != 1 || owners[0].UID != cm.UID {
				rt.Fatalf("its owner is %v", owners)
			}
			d.SetOwnerReferences(nil)
			if got, want := asYAML(t, d.Object), asYAML(t, made.Object); got != want {
				rt.Fatalf("planned again it is\n%s\nand was\n%s", got, want)
			}
			if second.Key != first.Key || second.ConfigMap.Data[sandbox.DataKey] != cm.Data[sandbox.DataKey] {
				rt.Fatalf("its key became %s", second.Key)
			}
		}
	})
}

func TestParse(t *testing.T) {
	for _, tt := range []struct{ image, want, err string }{
		{image: "api:1", want: "api:1"},
		{image: "web=registry.example.com:5000/a/b@sha256:aa", want: "web=registry.example.com:5000/a/b@sha256:aa"},
		{image: "", err: `--image "": the image is empty`},
		{image: "web=", err: `--image "web=": the image is empty`},
		{image: "=api", err: `--image "=api": the container's name before "=" is empty`},
		{image: "a b", err: `--image "a b": an image reference holds no space`},
	} {
		c, err := forks.ParseImage(tt.image)
		if message(err) != tt.err || err == nil && c.String() != tt.want {
			t.Errorf("image %q: got %q, %v", tt.image, c, err)
		}
	}
	for _, tt := range []struct{ env, want, err string }{
		{env: "A=1", want: "A=1"},
		{env: "A=", want: "A="},
		{env: "A=b=c-", want: "A=b=c-"},
		{env: "A-", want: "A-"},
		{env: "A", err: `--env "A" is not one of NAME=VALUE, NAME@secret/SECRET/KEY, NAME@configmap/CONFIGMAP/KEY and NAME-`},
		{env: "-", err: `--env "-": `},
		{env: "=1", err: `--env "=1": `},
	} {
		c, err := forks.ParseEnv(tt.env)
		if !strings.HasPrefix(message(err), tt.err) || (err == nil) != (tt.err == "") || err == nil && c.String() != tt.want {
			t.Errorf("env %q: got %q, %v", tt.env, c, err)
		}
	}
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func container(w *plan.Workload) string {
	list, _, _ := unstructured.NestedSlice(w.Object.Object, "spec", "template", "spec", "containers")
	return list[0].(map[string]any)["name"].(string)
}

// A forkInput is what the files of a case hold.
type forkInput struct {
	workloads []*plan.Workload
	state     *forks.State
}

func read(t *testing.T, files ...string) forkInput {
	in := forkInput{state: &forks.State{Namespace: "shop", User: "jane"}}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join("testdata", "fork", f+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		d := utilyaml.NewYAMLOrJSONDecoder(bytes.NewReader(b), 4096)
		for {
			u := &unstructured.Unstructured{}
			if err := d.Decode(u); err != nil {
				break
			}
			switch {
			case u.GetKind() == "Service":
				in.state.Services = append(in.state.Services, convert[corev1.Service](u))
			case u.GetKind() == "ConfigMap":
				in.state.Sandbox = ptr(convert[corev1.ConfigMap](u))
			case u.GetLabels()[sandbox.LabelRole] == sandbox.RoleFork:
				in.state.Forks = append(in.state.Forks, *u)
			default:
				gvk := u.GroupVersionKind()
				in.workloads = append(in.workloads, &plan.Workload{Object: u, Resource: schema.GroupResource{Group: gvk.Group, Resource: strings.ToLower(gvk.Kind) + "s"}})
			}
		}
	}
	return in
}

func convert[T any](u *unstructured.Unstructured) T {
	var out T
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &out); err != nil {
		panic(err)
	}
	return out
}

// show writes a plan, or the problem there is instead, for people to read.
func show(t *testing.T, p *forks.Plan, err error) string {
	var b strings.Builder
	if err != nil {
		var problem *plan.Problem
		if !errors.As(err, &problem) {
			t.Fatalf("%v is not a Problem", err)
		}
		fmt.Fprintf(&b, "error: %s\n", problem.What)
		for _, line := range problem.Lines {
			fmt.Fprintf(&b, "  %s\n", line)
		}
		fmt.Fprintf(&b, "hint: %s: %s\n", problem.Hint, plan.Quote(problem.Fix))
		return b.String()
	}
	for _, w := range p.Warnings {
		fmt.Fprintf(&b, "# Warning: %s\n", w)
	}
	for _, w := range p.Unrouted {
		fmt.Fprintf(&b, "# %s is routed first\n", w)
	}
	fmt.Fprintf(&b, "# renewal: %s\n", p.Renewal())
	fmt.Fprintf(&b, "%s", asYAML(t, p.ConfigMap))
	for _, f := range p.Forks {
		fmt.Fprintf(&b, "---\n# of %s, gated: %t, replaces: %d, reach: %v\n%s", f.Workload, f.Gated, f.Replaces, f.Reach, asYAML(t, f.Deployment.Object))
	}
	return b.String()
}

func asYAML(t *testing.T, v any) string {
	b, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant, from %s,\n%s", got, path, want)
	}
}

// Every golden file is of a case.
func TestForks_GoldenFilesAreUsed(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "fork", "*.golden"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".golden")
		if !slices.ContainsFunc(forkCases, func(c forkCase) bool { return c.name == name }) {
			t.Errorf("%s is of no case", f)
		}
	}
}
