package health

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// publishDelay is how long the control plane may take to publish a fork's state after it set the gate of the fork's
// pod.
const publishDelay = 5 * time.Second

// notes returns what is worth reporting about a fork that requests reach, and what is unknown.
func (f Facts) notes() (notes []Cause, unknown []string) {
	if f.Deployment == nil || !f.takesRequests() {
		return nil, nil
	}
	if b := f.Baseline; b == nil {
		unknown = append(unknown, "whether the baseline's pods have routers")
	} else {
		if b.Services == nil {
			unknown = append(unknown, "whether the baseline's Services lead to its routers")
		}
		if b.Others == nil {
			unknown = append(unknown, "whether the baseline's Services lead to other workloads as well")
		}
		if b.Behind != nil && *b.Behind {
			notes = append(notes, Cause{Code: BaselineBehind, Fault: FaultApp, Message: "the baseline " + f.workload() + " has changed since the fork was made from it",
				Say: "apply the fork's change to the baseline as it is now", Fix: kubectl("sandbox", "rebase", f.sandbox(), f.workload())})
		}
	}
	if f.Routing == nil && !f.gateJustTurned() {
		unknown = append(unknown, "whether the routers still have the route: the control plane has published nothing")
	}
	return notes, unknown
}

// gateJustTurned reports whether the control plane has just set the gate of one of the fork's pods. That confirms that
// the routers have the route, while its published state is still to come.
func (f Facts) gateJustTurned() bool {
	return slices.ContainsFunc(f.newest(), func(p *corev1.Pod) bool {
		c := condition(p, sandbox.ConditionRouted)
		return c.Status == corev1.ConditionTrue && f.Now.Sub(c.LastTransitionTime.Time).Abs() < publishDelay
	})
}
