package forks

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A selectingObject is an object that claims pods of the namespace by their labels.
type selectingObject struct {
	object   string // as kubectl names it
	selector labels.Selector
	would    string                            // what it would do to a fork's pods
	exclude  func() (say string, fix []string) // makes it exclude the pods of sandboxes; nil: it can't
}

// unknownValue stands for the value of a label that the fork's pods will have and that is not known yet. No selector
// can name it.
const unknownValue = "?"

// forkLabels returns the labels that the fork's pods will have.
func forkLabels(d *unstructured.Unstructured) labels.Set {
	l, _, _ := unstructured.NestedStringMap(d.Object, "spec", "template", "metadata", "labels")
	set := labels.Set{"pod-template-hash": unknownValue} // from the Deployment controller
	maps.Copy(set, l)
	return set
}

// selectingObjects returns the objects that select pods of the namespace by label and must not select a fork.
func selectingObjects(workloads []*plan.Workload, state *State) []selectingObject {
	var all []selectingObject
	for i := range state.Services {
		if s := &state.Services[i]; len(s.Spec.Selector) > 0 { // without one, its endpoints are written by others
			all = append(all, selectingObject{
				object: "service/" + s.Name, selector: labels.SelectorFromSet(s.Spec.Selector),
				would: "would send requests to them that are the baseline's",
				exclude: func() (string, []string) {
					return "have it select baselines alone", mergeSpec("service/"+s.Name, "selector",
						map[string]string{sandbox.LabelRole: sandbox.RoleBaseline})
				},
			})
		}
	}
	objects := &state.Objects
	scalers := map[string]string{}
	for i := range objects.Autoscalers {
		h := &objects.Autoscalers[i]
		key := plan.ScaledKey(h.Spec.ScaleTargetRef)
		scalers[key] = h.Name
		if s, err := labels.Parse(objects.Scaled[key]); err == nil && !s.Empty() {
			all = append(all, selectingObject{object: key, selector: s, would: "would take them for its own"})
		}
	}
	for _, w := range distinct(slices.Concat(workloads, objects.Workloads)) {
		if s, ok := selectorAt(w.Object, "spec", "selector"); ok {
			all = append(all, selectingObject{object: w.String(), selector: s, would: "would take them for its own"})
		}
	}
	for i := range all {
		if h := scalers[all[i].object]; h != "" {
			all[i].would += ", and horizontalpodautoscaler/" + h + " would measure them with it"
		}
	}
	for i := range objects.Budgets {
		b := &objects.Budgets[i]
		if s, err := metav1.LabelSelectorAsSelector(b.Spec.Selector); err == nil {
			all = append(all, selectingObject{
				object: "poddisruptionbudget.policy/" + b.Name, selector: s,
				would: "would count them as the baseline's",
				exclude: func() (string, []string) {
					selector := map[string]any{"matchExpressions": append(slices.Clone(b.Spec.Selector.MatchExpressions), noSandbox())}
					return "have it leave out the pods of sandboxes", mergeSpec("poddisruptionbudget/"+b.Name, "selector", selector)
				},
			})
		}
	}
	return all
}

// unkept returns the labels of a fork's pods without those that it keeps from the baseline.
func unkept(pods labels.Set) labels.Set {
	own := maps.Clone(pods)
	maps.DeleteFunc(own, func(name, value string) bool {
		return !strings.HasPrefix(name, sandbox.Prefix) && value != unknownValue
	})
	return own
}

// noSandbox returns the requirement that a selector needs to exclude the pods of sandboxes.
func noSandbox() metav1.LabelSelectorRequirement {
	return metav1.LabelSelectorRequirement{Key: sandbox.LabelSandbox, Operator: metav1.LabelSelectorOpDoesNotExist}
}

// mergeSpec returns the command that merges value into the field of the object's spec.
func mergeSpec(object, field string, value any) []string {
	b, err := json.Marshal(map[string]any{"spec": map[string]any{field: value}})
	if err != nil {
		panic(err) // strings always encode
	}
	return plan.Kubectl("patch", object, "--type=merge", "--patch="+string(b))
}

// selectorAt reads a label selector. It is not ok if there is none, or none that this program understands.
func selectorAt(u *unstructured.Unstructured, fields ...string) (labels.Selector, bool) {
	m, ok, err := unstructured.NestedMap(u.Object, fields...)
	if !ok || err != nil {
		return nil, false
	}
	var decoded metav1.LabelSelector
	if runtime.DefaultUnstructuredConverter.FromUnstructured(m, &decoded) != nil {
		return nil, false
	}
	s, err := metav1.LabelSelectorAsSelector(&decoded)
	return s, err == nil && !s.Empty()
}

