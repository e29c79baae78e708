package forks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/policies"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func unroutedProblem(unrouted []*plan.Workload) *plan.Problem {
	var names, args []string
	for _, w := range unrouted {
		names, args = append(names, w.String()), append(args, w.Arg())
	}
	have := "has no routers, so no request could be sent to its fork"
	if len(unrouted) > 1 {
		have = "have no routers, so no request could be sent to their forks"
	}
	return &plan.Problem{
		What: strings.Join(names, ", ") + " " + have,
		Hint: "put routers in front (one rollout of the baseline, or two; --route does it as part of fork)",
		Fix:  append(plan.Kubectl("sandbox", "route"), args...),
		Code: status.CodeNotRouted, Err: &unroutedError{unrouted},
	}
}

// forkable returns a *Problem if a workload can't be forked, for reasons other than those of plan.CheckWorkload.
func forkable(o *Options, w *plan.Workload) error {
	if l := w.Object.GetLabels(); l[sandbox.LabelRole] == sandbox.RoleFork {
		p := &plan.Problem{What: fmt.Sprintf("%s is itself a fork, of sandbox %q", w, l[sandbox.LabelSandbox]), Hint: "fork its baseline"}
		if kind, name, ok := strings.Cut(l[sandbox.LabelWorkload], "."); ok {
			again := *o
			p.Fix = again.command(&plan.Workload{Object: &unstructured.Unstructured{Object: map[string]any{
				"kind": kind, "metadata": map[string]any{"name": name},
			}}})
		}
		return p
	}
	if owner := metav1.GetControllerOf(w.Object); owner != nil && w.Kind() == "ReplicaSet" {
		return &plan.Problem{
			What: fmt.Sprintf("%s belongs to %s %q", w, strings.ToLower(owner.Kind), owner.Name),
			Hint: "fork that",
			Fix: o.command(&plan.Workload{Object: &unstructured.Unstructured{Object: map[string]any{
				"kind": owner.Kind, "metadata": map[string]any{"name": owner.Name},
			}}}),
		}
	}
	return nil
}

// ownSandbox returns a *Problem if the existing ConfigMap can't be the sandbox.
func ownSandbox(o *Options, workloads []*plan.Workload, c *corev1.ConfigMap) error {
	other := *o
	other.Sandbox = strings.TrimRight(o.Sandbox[:min(len(o.Sandbox), sandbox.MaxName-2)], "-") + "-2"
	switch key := c.Data[sandbox.DataKey]; {
	case c.Labels[sandbox.LabelRole] != sandbox.RoleSandbox || c.Labels[sandbox.LabelSandbox] != o.Sandbox:
		return &plan.Problem{
			What: fmt.Sprintf("--name %s is taken: configmap/%s exists and is no sandbox of kubectl-sandbox", o.Sandbox, c.Name),
			Hint: "choose another name", Fix: other.command(workloads...),
		}
	case c.DeletionTimestamp != nil:
		return &plan.Problem{
			What: fmt.Sprintf("sandbox %q is being deleted", o.Sandbox),
			Hint: "wait until it is deleted, then fork again", Fix: plan.Kubectl("wait", "--for=delete", "configmap/"+c.Name),
		}
	case sandbox.ValidateKey(key) != nil:
		return &plan.Problem{
			What: fmt.Sprintf("sandbox %q is damaged: configmap/%s holds no valid %s", o.Sandbox, c.Name, sandbox.DataKey),
			Hint: "delete it, and fork again", Fix: plan.Kubectl("sandbox", "delete", o.Sandbox),
		}
	case o.Key != "" && o.Key != key:
		other.Sandbox, other.Key = o.Sandbox, ""
		return &plan.Problem{
			What: fmt.Sprintf("--key %s: sandbox %q has the key %s, and a sandbox keeps its key", o.Key, o.Sandbox, key),
			Hint: "use the key it has", Fix: other.command(workloads...),
		}
	}
	return nil
}

func keyInUse(o *Options, workloads []*plan.Workload, c *corev1.ConfigMap) *plan.Problem {
	what := fmt.Sprintf("--key %s is in use by sandbox %q", o.Key, c.Labels[sandbox.LabelSandbox])
	if by := c.Data[sandbox.DataCreatedBy]; by != "" {
		what += ", made by " + by
	}
	other := *o
	other.Key = ""
	return &plan.Problem{What: what, Hint: "have a key generated", Fix: other.command(workloads...)}
}

// ownFork returns a *Problem if the Deployment with the fork's labels can't be updated. This sandbox must own it; or,
// if it came from Git and was not adopted yet, it must hold the sandbox's key.
func (p *Plan) ownFork(d *unstructured.Unstructured) error {
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
