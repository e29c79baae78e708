package forks_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A podChange changes a pod template as people do, whatever else is in it. It tells apart what it changes.
type podChange struct {
	place string
	do    func(spec map[string]any)
}

// byName returns a container of a pod spec; nil: there is none of that name.
func byName(spec map[string]any, name string) map[string]any {
	list, _ := spec["containers"].([]any)
	for _, c := range list {
		if m := c.(map[string]any); m["name"] == name {
			return m
		}
	}
	return nil
}

// aChange draws a change of the template whose container is called name.
func aChange(t *rapid.T, name, by string) podChange {
	n := rapid.IntRange(0, 3).Draw(t, by+"'s number")
	env := fmt.Sprintf("V%d", n)
	value := by + fmt.Sprint(n)
	variable := func(spec map[string]any, change func([]any, int) []any) {
		c := byName(spec, name)
		list, _ := c["env"].([]any)
		if list = change(list, slices.IndexFunc(list, func(e any) bool { return e.(map[string]any)["name"] == env })); list != nil {
			c["env"] = list
		}
	}
	element := map[string]any{"name": env, "value": value}
	return rapid.SampledFrom([]podChange{
		{"image", func(s map[string]any) { byName(s, name)["image"] = value }},
		{"env " + env, func(s map[string]any) {
			variable(s, func(l []any, i int) []any {
				if i >= 0 {
					l[i] = element
					return l
				}
				return append(l, element)
			})
		}},
		{"env " + env, func(s map[string]any) {
			variable(s, func(l []any, i int) []any {
				if i >= 0 {
					return slices.Delete(l, i, i+1)
				}
				return l
			})
		}},
		{"args", func(s map[string]any) { byName(s, name)["args"] = []any{"--by", value} }},
		{"resources", func(s map[string]any) {
			byName(s, name)["resources"] = map[string]any{"limits": map[string]any{"cpu": fmt.Sprint(n + 1)}}
		}},
		{"sidecar", func(s map[string]any) {
			list := s["containers"].([]any)
			if byName(s, "side") == nil {
				s["containers"] = slices.Insert(list, n%(len(list)+1), any(map[string]any{"name": "side", "image": "side:1"}))
			}
		}},
		{"tolerations", func(s map[string]any) { s["tolerations"] = []any{map[string]any{"key": value}} }},
		{"serviceAccountName", func(s map[string]any) { s["serviceAccountName"] = value }},
		{"nodeSelector", func(s map[string]any) { s["nodeSelector"] = map[string]any{"by": value} }},
	}).Draw(t, by+"'s change")
}

// template changes the pod spec of an object.
func template(u *unstructured.Unstructured, changes []podChange) *unstructured.Unstructured {
	u = u.DeepCopy()
	spec, _, _ := unstructured.NestedMap(u.Object, "spec", "template", "spec")
	for _, c := range changes {
		c.do(spec)
	}
	if err := unstructured.SetNestedMap(u.Object, spec, "spec", "template", "spec"); err != nil {
		panic(err)
	}
	return u
}

func podSpec(u *unstructured.Unstructured) map[string]any {
	spec, _, _ := unstructured.NestedMap(u.Object, "spec", "template", "spec")
	return spec
}

// Of random baselines and changes: a fork rebased onto a changed baseline is the changed baseline with the fork's change, where the
// two change different things, and no conflict is said to be; whatever they change, the patch on the fork says just what the fork
// differs in, and what was rebased is not behind and stays as it is.
func TestRebase_ForkRebaseAndDiffAgree(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		in := read(t, rapid.SampledFrom([]string{"deployment", "statefulset", "worker"}).Draw(rt, "workload"))
		w := in.workloads[0]
		name := container(w)
		before := w.Object.DeepCopy()
		var mine, theirs []podChange
		for range rapid.IntRange(0, 3).Draw(rt, "changes of the fork") {
			mine = append(mine, aChange(rt, name, "fork"))
		}
		for range rapid.IntRange(0, 3).Draw(rt, "changes of the baseline") {
			theirs = append(theirs, aChange(rt, name, "baseline"))
		}
		patch, err := fork.Diff(w.Template(), (&plan.Workload{Object: template(before, mine)}).Template())
		if err != nil {
			rt.Fatal(err)
		}
		made, err := fork.Deployment(before, fork.Options{
			Name: "x-pr-42", Sandbox: "pr-42", Key: "k", WhenUnready: sandbox.WhenUnreadyError, Replicas: 2, Patch: patch,
			Follow: rapid.Bool().Draw(rt, "follows"),
		})
		if err != nil {
			rt.Fatal(err)
		}
		o := options()
		first, err := forks.New(&o, in.workloads, in.state)
		if err != nil {
			rt.Fatal(err)
		}
		in.state.Sandbox = first.ConfigMap.DeepCopy()
		in.state.Sandbox.UID, in.state.Sandbox.Data[sandbox.DataKey] = "33333333-3333-3333-3333-333333333333", "k"
		in.state.Forks = []unstructured.Unstructured{*made}

		w.Object = template(before, theirs)
		o.Now = o.Now.Add(time.Hour)
		p, err := forks.Rebase(&o, in.workloads, in.state)
		apart := !slices.ContainsFunc(mine, func(a podChange) bool {
			return slices.ContainsFunc(theirs, func(b podChange) bool { return a.place == b.place })
		})
		if err != nil {
			var conflict *fork.ConflictError
			if !errors.As(err, &conflict) || apart {
				rt.Fatalf("%s on a baseline with other changes: %v", patch, err)
			}
			return
		}
		got := p.Forks[0].Deployment
		if want := template(w.Object, mine); apart && !reflect.DeepEqual(sortedEnv(got), sortedEnv(forkOf(rt, want))) {
			rt.Fatalf("%s\nrebased it is\n%v\nwant\n%v", patch, podSpec(got), podSpec(want))
		}
		// What the fork differs in is what its patch says.
		laid, err := fork.Template(w.Object, "", []byte(got.GetAnnotations()[sandbox.AnnotationPatch]))
		if err != nil {
			rt.Fatal(err)
		}
		if again, err := fork.Diff(w.Template(), laid); err != nil || string(again) != got.GetAnnotations()[sandbox.AnnotationPatch] {
			rt.Fatalf("its patch is %s, and the difference %s, %v", got.GetAnnotations()[sandbox.AnnotationPatch], again, err)
		}
		if behind, err := fork.Behind(got, w.Object); err != nil || behind {
			rt.Fatalf("rebased, it is behind: %t, %v", behind, err)
		}
		was, err := fork.Behind(made, w.Object)
		if err != nil || was != p.Forks[0].Rebased || !was && !reflect.DeepEqual(podSpec(got), podSpec(made)) {
			rt.Fatalf("it was behind: %t, is rebased: %t, %v", was, p.Forks[0].Rebased, err)
		}
		in.state.Forks = []unstructured.Unstructured{*got}
		second, err := forks.Rebase(&o, in.workloads, in.state)
		if err != nil || asYAML(t, second.Forks[0].Deployment.Object) != asYAML(t, got.Object) || second.Forks[0].Rebased {
			rt.Fatalf("rebased again it is another: %v", err)
		}
		// The controller comes to the same.
		theirsToo, err := fork.OptionsOf(made)
		if err != nil {
			rt.Fatal(err)
		}
		theirsToo.OwnerUID = string(in.state.Sandbox.UID)
		if followed, err := fork.Rebase(w.Object, theirsToo); err != nil || asYAML(t, followed.Object) != asYAML(t, got.Object) {
			rt.Fatalf("followed it is another: %v", err)
		}
		// Nothing but a fork renews.
		if renewal := string(p.Renewal()); strings.Contains(renewal, sandbox.DataExpires) || !p.Expires.Equal(first.Expires) {
			rt.Fatalf("rebase renews: %s, %s", renewal, p.Expires)
		}
	})
}

