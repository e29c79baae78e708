package routes_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"pgregory.net/rapid"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
)

// What `fork --route --dry-run` says is what the command does: the same refusal, or the same fork. The command is carried out step by
// step on a simulated namespace, whose patches are those of the API server's library, and planned anew there.
func TestForksRouted_SaysWhatTheCommandDoes(t *testing.T) {
	var forked, refused int
	rapid.Check(t, func(t *rapid.T) {
		w := drawOddWorld(t)
		names := slices.Sorted(maps.Keys(w.workloads))
		name := rapid.SampledFrom(names).Draw(t, "workload")
		o := drawForkOptions(t)

		said, saidErr := w.dryFork(&o, name)
		done, doneErr := w.realFork(t, &o, name)
		if a, b := outcome(said, saidErr), outcome(done, doneErr); a != b {
			t.Fatalf("the dry run says\n%s\nand the command does\n%s", a, b)
		}
		if doneErr != nil {
			refused++
		} else {
			forked++
		}
	})
	t.Logf("forked %d, refused %d", forked, refused)
	if forked == 0 || refused == 0 {
		t.Error("the generator has become one-sided")
	}
}

// A command that a refusal proposes works: it is not refused itself, and once it was run the same refusal does not come again.
func TestRefusals_ProposeCommandsThatWork(t *testing.T) {
	followed := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		w := drawOddWorld(t)
		names := slices.Sorted(maps.Keys(w.workloads))
		name := rapid.SampledFrom(names).Draw(t, "workload")
		o := drawForkOptions(t)
		o.Route = rapid.Bool().Draw(t, "route")
		var last *plan.Problem
		for range 12 { // so many things can be wrong with one workload
			_, err := w.dryFork(&o, name)
			var p *plan.Problem
			switch {
			case err == nil:
				return
			case !errors.As(err, &p):
				t.Fatal(err)
			case last != nil && last.What == p.What:
				t.Fatalf("the refusal\n%s\ncomes again after\n%s", p.What, plan.Quote(last.Fix))
			}
			verb := w.follow(t, p, &o, &name)
			followed[verb]++
			if verb == "look" {
				return // what is to be changed only a person can tell
			}
			last = p
		}
		t.Fatal("one refusal leads to the next, and none to an end")
	})
	t.Log(followed)
	followed["patch"] += followed["resume"] // either, of the few workloads that hold their rollouts back
	for _, verb := range []string{"route", "fork", "patch", "look"} {
		if followed[verb] == 0 {
			t.Errorf("no refusal proposed to %s: the generator has become one-sided", verb)
		}
	}
}

// drawOddWorld is drawWorld with workloads that can't be routed, or not as they are.
func drawOddWorld(t *rapid.T) *world {
	w := drawWorld(t)
	for _, name := range slices.Sorted(maps.Keys(w.workloads)) {
		o := w.workloads[name].Object.Object
		set := func(v any, path ...string) {
			if err := unstructured.SetNestedField(o, v, path...); err != nil {
				t.Fatal(err)
			}
		}
		stateful := w.workloads[name].Kind() == "StatefulSet"
		switch odd := rapid.IntRange(0, 9).Draw(t, "odd"); {
		case odd == 1 && !stateful:
			set(true, "spec", "paused")
		case odd == 1:
			set("OnDelete", "spec", "updateStrategy", "type")
		case odd == 2 && stateful:
			set(int64(1), "spec", "updateStrategy", "rollingUpdate", "partition")
		case odd == 3:
			set(true, "spec", "template", "spec", "hostNetwork")
		case odd == 4:
			w.workloads[name].Object.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "db.example.com/v1", Kind: "Database", Name: "db", UID: "db", Controller: new(true)}})
		case odd == 5 && len(w.services) > 0:
			for _, service := range slices.Sorted(maps.Keys(w.services)) {
				delete(w.services, service)
			}
		case odd == 6: // a Service that has its name and does not lead to it
			s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop"}, Spec: corev1.ServiceSpec{ClusterIP: "10.1.0.9", Ports: []corev1.ServicePort{{Port: 9, Protocol: "UDP"}}}}
			s.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}
			w.services[name] = s
		}
	}
	return w
}

