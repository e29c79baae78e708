package operate

import (
	"context"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/apply"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
)

// A RebaseReader reads what a rebase is planned from: of the workloads that args name or, without args, of all that
// the sandbox has forks of.
type RebaseReader interface {
	ReadRebase(ctx context.Context, args []string, o *forks.Options) ([]*plan.Workload, *forks.State, error)
}

// A Rebase rebases the forks of a sandbox on their current baselines.
type Rebase struct {
	Read   RebaseReader
	Write  ForkWriter
	Wait   ForkWaiter
	Report Reporter
}

// RebaseOptions are what is to be rebased, and how.
type RebaseOptions struct {
	Workloads []string // none: all of the sandbox
	Change    forks.Options
	DryRun    DryRun
	Wait      bool          // until the forks are routed
	Timeout   time.Duration // of that; 0 means no limit
}

// Run rebases the forks, and waits for them. If one of several can't be changed, none is. If only the wait fails, it
// returns the forks with the error.
func (r *Rebase) Run(ctx context.Context, o RebaseOptions) (*Forked, error) {
	f := &Fork{Write: r.Write, Wait: r.Wait, Report: r.Report}
	return f.run(ctx, waitOptions{o.DryRun, o.Wait, o.Timeout}, func() (*forks.Plan, error) {
		workloads, state, err := r.Read.ReadRebase(ctx, o.Workloads, &o.Change)
		if err != nil {
			return nil, err
		}
		return forks.Rebase(&o.Change, workloads, state)
	}, func(p *forks.Plan) (*apply.Applied, error) { return r.write(ctx, p, o.DryRun) })
}

// write writes the forks. Of several, it tries all before it writes the first.
func (r *Rebase) write(ctx context.Context, p *forks.Plan, dryRun DryRun) (*apply.Applied, error) {
	if dryRun == DryRunNone && len(p.Forks) > 1 {
		if _, err := r.Write.ApplyFork(ctx, p, true); err != nil {
			return nil, err
		}
	}
	return r.Write.ApplyFork(ctx, p, dryRun == DryRunServer)
}
