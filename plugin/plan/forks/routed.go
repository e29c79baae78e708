package forks

import (
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Routed plans forks of workloads some of which have no routers yet. It plans their routing first, and then the
// forks in the resulting state. A dry run and a real run both begin with it, so they refuse the same; and a workload
// that can't be forked is not routed. The workloads to route are those of Plan.Unrouted, and are the view's
// targets.
func Routed(o *Options, workloads []*plan.Workload, state *State, view *routes.View) (*Plan, []*routes.Step, *routes.View, error) {
	steps, final, err := routes.Steps(view, routes.Route)
	if err != nil {
		return nil, nil, nil, err
	}
	routed, after := state.after(workloads, final)
	again := *o
	again.Route = false // what is unrouted then can't be forked
	p, err := New(&again, routed, after)
	if err != nil {
		return nil, nil, nil, proposing(o, err)
	}
	return p, steps, final, nil
}

// proposing makes the command that a refusal proposes request routers as o does.
func proposing(o *Options, err error) error {
	var p *plan.Problem
	if !errors.As(err, &p) || !o.Route || len(p.Fix) < 3 || p.Fix[2] != "fork" || slices.Contains(p.Fix, "--route") || slices.Contains(p.Fix, "--help") {
		return err
	}
	with := *p
	with.Fix = append(slices.Clone(p.Fix), "--route")
	return &with
}

// A proposal is the fork that a refusal proposes instead.
type proposal struct {
	options   *Options
	workloads []*plan.Workload
}

// Command returns the command line that requests the fork.
func (p *proposal) Command() []string { return p.options.command(p.workloads...) }

// propose makes the problem p propose a fork, described by say, and returns p.
func propose(p *plan.Problem, say string, o *Options, workloads ...*plan.Workload) *plan.Problem {
	proposed := &proposal{o, workloads}
	p.Hint, p.Fix, p.Proposed = say, proposed.Command(), proposed
	return p
}

// provenFork returns a refusal whose proposed fork is not refused in turn. If it is, because another flag is wrong,
// provenFork adds that refusal and continues with its proposal.
func provenFork(err error, state *State, depth int) error {
	var p, refused *plan.Problem
	if !errors.As(err, &p) {
		return err
	}
	proposed, ok := p.Proposed.(*proposal)
	if !ok {
		return err
	}
	_, next := planned(proposed.options, proposed.workloads, state)
	switch {
	case !errors.As(next, &refused), refused.Code == status.CodeNotRouted:
		return err
	case depth == 0 || refused.What == p.What:
		return &plan.Problem{What: p.What, Code: p.Code, Object: p.Object, Err: p.Err, Hint: "see what can be given", Fix: plan.Kubectl("sandbox", "fork", "--help")}
	}
	if !errors.As(provenFork(refused, state, depth-1), &refused) {
		return err
	}
	joined := *refused
	joined.What, joined.Code, joined.Object, joined.Err = p.What+"; and "+refused.What, p.Code, p.Object, p.Err
	return &joined
}

// UnroutedOf returns the workloads that have no routers according to a refusal of New.
func UnroutedOf(err error) []*plan.Workload {
	var refused *unroutedError
	if errors.As(err, &refused) {
		return refused.workloads
	}
	return nil
}

// An unroutedError is the cause of the Problem of workloads without routers.
type unroutedError struct{ workloads []*plan.Workload }

// Error implements error.
func (e *unroutedError) Error() string { return "workloads have no routers" }

// UnroutedProblem returns the refusal err of workloads that have no routers. If they can't get any, it adds the
// reason: then routing them does not help.
func UnroutedProblem(err error, view *routes.View) error {
	var p, refused *plan.Problem
	if !errors.As(err, &p) || p.Code != status.CodeNotRouted {
		return err
	}
	if _, _, why := routes.Steps(view, routes.Route); errors.As(why, &refused) {
		return &plan.Problem{
			What: p.What + "; and routing is refused: " + refused.What, Lines: refused.Lines,
			Hint: refused.Hint, Fix: refused.Fix, Admin: refused.Admin, Code: p.Code,
		}
	}
	with := *p
	with.Fix = append(slices.Clone(p.Fix), view.TemplateFlag()...)
	return &with
}

// after returns workloads and state as they are once the changes that the view shows are made.
func (s *State) after(workloads []*plan.Workload, view *routes.View) ([]*plan.Workload, *State) {
	now := func(w *plan.Workload) *plan.Workload {
		for _, t := range view.Targets {
			if t.String() == w.String() {
				return &plan.Workload{Object: t.Object, Resource: w.Resource, TemplateAt: w.TemplateAt}
			}
		}
		return w
	}
	mapped := make([]*plan.Workload, len(workloads))
	for i, w := range workloads {
		mapped[i] = now(w)
	}
	after := *s
	after.Objects.Workloads = make([]*plan.Workload, len(s.Objects.Workloads))
	for i, w := range s.Objects.Workloads {
		after.Objects.Workloads[i] = now(w)
	}
	after.Services = make([]corev1.Service, len(view.Services))
	for i, svc := range view.Services {
		after.Services[i] = *svc
	}
	after.Policies.Policies = nil
	for _, p := range view.Policies {
		if !isForkPolicy(p) { // as State has them
			after.Policies.Policies = append(after.Policies.Policies, *p)
		}
	}
	return mapped, &after
}

func isForkPolicy(p *networkingv1.NetworkPolicy) bool {
	return p.Labels[sandbox.LabelRole] == sandbox.RoleFork
}
