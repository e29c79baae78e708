package forks

import (
	"fmt"

	"github.com/rogpeppe/go-internal/diff"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
)

// A Diff is the difference between a fork and its current baseline.
type Diff struct {
	Fork, Baseline string // as kubectl prints them
	Patch          []byte // RFC 6902, of the pod template; "[]" where there is no difference
	Unified        string // the same as a unified diff of YAML; empty where there is no difference
	Behind         bool   // the baseline has changed since the fork was created or rebased
}

// Diffs returns the differences of the workloads' forks in a sandbox. Every error is a *Problem.
func Diffs(name string, workloads []*plan.Workload, forks []unstructured.Unstructured) ([]Diff, error) {
	diffs := make([]Diff, 0, len(workloads))
	for _, w := range workloads {
		d := plan.ForkOf(w, name, forks)
		if d == nil {
			return nil, noFork(name, w.String())
		}
		o, err := fork.OptionsOf(d)
		if err != nil {
			return nil, &plan.Problem{What: err.Error(), Err: err}
		}
		template, err := fork.PodTemplate(w.Object, o.TemplatePath)
		if err != nil {
			return nil, &plan.Problem{What: err.Error(), Err: err}
		}
		changed, err := fork.Template(w.Object, o.TemplatePath, o.Patch)
		if err != nil {
			return nil, &plan.Problem{
				What: fmt.Sprintf("the change of %s no longer fits %s: %v", plan.DeploymentName(d.GetName()), w, err),
				Hint: "show the change", Fix: plan.Kubectl("get", plan.DeploymentName(d.GetName()), "-o", "yaml"), Err: err,
			}
		}
		one := Diff{Fork: plan.DeploymentName(d.GetName()), Baseline: w.String()}
		if one.Patch, err = fork.Diff(template, changed); err != nil {
			return nil, err
		}
		if one.Unified, err = unified(one.Baseline, template, one.Fork, changed); err != nil {
			return nil, err
		}
		one.Behind, _ = fork.Behind(d, w.Object) // what can't be compared is not known to be behind
		diffs = append(diffs, one)
	}
	return diffs, nil
}

func unified(oldName string, old map[string]any, newName string, changed map[string]any) (string, error) {
	a, err := yaml.Marshal(old)
	if err != nil {
		return "", err
	}
	b, err := yaml.Marshal(changed)
	if err != nil {
		return "", err
	}
	return string(diff.Diff(oldName, a, newName, b)), nil
}
