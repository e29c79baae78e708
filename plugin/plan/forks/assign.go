package forks

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
)

// defaultContainer is the annotation by which kubectl chooses the main container of a pod.
const defaultContainer = "kubectl.kubernetes.io/default-container"

// A containerAt is a container of a workload, by name.
type containerAt struct {
	workload    *plan.Workload
	name, image string
	init        bool
}

// assign returns the image changes of each workload, or a *Problem if a flag is for none of them, or for several.
func (r *request) assign() (map[*plan.Workload][]ImageChange, error) {
	if err := r.checkKeptLabels(); err != nil {
		return nil, err
	}
	return assignImages(r.Options, r.workloads)
}

// checkKeptLabels returns a *Problem if a label to keep is on no workload, or a label to drop was kept by no fork.
func (r *request) checkKeptLabels() error {
	for i, c := range r.KeepLabels {
		has := func(w *plan.Workload) bool { _, ok := w.PodLabels()[c.Name]; return ok }
		if c.Remove || slices.ContainsFunc(r.workloads, has) {
			continue
		}
		var names, have []string
		for _, w := range r.workloads {
			names = append(names, w.String())
			for name := range w.PodLabels() {
				if fork.Keeps(name) && !slices.Contains(have, name) {
					have = append(have, name)
				}
			}
		}
		slices.Sort(have)
		again := *r.Options
		again.KeepLabels = slices.Delete(slices.Clone(r.KeepLabels), i, i+1)
		what := fmt.Sprintf("--keep-label %s: the pods of %s have no such label", c.Name, strings.Join(names, ", "))
		if len(have) > 0 {
			what += "; there is " + strings.Join(have, ", ")
		}
		return propose(&plan.Problem{What: what}, "fork without it", &again, r.workloads...)
	}
	return nil
}

// assignImages assigns image changes to workloads. CONTAINER=IMAGE goes to the one workload that has the container. A
// plain IMAGE goes to the only container, else to kubectl's default container, else to the only container that runs
// the same repository now.
func assignImages(o *Options, workloads []*plan.Workload) (map[*plan.Workload][]ImageChange, error) {
	var all []containerAt
	for _, w := range workloads {
		all = append(all, containersOf(w)...)
	}
	assigned := map[*plan.Workload][]ImageChange{}
	for i, change := range o.Images {
		var fits []containerAt
		if change.Container == "" {
			fits = plainImage(change.Image, all, workloads)
			if len(o.Containers) == 1 {
				fits = matching(all, func(c containerAt) bool { return c.name == o.Containers[0] })
			}
		} else {
			fits = matching(all, func(c containerAt) bool { return c.name == change.Container })
		}
		if len(fits) == 1 {
			c := fits[0]
			if slices.ContainsFunc(assigned[c.workload], func(a ImageChange) bool { return a.Container == c.name }) {
				return nil, &plan.Problem{
					What: fmt.Sprintf("--image %s: container %q of %s is given two images", change, c.name, c.workload),
					Fix:  plan.Kubectl("sandbox", "fork", "--help"),
				}
			}
			assigned[c.workload] = append(assigned[c.workload], ImageChange{c.name, change.Image})
			continue
		}
		return nil, imageProblem(o, i, workloads, all, fits)
	}
	return assigned, nil
}

func plainImage(image string, all []containerAt, workloads []*plan.Workload) []containerAt {
	apps := matching(all, func(c containerAt) bool { return !c.init })
	if len(apps) == 1 {
		return apps
	}
	if len(workloads) == 1 {
		name, _, _ := unstructured.NestedString(workloads[0].Template(), "metadata", "annotations", defaultContainer)
		if main := matching(apps, func(c containerAt) bool { return c.name == name }); len(main) == 1 {
			return main
		}
	}
	return matching(apps, func(c containerAt) bool { return plan.Repository(c.image) == plan.Repository(image) })
}

// imageProblem explains why an --image fits no container, or several, and proposes the command that names one.
func imageProblem(o *Options, i int, workloads []*plan.Workload, all, fits []containerAt) *plan.Problem {
	change := o.Images[i]
	var have []string
	for _, c := range all {
		if len(workloads) == 1 {
			have = append(have, c.name)
		} else {
			have = append(have, c.workload.Arg()+" "+c.name)
		}
	}
	p := &plan.Problem{}
	again := *o
	again.Images = slices.Clone(o.Images)
	if len(all) > 0 {
		again.Images[i].Container = all[0].name
		if near := closest(change.Container, all); near != "" {
			again.Images[i].Container = near
		}
	}
	p = propose(p, "name the container", &again, workloads...)
	if _, err := assignImages(&again, workloads); err != nil {
		// Every other one has an image already, or several have the name.
		p.Hint, p.Fix, p.Proposed = "see how to name one", plan.Kubectl("sandbox", "fork", "--help"), nil
	}
	switch {
	case change.Container != "" && len(fits) == 0:
		p.What = fmt.Sprintf("--image %s: no container is named %q; there is %s",
			change, change.Container, strings.Join(have, ", "))
	case change.Container != "":
		var in []string
		for _, c := range fits {
			in = append(in, c.workload.String())
		}
		one := *o
		one.Images = []ImageChange{change}
		p.What = fmt.Sprintf("--image %s: %s each have a container %q", change, strings.Join(in, ", "), change.Container)
		p = propose(p, "fork them one after the other into the same sandbox", &one, fits[0].workload)
	default:
		p.What = fmt.Sprintf("--image %s does not say which container: there is %s", change, strings.Join(have, ", "))
	}
	return p
}

// closest returns the container name that a mistyped name most likely means: one with the same beginning or end.
func closest(name string, all []containerAt) string {
	for _, c := range all {
		if name != "" && (strings.HasPrefix(c.name, name) || strings.HasPrefix(name, c.name)) {
			return c.name
		}
	}
	return ""
}

func containersOf(w *plan.Workload) []containerAt { return containersIn(w, w.Template()) }

func containersIn(w *plan.Workload, template map[string]any) []containerAt {
	var out []containerAt
	for _, field := range []string{"containers", "initContainers"} {
		for _, c := range namedMaps(template, field) {
			name, _ := c["name"].(string)
			image, _ := c["image"].(string)
			out = append(out, containerAt{w, name, image, field == "initContainers"})
		}
	}
	return out
}

func matching(all []containerAt, ok func(containerAt) bool) []containerAt {
	return slices.DeleteFunc(slices.Clone(all), func(c containerAt) bool { return !ok(c) })
}
