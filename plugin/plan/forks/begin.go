package forks

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A beginning is what a fork is planned from: its baseline, and what an existing fork was asked for before.
type beginning struct {
	workload *plan.Workload
	old      *unstructured.Unstructured // the existing fork; nil if there is none
	options  fork.Options               // those asked for before and now, without the change of the pod template
	template map[string]any             // the baseline's, with the changes asked for before
	// keptForAdmission are the labels that are kept because admission webhooks read them.
	keptForAdmission []string
}

// begin reads what there is of a fork, and applies the options that are not about its pod template. taken gets the name
// of a new one.
func (r *request) begin(p *Plan, w *plan.Workload, taken map[string]bool) (*beginning, warnings, error) {
	b := &beginning{workload: w, old: plan.ForkOf(w, r.Sandbox, r.state.Forks)}
	b.options = fork.Options{
		Sandbox: r.Sandbox, Key: p.Key, OwnerUID: p.Exists,
		Replicas: 1, WhenUnready: sandbox.WhenUnreadyError, TemplatePath: w.TemplatePath(),
	}
	if b.old == nil {
		b.options.Name = freeName(w, r.Sandbox, taken)
		taken[b.options.Name] = true
	} else {
		if err := p.checkOwned(b.old); err != nil {
			return nil, nil, err
		}
		was, err := fork.OptionsOf(b.old)
		if err != nil {
			return nil, nil, err
		}
		was.Key, was.OwnerUID, was.TemplatePath = b.options.Key, b.options.OwnerUID, b.options.TemplatePath
		b.options = was
	}
	said := r.setOptions(b)
	var err error
	if b.template, err = fork.Template(w.Object, b.options.TemplatePath, b.options.Patch); err != nil {
		return nil, nil, &conflict{plan.DeploymentName(b.options.Name), w, err}
	}
	return b, said, nil
}

// freeName returns a name for the fork's Deployment that is not taken.
func freeName(w *plan.Workload, name string, taken map[string]bool) string {
	if free := sandbox.ForkName(w.Label(), w.Name(), name); !taken[free] {
		return free
	}
	return sandbox.ForkNameHashed(w.Label(), w.Name(), name)
}

// setOptions applies the options that were given to those of the fork, and warns of labels that the fork can't keep.
func (r *request) setOptions(b *beginning) (said warnings) {
	options := &b.options
	options.KeepLabels = kept(options.KeepLabels, r.KeepLabels)
	options.DropLabels = droppedLabels(options.DropLabels, r.KeepLabels)
	b.keptForAdmission, said = r.keepLabels(b.workload, options)
	options.KeepLabels = slices.Sorted(slices.Values(slices.Concat(options.KeepLabels, b.keptForAdmission)))
	if r.Replicas != nil {
		options.Replicas = *r.Replicas
	}
	if r.WhenUnready != "" {
		options.WhenUnready = r.WhenUnready
	}
	if r.Follow != nil {
		options.Follow = *r.Follow
	}
	if r.Restart && b.old != nil {
		options.RestartedAt = r.Now.UTC().Format(time.RFC3339)
	}
	return said
}

// checkOwned returns a *Problem if the Deployment with the fork's labels can't be updated. This sandbox must own it;
// or, if it came from Git and was not adopted yet, it must hold the sandbox's key.
func (p *Plan) checkOwned(d *unstructured.Unstructured) error {
	name := plan.DeploymentName(d.GetName())
	if d.GetDeletionTimestamp() != nil {
		return &plan.Problem{
			What: fmt.Sprintf("%s of sandbox %q is being deleted", name, p.Sandbox),
			Hint: "wait until it is deleted, then fork again", Fix: plan.Kubectl("wait", "--for=delete", name),
		}
	}
	owners := d.GetOwnerReferences()
	for _, owner := range owners {
		if string(owner.UID) == p.Exists {
			return nil
		}
	}
	switch {
	case len(owners) == 0 && d.GetAnnotations()[sandbox.AnnotationKey] == p.Key:
		return nil
	case len(owners) > 0:
		return &plan.Problem{
			What: fmt.Sprintf("%s is left from an earlier sandbox %q, and will be deleted with it", name, p.Sandbox),
			Hint: "wait until it is deleted, then fork again", Fix: plan.Kubectl("wait", "--for=delete", name),
		}
	}
	return &plan.Problem{
		What: fmt.Sprintf("%s carries the labels of sandbox %q, but kubectl-sandbox did not create it", name, p.Sandbox),
		Hint: "see whose it is", Fix: plan.Kubectl("describe", name),
	}
}