// checkSelectors returns a *Problem if an object of the namespace would select the fork's pods: every selector that the
// baseline relies on would then select them too.
func (r *request) checkSelectors(f *Fork) error {
	all := selectingObjects(r.workloads, r.state)
	pods, baseline := forkLabels(f.Deployment), f.Workload.PodLabels()
	selectedBy := func(pods labels.Set) (by []selectingObject) {
		for _, c := range all {
			if c.selector.Matches(pods) {
				by = append(by, c)
			}
		}
		return by
	}
	by := selectedBy(pods)
	if len(by) == 0 {
		return nil
	}
	first := by[0]
	problem := &plan.Problem{
		What: fmt.Sprintf("%s selects the pods of the fork, deployment.apps/%s, and %s", first.object, f.Name(), first.would),
	}
	if len(by) > 1 {
		var others []string
		for _, c := range by[1:] {
			others = append(others, c.object)
		}
		problem.What += "; so do " + strings.Join(others, ", ")
	}
	again := *r.Options
	if blamed := blame(first.selector, pods); !first.selector.Matches(unkept(pods)) && len(blamed) > 0 {
		problem.What = "--keep-label " + strings.Join(blamed, ", ") + ": with it, " + problem.What
		again.KeepLabels = dropped(r.KeepLabels, blamed, f.Replaces != 0)
		return propose(problem, "fork without it", &again, r.workloads...)
	}
	if first.exclude != nil {
		problem.Hint, problem.Fix = first.exclude()
		return problem
	}
	for _, name := range slices.Sorted(maps.Keys(baseline)) {
		with := maps.Clone(pods)
		with[name] = baseline[name]
		if _, has := pods[name]; !has && fork.Keeps(name) && len(selectedBy(with)) == 0 {
			again.KeepLabels = append(slices.Clone(r.KeepLabels), LabelChange{Name: name})
			return propose(problem, "with the label "+name+" kept, it does not", &again, r.workloads...)
		}
	}
	problem.What += "; a selector can't be changed, so " + first.object +
		" has to be recreated with one that requires a label of its own"
	problem.Hint, problem.Fix = "see it", plan.Kubectl("get", first.object, "-o", "yaml")
	return problem
}

// blame returns the labels kept from the baseline that make a selector select the fork.
func blame(s labels.Selector, pods labels.Set) (names []string) {
	var kept []string
	for name, value := range pods {
		if strings.HasPrefix(name, sandbox.Prefix) || value == unknownValue {
			continue
		}
		kept = append(kept, name)
		without := maps.Clone(pods)
		delete(without, name)
		if !s.Matches(without) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		names = kept // one of several suffices
	}
	slices.Sort(names)
	return names
}

// dropped returns the changes without the names. Labels that an earlier fork kept are dropped explicitly.
func dropped(changes []LabelChange, names []string, earlier bool) []LabelChange {
	left := slices.DeleteFunc(slices.Clone(changes), func(c LabelChange) bool { return slices.Contains(names, c.Name) })
	if !earlier {
		return left
	}
	for _, name := range names {
		left = append(left, LabelChange{Name: name, Remove: true})
	}
	return left
}

// checkConflicts returns the *Problem of forks whose changes no longer fit their baselines. Nothing was written.
func (r *request) checkConflicts(conflicts []*conflict) error {
	if len(conflicts) == 0 {
		return nil
	}
	p := &plan.Problem{
		Hint: "delete it, then fork again", Fix: plan.Kubectl("sandbox", "delete", r.Sandbox), Err: conflicts[0].err,
	}
	if len(conflicts) == 1 {
		c := conflicts[0]
		p.What = fmt.Sprintf("the change of %s no longer fits %s, which changed since; nothing was written",
			c.fork, c.workload)
		p.Lines = c.lines()
		return p
	}
	p.What = fmt.Sprintf("the changes of %d forks of sandbox %q no longer fit their baselines, which changed since; "+
		"nothing was written", len(conflicts), r.Sandbox)
	for _, c := range conflicts {
		for _, line := range c.lines() {
			p.Lines = append(p.Lines, fmt.Sprintf("%s of %s: %s", c.fork, c.workload, line))
		}
	}
	return p
}

// checkContainers returns the Problem of a --container that none of the forks has; nil if there is none.
func (r *request) checkContainers(forks []Fork) error {
	var all []containerAt
	for i := range forks {
		template, _, _ := unstructured.NestedMap(forks[i].Deployment.Object, "spec", "template")
		all = append(all, containersIn(forks[i].Workload, template)...)
	}
	for i, name := range r.Containers {
		if slices.ContainsFunc(all, func(c containerAt) bool { return c.name == name }) {
			continue
		}
		var have []string
		for _, c := range all {
			have = append(have, c.name)
		}
		again := *r.Options
		again.Containers = slices.Clone(r.Containers)
		if again.Containers[i] = closest(name, all); again.Containers[i] == "" && len(have) > 0 {
			again.Containers[i] = have[0]
		}
		p := &plan.Problem{
			What: fmt.Sprintf("--container %s: no container is named %q; there is %s", name, name, strings.Join(have, ", ")),
		}
		return propose(p, "name one there is", &again, r.workloads...)
	}
	return nil
}