// forkOf makes a fork without a change.
func forkOf(t *rapid.T, baseline *unstructured.Unstructured) *unstructured.Unstructured {
	d, err := fork.Deployment(baseline, fork.Options{Name: "x", Sandbox: "pr-42", Key: "k"})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// sortedEnv returns the pod spec with variables, and containers, in the order of their names: where several were added, by a fork and
// its baseline, either order is right.
func sortedEnv(d *unstructured.Unstructured) map[string]any {
	spec := podSpec(d)
	byName := func(a, b any) int {
		return strings.Compare(a.(map[string]any)["name"].(string), b.(map[string]any)["name"].(string))
	}
	list := spec["containers"].([]any)
	slices.SortFunc(list, byName)
	for _, c := range list {
		if env, ok := c.(map[string]any)["env"].([]any); ok {
			slices.SortFunc(env, byName)
		}
	}
	return spec
}

// What a client's dry run prints is what is applied, but for the owner's uid, the generated key and the expiry.
func TestForks_DryRunIsWhatIsApplied(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		in := read(t, rapid.SampledFrom([]string{"deployment", "statefulset", "worker", "rollout"}).Draw(rt, "workload"))
		in.workloads[0].Object = template(in.workloads[0].Object, []podChange{aChange(rt, container(in.workloads[0]), "baseline")})
		o := options()
		o.Follow = ptr(rapid.Bool().Draw(rt, "follow"))
		o.Env = variables("A=1")
		dry, err := forks.New(&o, in.workloads, in.state)
		if err != nil {
			rt.Fatal(err)
		}
		o.NewKey, o.Now = "another", o.Now.Add(time.Minute)
		real, err := forks.New(&o, in.workloads, in.state)
		if err != nil {
			rt.Fatal(err)
		}
		alike := func(p *forks.Plan) string {
			cm, d := p.ConfigMap.DeepCopy(), p.Forks[0].Deployment.DeepCopy()
			cm.UID = types.UID("")
			delete(cm.Data, sandbox.DataExpires)
			return strings.ReplaceAll(asYAML(t, cm)+asYAML(t, d.Object), p.Key, "KEY")
		}
		if a, b := alike(dry), alike(real); a != b {
			rt.Fatalf("the dry run prints\n%s\nand applied is\n%s", a, b)
		}
	})
}

func TestRebase_Problems(t *testing.T) {
	in := read(t, "deployment", "sandbox")
	o := options()
	in.state.Forks[0].SetAnnotations(map[string]string{
		sandbox.AnnotationPatch: `[{"op":"test","path":"/spec/containers/0/name","value":"gone"},{"op":"replace","path":"/spec/containers/0/image","value":"x"}]`,
	})
	p, err := forks.Rebase(&o, in.workloads, in.state)
	if got, want := show(t, p, err), "error: the change of deployment.apps/api-pr-42 no longer fits deployment.apps/api, which changed since; nothing was written\n"+
		"  spec.containers[gone] is gone\nhint: delete it, then fork again: kubectl sandbox delete pr-42\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	other := read(t, "worker")
	p, err = forks.Rebase(&o, other.workloads, in.state)
	if got := show(t, p, err); !strings.HasPrefix(got, `error: sandbox "pr-42" has no fork of `) {
		t.Errorf("got %s", got)
	}
	in.state.Sandbox = nil
	p, err = forks.Rebase(&o, in.workloads, in.state)
	if got := show(t, p, err); !strings.HasPrefix(got, `error: there is no sandbox "pr-42"`) {
		t.Errorf("got %s", got)
	}
}
