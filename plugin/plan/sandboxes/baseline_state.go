package sandboxes

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A BaselineState is the state of a fork relative to its baseline.
type BaselineState struct {
	// Gone means that the baseline no longer exists.
	Gone bool
	// Unmarked means that the baseline's pod template lacks the marks of `route`.
	Unmarked bool
	// Behind means that the parts of the baseline that the fork inherits have changed since the fork was created or
	// rebased.
	Behind bool
	// Follows means that the controller rebases the fork whenever its baseline changes.
	Follows bool
	// Conflict is why the controller could not rebase the fork, and Generation is the baseline's generation that it
	// tried. Conflict is empty if the rebase succeeded or was not due.
	Conflict   string
	Generation int64
}

// BaselineStateOf returns the state of the fork d relative to its baseline, which is nil if it no longer exists.
// Forks of old versions do not record what they were created from. Nothing is known of these, and they count as not
// behind.
func BaselineStateOf(d *appsv1.Deployment, baseline *unstructured.Unstructured) (BaselineState, error) {
	s := BaselineState{Gone: baseline == nil, Follows: d.Annotations[sandbox.AnnotationFollow] == sandbox.FollowOn}
	if baseline == nil {
		return s, nil
	}
	if t, err := fork.PodTemplate(baseline, d.Annotations[sandbox.AnnotationTemplate]); err == nil {
		role, _, _ := unstructured.NestedString(t, "metadata", "labels", sandbox.LabelRole)
		s.Unmarked = role != sandbox.RoleBaseline
	}
	if d.Annotations[sandbox.AnnotationBaseline] == "" {
		return s, nil
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(d)
	if err != nil {
		return s, err
	}
	if s.Behind, err = fork.Behind(&unstructured.Unstructured{Object: content}, baseline); err != nil {
		return s, err
	}
	// What the controller recorded for another generation, or for a change that was replaced, is outdated.
	if said, err := sandbox.ParseFollowed(d.Annotations[sandbox.AnnotationFollowed]); err == nil && s.Follows && s.Behind {
		s.Conflict, s.Generation = said.Conflict, said.Generation
	}
	return s, nil
}

// Word returns the word for the state in tables; empty if there is nothing to report.
func (s BaselineState) Word() string {
	switch {
	case s.Gone:
		return "gone"
	case s.Conflict != "":
		return "conflict"
	case s.Behind:
		return "behind"
	}
	return ""
}

// Problem returns what to do about the state of the fork d; nil if nothing is to be done.
func (s BaselineState) Problem(d *appsv1.Deployment) *plan.Problem {
	name, of, in := plan.DeploymentName(d.Name), WorkloadOf(d), d.Labels[sandbox.LabelSandbox]
	rebase := plan.Kubectl("sandbox", "rebase", in, of)
	switch {
	case s.Gone:
		return &plan.Problem{What: fmt.Sprintf("%s is a fork of %s, which no longer exists", name, of), Hint: "remove the sandbox", Fix: plan.Kubectl("sandbox", "delete", in)}
	case s.Conflict != "":
		return &plan.Problem{
			What:  fmt.Sprintf("%s can't follow %s to generation %d", name, of, s.Generation),
			Lines: []string{s.Conflict}, Hint: "delete it, then fork again", Fix: plan.Kubectl("sandbox", "delete", in),
		}
	case s.Behind:
		return &plan.Problem{What: fmt.Sprintf("%s lacks later changes of %s", name, of), Hint: "rebase the fork", Fix: rebase}
	}
	return nil
}

// Behind counts the forks that are behind, among those whose baseline state is known. The map's keys are
// "NAMESPACE/NAME" of the forks.
func (s *Sandbox) Behind(baselines map[string]BaselineState) int {
	n := 0
	for i := range s.Forks {
		if baselines[s.Forks[i].Namespace+"/"+s.Forks[i].Name].Behind {
			n++
		}
	}
	return n
}

// RebaseCommand returns the command that rebases the forks of the first sandbox that has a fork behind its baseline;
// nil if none has.
func RebaseCommand(all []Sandbox, baselines map[string]BaselineState) []string {
	i := slices.IndexFunc(all, func(s Sandbox) bool { return s.Behind(baselines) > 0 })
	if i < 0 {
		return nil
	}
	return plan.Kubectl("sandbox", "rebase", all[i].Name, "--namespace="+all[i].Namespace)
}
