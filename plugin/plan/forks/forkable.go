package forks

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// checkForkable returns a *Problem if the webhook is missing or a workload can't be forked.
func (r *request) checkForkable() error {
	if r.state.NoWebhook {
		return plan.NoWebhook()
	}
	for _, w := range r.workloads {
		if err := forkable(r.Options, w); err != nil {
			return err
		}
	}
	if bare := unrouted(r.workloads, r.state.Services); len(bare) > 0 && !r.Route {
		return unroutedProblem(bare)
	}
	return nil
}

// forkable returns a *Problem if a workload can't be forked, for reasons other than those of plan.CheckWorkload.
func forkable(o *Options, w *plan.Workload) error {
	if l := w.Object.GetLabels(); l[sandbox.LabelRole] == sandbox.RoleFork {
		p := &plan.Problem{
			What: fmt.Sprintf("%s is itself a fork, of sandbox %q", w, l[sandbox.LabelSandbox]), Hint: "fork its baseline",
		}
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

// unrouted returns the workloads that are behind a Service and whose pods have no router. Requests could not reach
// their forks.
func unrouted(workloads []*plan.Workload, services []corev1.Service) []*plan.Workload {
	return slices.DeleteFunc(slices.Clone(workloads), func(w *plan.Workload) bool {
		return w.Routed() || len(plan.Endpoints(w, services)) == 0
	})
}

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
