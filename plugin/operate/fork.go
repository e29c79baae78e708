package operate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/apply"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/wait"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
)

// A ForkReader reads what forks are planned from.
type ForkReader interface {
	ReadFork(ctx context.Context, args []string, o *forks.Options) ([]*plan.Workload, *forks.State, error)
}

// A ForkWriter writes planned forks. If a write fails, it deletes what it created, and says what is left.
type ForkWriter interface {
	ApplyFork(ctx context.Context, p *forks.Plan, dryRun bool) (*apply.Applied, error)
}

// A ForkWaiter waits until forks are ready.
type ForkWaiter interface {
	WaitForks(
		ctx context.Context, sandbox string, targets []wait.Target, progress func(name string, s sandboxes.ForkStatus),
	) (map[string]sandboxes.ForkStatus, error)
	// ExplainWait returns what the forks that are not ready wait for.
	ExplainWait(ctx context.Context, p *forks.Plan, statuses map[string]sandboxes.ForkStatus, after time.Duration) error
}

// A Fork forks workloads into a sandbox.
type Fork struct {
	Read   ForkReader
	Write  ForkWriter
	Wait   ForkWaiter
	Open   OpenRouting // of workloads without routers
	Report Reporter
}

// ForkOptions are what is to be forked, and how.
type ForkOptions struct {
	Workloads []string
	Change    forks.Options
	DryRun    DryRun
	Wait      bool          // until the forks are routed
	Timeout   time.Duration // of that; 0 means no limit
	// RouteTimeout bounds the time that routing takes where Change.Route asks for it; 0 means no limit.
	RouteTimeout time.Duration
	Labels       map[string]string // of the sandbox's ConfigMap, besides those of every sandbox
}

// Forked are forks that were written or, in a dry run, would be.
type Forked struct {
	Plan     *forks.Plan
	Applied  *apply.Applied                  // nil with DryRunClient
	Statuses map[string]sandboxes.ForkStatus // by name of the fork's Deployment; nil if they were not waited for
}

// Run forks the workloads, and waits for the forks. If only the wait fails, it returns the forks with the error.
func (f *Fork) Run(ctx context.Context, o ForkOptions) (*Forked, error) {
	return f.run(ctx, waitOptions{o.DryRun, o.Wait, o.Timeout}, func() (*forks.Plan, error) {
		p, routing, err := f.Plan(ctx, o)
		if err == nil && routing != nil && o.DryRun == DryRunNone {
			p, err = f.route(ctx, o, routing)
		}
		if err != nil {
			return nil, err
		}
		if len(o.Labels) > 0 {
			if p.ConfigMap.Labels == nil {
				p.ConfigMap.Labels = map[string]string{}
			}
			maps.Copy(p.ConfigMap.Labels, o.Labels)
		}
		return p, nil
	}, func(p *forks.Plan) (*apply.Applied, error) {
		return f.Write.ApplyFork(ctx, p, o.DryRun == DryRunServer)
	})
}

// Plan reads the namespace and plans the forks. If workloads are to be routed first, it plans that too, and plans the
// forks as if that were done. A workload that can't be forked is not routed. It changes nothing.
func (f *Fork) Plan(ctx context.Context, o ForkOptions) (*forks.Plan, *RoutePlan, error) {
	workloads, state, err := f.Read.ReadFork(ctx, o.Workloads, &o.Change)
	if err != nil {
		return nil, nil, err
	}
	p, err := forks.New(&o.Change, workloads, state)
	if unrouted := forks.UnroutedOf(err); len(unrouted) > 0 {
		view, failed := f.view(ctx, unrouted)
		if failed != nil {
			return nil, nil, err // the caller may not read what routing depends on
		}
		return nil, nil, forks.UnroutedProblem(err, view)
	}
	if err != nil || len(p.Unrouted) == 0 {
		return p, nil, err
	}
	var planned *forks.Plan
	steps := func(view *routes.View) (steps []*routes.Step, final *routes.View, err error) {
		planned, steps, final, err = forks.Routed(&o.Change, workloads, state, view)
		return steps, final, err
	}
	routing, err := planRoute(ctx, f.Open, p.Unrouted, steps, f.Report)
	if err == nil {
		err = routing.Admission(ctx)
	}
	if err != nil {
		return nil, nil, err
	}
	return planned, routing, nil
}

