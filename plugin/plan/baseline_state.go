package plan

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A BaselineState is how a fork stands to its baseline.
type BaselineState struct {
	// Gone says that there is no baseline any more.
	Gone bool
	// Unmarked says that the baseline's pod template lacks the marks of `route`.
	Unmarked bool
	// Behind says that the baseline has changed since the fork was laid on it, in what the fork inherits.
	Behind bool
	// Follows says that the controller lays the fork on its baseline whenever that changes.
	Follows bool
	// Conflict says why the controller could not, and Generation on which of the baseline's; empty where it could, or was not to.
	Conflict   string
	Generation int64
}

// BaselineStateOf says how the fork d stands to its baseline; nil: there is none. Of a fork that does not say what it was laid on, as
// those made by old versions, nothing is known, and it is not behind.
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
	// What the controller said of another generation, or of a change that was replaced, is of the past.
	if said, err := sandbox.ParseFollowed(d.Annotations[sandbox.AnnotationFollowed]); err == nil && s.Follows && s.Behind {
		s.Conflict, s.Generation = said.Conflict, said.Generation
	}
	return s, nil
}

// Word is what a fork that stands so is called.
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

// Problem says what is to be done about a fork's standing; nil where nothing is.
func (s BaselineState) Problem(d *appsv1.Deployment) *Problem {
	name, of, in := deployment(d.Name), WorkloadOf(d), d.Labels[sandbox.LabelSandbox]
	rebase := Kubectl("sandbox", "rebase", in, of)
	switch {
	case s.Gone:
		return &Problem{What: fmt.Sprintf("%s is a fork of %s, which no longer exists", name, of), Hint: "remove the sandbox", Fix: Kubectl("sandbox", "delete", in)}
	case s.Conflict != "":
		return &Problem{
			What:  fmt.Sprintf("%s can't follow %s to generation %d", name, of, s.Generation),
			Lines: []string{s.Conflict}, Hint: "delete it, then fork again", Fix: Kubectl("sandbox", "delete", in),
		}
	case s.Behind:
		return &Problem{What: fmt.Sprintf("%s lacks later changes of %s", name, of), Hint: "rebase the fork", Fix: rebase}
	}
	return nil
}

// Behind counts the forks that are behind, of those whose standing is known, by name of the Deployment.
func (s *Sandbox) Behind(baselines map[string]BaselineState) int {
	n := 0
	for i := range s.Forks {
		if baselines[s.Forks[i].Namespace+"/"+s.Forks[i].Name].Behind {
			n++
		}
	}
	return n
}

// RebaseCommand returns the command that lays the forks of the sandboxes on their baselines, for the first of them that is behind;
// nil where none is.
func RebaseCommand(all []Sandbox, baselines map[string]BaselineState) []string {
	i := slices.IndexFunc(all, func(s Sandbox) bool { return s.Behind(baselines) > 0 })
	if i < 0 {
		return nil
	}
	return Kubectl("sandbox", "rebase", all[i].Name, "--namespace="+all[i].Namespace)
}
