package forks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/policies"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
)

// ApplyProblem explains why the API server refused a planned fork: somebody else's object has its name, or somebody
// else wrote fields of it.
func (p *Plan) ApplyProblem(f *Fork, err error) *plan.Problem {
	name := plan.DeploymentName(f.Name())
	if field, ok := UnknownField(err); ok {
		return &plan.Problem{
			What: fmt.Sprintf("%s can't be created: the API server knows no field %s of Deployments", name, field),
			Hint: "see what fields there are", Fix: plan.Kubectl("explain", "deployment.spec.template", "--recursive"), Err: err,
		}
	}
	var refused apierrors.APIStatus
	if f.Replaces == 0 && apierrors.IsInvalid(err) && errors.As(err, &refused) && !aboutSelector(refused.Status()) {
		return &plan.Problem{
			What: fmt.Sprintf("the API server refuses %s: %s", name, plan.FirstLine(err.Error())),
			Hint: "see what can be changed", Fix: plan.Kubectl("sandbox", "fork", "--help"), Err: err,
		}
	}
	if f.Replaces == 0 {
		return &plan.Problem{
			What: fmt.Sprintf("%s, which fork would create from %s, exists and was not created by kubectl-sandbox", name, f.Workload),
			Hint: "see whose it is", Fix: plan.Kubectl("describe", name), Err: err,
		}
	}
	var status apierrors.APIStatus
	if !apierrors.IsConflict(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return &plan.Problem{
			What: fmt.Sprintf("%s can't be changed as requested: %s", name, plan.FirstLine(err.Error())),
			Hint: "delete it, then fork again", Fix: plan.Kubectl("sandbox", "delete", p.Sandbox), Err: err,
		}
	}
	var fields []string
	for _, c := range status.Status().Details.Causes {
		by := c.Message // conflict with "kubectl" with subresource "scale" using apps/v1
		if parts := strings.SplitN(by, `"`, 3); len(parts) == 3 {
			by = parts[1]
		}
		fields = append(fields, c.Field+" (by "+by+")")
	}
	return &plan.Problem{
		What: fmt.Sprintf("%s was changed by others than this command: %s", name, strings.Join(fields, ", ")),
		Hint: "take these fields over", Fix: p.force, Err: err,
	}
}

// UnknownField returns the path of a field that an object was refused for because its kind has no such field. The API
// server answers with an internal error without reason or details, as it has since server-side apply exists:
// sigs.k8s.io/structured-merge-diff/v6/typed.
func UnknownField(err error) (path string, ok bool) {
	if err == nil || !strings.Contains(err.Error(), "failed to create typed patch object") {
		return "", false
	}
	for line := range strings.Lines(err.Error()) {
		before, _, found := strings.Cut(line, ": field not declared in schema")
		if i := strings.LastIndexByte(before, ' '); found {
			return before[i+1:], true
		}
	}
	return "", false
}

// aboutSelector reports whether an object was refused because of its immutable selector: another object has its name.
func aboutSelector(s metav1.Status) bool {
	return s.Details != nil && slices.ContainsFunc(s.Details.Causes, func(c metav1.StatusCause) bool { return c.Field == "spec.selector" })
}

// LeftProblem returns the Problem cause, with what it left behind.
func (p *Plan) LeftProblem(cause error, left string) *plan.Problem {
	why := cause.Error()
	if errors.Is(cause, context.Canceled) {
		why = "interrupted"
	}
	return &plan.Problem{
		What: fmt.Sprintf("%s; written before that, and left: %s", why, left),
		Hint: "remove the sandbox", Fix: plan.Kubectl("sandbox", "delete", p.Sandbox), Err: cause,
	}
}

// Interrupted returns the Problem of a wait that the caller interrupted.
func (p *Plan) Interrupted() *plan.Problem {
	return &plan.Problem{
		What: fmt.Sprintf("interrupted; sandbox %q exists, and its forks may still become ready", p.Sandbox),
		Hint: "remove it", Fix: plan.Kubectl("sandbox", "delete", p.Sandbox), Code: status.CodeInterrupted, Object: "sandbox/" + p.Sandbox,
	}
}

// TimedOut returns the Problem of forks that were not ready in time. reasons holds, for each fork, what it waits for.
func (p *Plan) TimedOut(after time.Duration, reasons []string) *plan.Problem {
	return &plan.Problem{
		What: fmt.Sprintf("not routed after %s (--timeout): %s", after, strings.Join(reasons, "; ")),
		Hint: "the sandbox stays, and its forks may still become ready; check again, or delete it with `kubectl sandbox delete " + p.Sandbox + "`",
		Fix:  plan.Kubectl("sandbox", "status", p.Sandbox),
		Code: status.CodeTimedOut, Object: "sandbox/" + p.Sandbox,
	}
}

// PolicyProblem explains why the API server refused a policy of a fork: somebody else wrote fields of it.
func (p *Plan) PolicyProblem(policy *policies.Policy, err error) *plan.Problem {
	return &plan.Problem{
		What: fmt.Sprintf("networkpolicy/%s was changed by others than this command: %s", policy.Name, plan.FirstLine(err.Error())),
		Hint: "take its fields over", Fix: p.force, Err: err,
	}
}
