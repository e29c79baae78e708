package forks

import (
	"errors"
	"fmt"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
)

// Rebase plans to apply the changes of a sandbox's forks to the current state of their baselines. It plans what New
// plans without a change, and keeps the expiry. Each of the workloads must have a fork. Every error is a *Problem.
func Rebase(o *Options, workloads []*plan.Workload, state *State) (*Plan, error) {
	if state.Sandbox == nil {
		return nil, plan.NoSandbox(o.Sandbox, state.Namespace)
	}
	again := *o
	again.Rebase = true
	if err := checkSandbox(&again, workloads, state.Sandbox); err != nil {
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
