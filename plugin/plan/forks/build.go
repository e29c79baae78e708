package forks

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// build returns the fork whose pods are of the template: its patch is the difference from the baseline's.
func (r *request) build(b *beginning, template map[string]any) (*Fork, error) {
	w, options := b.workload, b.options
	baseline, err := fork.PodTemplate(w.Object, options.TemplatePath)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", w, err)
	}
	if options.Patch, err = fork.Diff(baseline, template); err != nil {
		return nil, fmt.Errorf("%s: %w", w, err)
	}
	options.EnvFrom = envFrom(template, options.EnvFrom, r.state.EnvFrom)
	f := &Fork{Workload: w, Reach: plan.Endpoints(w, r.state.Services), KeptForAdmission: b.keptForAdmission}
	if f.Deployment, err = fork.Deployment(w.Object, options); err != nil {
		return nil, fmt.Errorf("%s: %w", w, err)
	}
	if b.old != nil {
		f.Replaces, f.Force = b.old.GetGeneration(), r.Force
	}
	f.Gated, f.Rebased = gated(f.Deployment), r.Rebase && b.behind()
	return f, nil
}

// behind reports whether the existing fork lacks later changes of its baseline. It compares without the new options: a
// label that is kept from now on does not make the baseline newer.
func (b *beginning) behind() bool {
	if b.old == nil {
		return false
	}
	behind, err := fork.Behind(b.old, b.workload.Object)
	return behind || err != nil
}

// gated reports whether admission gives the fork's pods the readiness gate: it does if the baseline has captured
// ports.
func gated(d *unstructured.Unstructured) bool {
	ports, _, _ := unstructured.NestedString(d.Object, "spec", "template", "metadata", "annotations",
		sandbox.AnnotationPorts)
	return ports != ""
}
