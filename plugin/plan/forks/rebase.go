package forks

import (
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Rebase plans to apply the changes of a sandbox's forks to the current state of their baselines. It plans what New
// plans without a change, and keeps the expiry. Each of the workloads must have a fork. Every error is a *Problem.
func Rebase(o *Options, workloads []*plan.Workload, state *State) (*Plan, error) {
	if state.Sandbox == nil {
		return nil, plan.NoSandbox(o.Sandbox, state.Namespace)
	}
	again := *o
	again.Rebase = true
	if err := ownSandbox(&again, workloads, state.Sandbox); err != nil {
		return nil, err
	}
	for _, w := range workloads {
		if plan.ForkOf(w, o.Sandbox, state.Forks) == nil {
			return nil, noFork(o.Sandbox, w.String())
		}
	}
	return New(&again, workloads, state)
}

// noFork returns the Problem of a sandbox that has no fork of the workload.
func noFork(name, workload string) *plan.Problem {
	return &plan.Problem{
		What: fmt.Sprintf("sandbox %q has no fork of %s", name, workload),
		Hint: "list its forks", Fix: plan.Kubectl("sandbox", "status", name),
	}
}

// NoForks returns the Problem of an existing sandbox without forks.
func NoForks(name string) *plan.Problem {
	return &plan.Problem{
		What: fmt.Sprintf("sandbox %q has no forks", name),
		Hint: "show its state", Fix: plan.Kubectl("sandbox", "status", name),
	}
}

// rebaseCommand returns the command line that rebases the forks of the workloads.
func (o *Options) rebaseCommand(workloads ...*plan.Workload) []string {
	words := plan.Kubectl("sandbox", "rebase", o.Sandbox)
	for _, w := range workloads {
		words = append(words, w.Arg())
	}
	if o.Force {
		words = append(words, "--force-conflicts")
	}
	return words
}

// A conflict means that the change of a fork does not fit its current baseline.
type conflict struct {
	fork     string
	workload *plan.Workload
	err      error
}

func (c *conflict) Error() string { return fmt.Sprintf("%s on %s: %v", c.fork, c.workload, c.err) }

// lines returns what conflicts, one item per line.
func (c *conflict) lines() []string {
	var e *fork.ConflictError
	if errors.As(c.err, &e) {
		return e.Conflicts
	}
	return []string{c.err.Error()}
}

// conflictProblem returns the Problem of forks whose changes no longer fit their baselines. Nothing was written.
func conflictProblem(o *Options, conflicts []*conflict) *plan.Problem {
	p := &plan.Problem{Hint: "delete it, then fork again", Fix: plan.Kubectl("sandbox", "delete", o.Sandbox), Err: conflicts[0].err}
	if len(conflicts) == 1 {
		c := conflicts[0]
		p.What = fmt.Sprintf("the change of %s no longer fits %s, which changed since; nothing was written", c.fork, c.workload)
		p.Lines = c.lines()
		return p
	}
	p.What = fmt.Sprintf("the changes of %d forks of sandbox %q no longer fit their baselines, which changed since; nothing was written", len(conflicts), o.Sandbox)
	for _, c := range conflicts {
		for _, line := range c.lines() {
			p.Lines = append(p.Lines, fmt.Sprintf("%s of %s: %s", c.fork, c.workload, line))
		}
	}
	return p
}

// noteBehind sets f.Rebased, and warns if a command other than `rebase` rebases the fork.
func (p *Plan) noteBehind(o *Options, f *Fork, old *unstructured.Unstructured) {
	if old == nil {
		return
	}
	was := old.GetAnnotations()[sandbox.AnnotationBaseline]
	// Compare without the new options: a label that is kept from now on does not make the baseline newer.
	behind, err := fork.Behind(old, f.Workload.Object)
	behind = behind || err != nil
	f.Rebased = behind && o.Rebase
	if behind && was != "" && !o.Rebase {
		p.warn("%s was behind %s and is rebased on it", plan.DeploymentName(f.Name()), f.Workload)
	}
}

// keptExpiry returns the unchanged expiry of a sandbox.
func keptExpiry(old *corev1.ConfigMap) time.Time {
	at, _ := time.Parse(time.RFC3339, old.Data[sandbox.DataExpires])
	return at
}