// view reads everything that routing the workloads depends on.
func (f *Fork) view(ctx context.Context, targets []*plan.Workload) (*routes.View, error) {
	r, err := f.Open(ctx, targets)
	if err != nil {
		return nil, err
	}
	return r.View(ctx)
}

// route routes the workloads, and plans the forks again on the result.
func (f *Fork) route(ctx context.Context, o ForkOptions, routing *RoutePlan) (*forks.Plan, error) {
	if _, err := routing.Do(ctx, o.RouteTimeout, true, f.Report); err != nil {
		return nil, err
	}
	workloads, state, err := f.Read.ReadFork(ctx, o.Workloads, &o.Change)
	if err != nil {
		return nil, err
	}
	again := o.Change
	again.Route = false // what is unrouted still can't be forked
	return forks.New(&again, workloads, state)
}

// waitOptions are the options that fork and rebase share.
type waitOptions struct {
	dryRun  DryRun
	wait    bool
	timeout time.Duration
}

// maxPlans bounds how often forks are planned again because somebody else created the same sandbox meanwhile.
const maxPlans = 3

// run plans and writes forks, again if the state that the plan was based on has changed, and waits for them.
func (f *Fork) run(
	ctx context.Context, o waitOptions,
	planForks func() (*forks.Plan, error), write func(*forks.Plan) (*apply.Applied, error),
) (*Forked, error) {
	var done Forked
	for try := 1; ; try++ {
		p, err := planForks()
		if err != nil {
			return nil, err
		}
		done.Plan = p
		if o.dryRun == DryRunClient {
			break
		}
		if done.Applied, err = write(p); err == nil {
			break
		}
		if !apply.IsStale(err) || try == maxPlans {
			return nil, err
		}
	}
	for _, w := range done.Plan.Warnings {
		f.Report.Warn(w)
	}
	if o.dryRun != DryRunNone || !o.wait {
		return &done, nil
	}
	var err error
	done.Statuses, err = f.await(ctx, o.timeout, &done)
	return &done, err
}

// await waits until the forks are routed.
func (f *Fork) await(ctx context.Context, timeout time.Duration, done *Forked) (map[string]sandboxes.ForkStatus, error) {
	var targets []wait.Target
	for _, d := range done.Applied.Forks {
		targets = append(targets, wait.Target{Name: d.GetName(), Generation: d.GetGeneration()})
	}
	waiting := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	statuses, err := f.Wait.WaitForks(waiting, done.Plan.Sandbox, targets, func(name string, s sandboxes.ForkStatus) {
		if !s.Ready {
			f.Report.Waiting("deployment.apps/" + name + ": " + s.Waiting)
		}
	})
	f.Report.Waiting("")
	switch {
	case err == nil:
		f.warnUnreached(statuses)
		return statuses, nil
	case ctx.Err() != nil:
		return nil, done.Plan.Interrupted()
	case errors.Is(err, context.DeadlineExceeded):
		return nil, f.Wait.ExplainWait(ctx, done.Plan, statuses, timeout)
	}
	return nil, err
}

// warnUnreached warns of forks that none, or only some, of the requests with their key reach.
func (f *Fork) warnUnreached(statuses map[string]sandboxes.ForkStatus) {
	for _, name := range slices.Sorted(maps.Keys(statuses)) {
		for _, c := range statuses[name].Causes {
			if c.Partial || c.Code == health.ScaledToZero {
				f.Report.Warn(fmt.Sprintf("deployment.apps/%s: %s", name, c.Message))
			}
		}
	}
}