func drawForkOptions(t *rapid.T) forks.Options {
	o := forks.Options{Sandbox: "pr-42", NewKey: "new-key", Route: true, Now: time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)}
	image := rapid.SampledFrom([]string{"app:2", "c0=app:2", "c9=app:2"}).Draw(t, "image")
	c, err := forks.ParseImage(image)
	if err != nil {
		t.Fatal(err)
	}
	o.Images = []forks.ImageChange{c}
	if rapid.IntRange(0, 4).Draw(t, "keep") == 0 {
		o.KeepLabels = []forks.LabelChange{{Name: rapid.SampledFrom([]string{"app", "tier", "nope"}).Draw(t, "label")}}
	}
	return o
}

// forkState is what a fork in the world is planned against.
func (w *world) forkState() *forks.State {
	s := &forks.State{Namespace: "shop", User: "jane"}
	s.Objects.Scaled = map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(w.workloads)) {
		s.Objects.Workloads = append(s.Objects.Workloads, w.workloads[name])
	}
	for _, name := range slices.Sorted(maps.Keys(w.services)) {
		s.Services = append(s.Services, *w.services[name])
	}
	for _, name := range slices.Sorted(maps.Keys(w.policies)) {
		s.Policies.Policies = append(s.Policies.Policies, *w.policies[name])
	}
	s.Policies.NamespaceLabels = map[string]string{"kubernetes.io/metadata.name": "shop"}
	return s
}

// dryFork does what the command does before it changes anything.
func (w *world) dryFork(o *forks.Options, name string) (*forks.Plan, error) {
	workloads := []*plan.Workload{w.workloads[name]}
	p, err := forks.New(o, workloads, w.forkState())
	if unrouted := forks.UnroutedOf(err); len(unrouted) > 0 {
		return nil, forks.UnroutedProblem(err, w.view(name))
	}
	if err != nil || len(p.Unrouted) == 0 {
		return p, err
	}
	p, _, _, err = forks.Routed(o, workloads, w.forkState(), w.view(name))
	return p, err
}

// realFork routes as the command does, and forks what is there then.
func (w *world) realFork(t *rapid.T, o *forks.Options, name string) (*forks.Plan, error) {
	p, err := forks.New(o, []*plan.Workload{w.workloads[name]}, w.forkState())
	if err != nil {
		return nil, err
	}
	if len(p.Unrouted) > 0 {
		if _, _, err := routes.Steps(w.view(name), routes.Route); err != nil {
			return nil, err
		}
		if err := w.run(t, routes.Route, -1, name); err != nil {
			t.Fatalf("refused after it had begun: %v", err)
		}
	}
	again := *o
	again.Route = false
	return forks.New(&again, []*plan.Workload{w.workloads[name]}, w.forkState())
}

// outcome is a plan or a refusal as text.
func outcome(p *forks.Plan, err error) string {
	var refused *plan.Problem
	if errors.As(err, &refused) {
		return "refused: " + refused.What
	}
	if err != nil {
		return err.Error()
	}
	var policies []string
	for _, f := range p.Forks {
		for _, policy := range f.Policies {
			policies = append(policies, asJSON(policy.Object()))
		}
	}
	return asJSON([]any{p.Key, p.ConfigMap, p.Warnings, p.Forks[0].Deployment, p.Forks[0].Reach, p.Forks[0].Inherits, policies})
}

// follow runs the command that a refusal proposes, and returns what it does: "look" where it changes nothing.
func (w *world) follow(t *rapid.T, p *plan.Problem, o *forks.Options, name *string) string {
	words := p.Fix
	if len(words) < 3 {
		return "look"
	}
	fail := func(why any) { t.Fatalf("%s\nproposes\n%s\nwhich fails: %v", p.What, plan.Quote(words), why) }
	at := func(arg string) *plan.Workload {
		_, name, _ := strings.Cut(arg, "/")
		if w.workloads[name] == nil || w.workloads[name].Arg() != arg {
			fail("no " + arg)
		}
		return w.workloads[name]
	}
	switch words[1] {
	case "sandbox":
		return w.followSandbox(t, words, o, name, fail)
	case "rollout":
		unstructured.RemoveNestedField(at(words[3]).Object.Object, "spec", "paused")
		return "resume"
	case "patch":
		var patch map[string]any
		if err := json.Unmarshal([]byte(words[len(words)-1]), &patch); err != nil {
			fail(err)
		}
		target := at(words[2])
		mergeJSON(target.Object.Object, patch)
		return "patch"
	case "expose":
		target := at(words[2])
		port, err := strconv.ParseInt(words[4], 10, 32)
		if err != nil {
			fail(err)
		}
		service := target.Name()
		for _, word := range words[5:] {
			service = strings.TrimPrefix(word, "--name=")
		}
		if w.services[service] != nil {
			fail("a Service has the name")
		}
		selector, _, _ := unstructured.NestedStringMap(target.Object.Object, "spec", "selector", "matchLabels")
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: service, Namespace: "shop"}, Spec: corev1.ServiceSpec{
			ClusterIP: "10.1.0.8", Selector: selector, Ports: []corev1.ServicePort{{Port: int32(port), Protocol: corev1.ProtocolTCP}},
		}}
		s.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}
		s.Spec.Ports[0].TargetPort.IntVal = int32(port)
		w.services[service] = s
		return "expose"
	case "get", "describe", "edit":
		return "look"
	}
	fail("nobody knows it")
	return ""
}

func (w *world) followSandbox(t *rapid.T, words []string, o *forks.Options, name *string, fail func(any)) string {
	var args []string
	again := forks.Options{NewKey: o.NewKey, Now: o.Now}
	for _, word := range words[3:] {
		flag, value, _ := strings.Cut(word, "=")
		switch flag {
		case "--name":
			again.Sandbox = value
		case "--image":
			c, err := forks.ParseImage(value)
			if err != nil {
				fail(err)
			}
			again.Images = append(again.Images, c)
		case "--keep-label":
			c, err := forks.ParseKeepLabel(value)
			if err != nil {
				fail(err)
			}
			again.KeepLabels = append(again.KeepLabels, c)
		case "--route":
			again.Route = true
		case "--help":
			return "look"
		default:
			if strings.HasPrefix(word, "-") {
				fail("unknown flag " + word)
			}
			_, target, _ := strings.Cut(word, "/")
			if w.workloads[target] == nil {
				fail("no " + word)
			}
			args = append(args, target)
		}
	}
	switch words[2] {
	case "route":
		if len(args) == 0 {
			return "look"
		}
		if _, _, err := routes.Steps(w.view(args...), routes.Route); err != nil {
			fail(err)
		}
		if err := w.run(t, routes.Route, -1, args...); err != nil {
			fail(err)
		}
	case "fork":
		if err := again.Validate(); err != nil {
			fail(err)
		}
		if _, err := w.dryFork(&again, args[0]); err != nil {
			var next *plan.Problem
			if !errors.As(err, &next) || sameFault(next, words) {
				fail(err)
			}
		}
		*o, *name = again, args[0]
	default:
		fail(fmt.Sprintf("nobody knows %q", words[2]))
	}
	return words[2]
}

// sameFault says that a refusal is about the flags of the command: those that it proposes must be right.
func sameFault(p *plan.Problem, words []string) bool {
	return strings.HasPrefix(p.What, "--") || slices.Equal(p.Fix, words)
}

func mergeJSON(into, patch map[string]any) {
	for k, v := range patch {
		below, ok := v.(map[string]any)
		old, isMap := into[k].(map[string]any)
		switch f := v.(type) {
		case nil:
			delete(into, k)
		case float64:
			into[k] = int64(f)
		default:
			if ok && isMap {
				mergeJSON(old, below)
			} else {
				into[k] = v
			}
		}
	}
}
