package operate

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/apply"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/wait"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
)

// fakeForkWriter answers with errors, in order; after the last one, writes succeed.
type fakeForkWriter struct {
	errs []error
	runs []bool // whether each write was a dry run
}

func (w *fakeForkWriter) ApplyFork(_ context.Context, p *forks.Plan, dryRun bool) (*apply.Applied, error) {
	w.runs = append(w.runs, dryRun)
	if len(w.errs) > 0 {
		err := w.errs[0]
		w.errs = w.errs[1:]
		return nil, err
	}
	applied := &apply.Applied{ConfigMap: p.ConfigMap}
	for range p.Forks {
		d := &unstructured.Unstructured{}
		d.SetName("api-pr-42")
		d.SetGeneration(3)
		applied.Forks = append(applied.Forks, d)
	}
	return applied, nil
}

// fakeForkWaiter reports a status of the fork, and waits for ctx unless the fork is ready.
type fakeForkWaiter struct {
	status  sandboxes.ForkStatus
	targets []wait.Target
}

func (w *fakeForkWaiter) WaitForks(
	ctx context.Context, _ string, targets []wait.Target, progress func(string, sandboxes.ForkStatus),
) (map[string]sandboxes.ForkStatus, error) {
	w.targets = targets
	progress("api-pr-42", w.status)
	all := map[string]sandboxes.ForkStatus{"api-pr-42": w.status}
	if w.status.Ready {
		return all, nil
	}
	<-ctx.Done()
	return all, ctx.Err()
}

func (w *fakeForkWaiter) ExplainWait(
	_ context.Context,
	p *forks.Plan,
	all map[string]sandboxes.ForkStatus,
	after time.Duration,
) error {
	return p.TimedOut(after, []string{all["api-pr-42"].Waiting})
}

// stale returns the error of a write of a sandbox that somebody else has created since it was read.
func stale(t *testing.T) error {
	t.Helper()
	there := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "sandbox-pr-42"}}
	w := apply.New(&cluster.Client{Namespace: "shop", Kube: fake.NewClientset(there)})
	_, err := w.ApplyFork(t.Context(), &forks.Plan{Sandbox: "pr-42", Namespace: "shop", ConfigMap: there}, false)
	if !apply.IsStale(err) {
		t.Fatalf("got %v", err)
	}
	return err
}

// runFork runs a fork of one workload. It returns how often it was planned.
func runFork(ctx context.Context, f *Fork, o waitOptions) (done *Forked, plans int, err error) {
	done, err = f.run(ctx, o, func() (*forks.Plan, error) {
		plans++
		return &forks.Plan{Sandbox: "pr-42", Forks: make([]forks.Fork, 1), Warnings: []string{"a warning"}}, nil
	}, func(p *forks.Plan) (*apply.Applied, error) {
		return f.Write.ApplyFork(ctx, p, o.dryRun == DryRunServer)
	})
	return done, plans, err
}

func TestFork_IsPlannedAgainWhenTheSandboxAppearsMeanwhile(t *testing.T) {
	for _, tt := range []struct {
		name         string
		stale, plans int
		fails        bool
	}{
		{"once", 1, 2, false},
		{"twice", 2, 3, false},
		{"always", 9, maxPlans, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, report := &fakeForkWriter{}, &reported{}
			for range tt.stale {
				w.errs = append(w.errs, stale(t))
			}
			done, plans, err := runFork(t.Context(), &Fork{Write: w, Report: report}, waitOptions{})
			if plans != tt.plans || apply.IsStale(err) != tt.fails || (done == nil) != tt.fails {
				t.Errorf("planned %d times, got %v, error %v", plans, done, err)
			}
			if !tt.fails && len(report.warnings) != 1 {
				t.Errorf("warnings %q", report.warnings)
			}
		})
	}
}

func TestFork_IsNotPlannedAgainAfterAnotherFailure(t *testing.T) {
	w := &fakeForkWriter{errs: []error{errors.New("no")}}
	done, plans, err := runFork(t.Context(), &Fork{Write: w, Report: &reported{}}, waitOptions{})
	if done != nil || plans != 1 || err == nil {
		t.Errorf("planned %d times, got %v, error %v", plans, done, err)
	}
}

func TestFork_WritesNothingInADryRunOfTheClient(t *testing.T) {
	w := &fakeForkWriter{}
	done, _, err := runFork(t.Context(), &Fork{Write: w, Report: &reported{}}, waitOptions{dryRun: DryRunClient, wait: true})
	if err != nil || done.Applied != nil || len(w.runs) > 0 {
		t.Errorf("got %v, %d writes, error %v", done, len(w.runs), err)
	}
}

func TestFork_WaitsForTheGenerationThatItWrote(t *testing.T) {
	waiter, report := &fakeForkWaiter{status: sandboxes.ForkStatus{Ready: true}}, &reported{}
	waiter.status.Causes = []health.Cause{{Code: health.ScaledToZero, Message: "it has no replicas"}}
	f := &Fork{Write: &fakeForkWriter{}, Wait: waiter, Report: report}
	done, _, err := runFork(t.Context(), f, waitOptions{wait: true})
	if err != nil || len(done.Statuses) != 1 || len(waiter.targets) != 1 ||
		waiter.targets[0] != (wait.Target{Name: "api-pr-42", Generation: 3}) {
		t.Errorf("got %v, targets %v, error %v", done, waiter.targets, err)
	}
	if len(report.warnings) != 2 || report.warnings[1] != "deployment.apps/api-pr-42: it has no replicas" {
		t.Errorf("warnings %q", report.warnings)
	}
}

func TestFork_StaysWhenItsWaitEnds(t *testing.T) {
	for _, tt := range []struct {
		name      string
		interrupt time.Duration
		code      string
		want      string
	}{
		{"at the timeout", time.Hour, status.CodeTimedOut, "not routed after 2m0s (--timeout): its image is being pulled"},
		{"by an interrupt", time.Minute, status.CodeInterrupted, "interrupted; sandbox"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				time.AfterFunc(tt.interrupt, cancel)
				f := &Fork{
					Write: &fakeForkWriter{}, Report: &reported{},
					Wait: &fakeForkWaiter{status: sandboxes.ForkStatus{Waiting: "its image is being pulled"}},
				}
				done, _, err := runFork(ctx, f, waitOptions{wait: true, timeout: 2 * time.Minute})
				if p := wantProblem(t, err, tt.want); p.Code != tt.code || done == nil {
					t.Errorf("got %v, code %s", done, p.Code)
				}
			})
		})
	}
}

// fakeRebaseReader has nothing to rebase.
type fakeRebaseReader struct{ err error }

func (r fakeRebaseReader) ReadRebase(
	context.Context,
	[]string,
	*forks.Options,
) ([]*plan.Workload, *forks.State, error) {
	return nil, nil, r.err
}

func TestRebase_WritesNothingWhenItCannotRead(t *testing.T) {
	w := &fakeForkWriter{}
	r := Rebase{Read: fakeRebaseReader{errors.New("no")}, Write: w, Report: &reported{}}
	if _, err := r.Run(t.Context(), RebaseOptions{}); err == nil || len(w.runs) > 0 {
		t.Errorf("%d writes, error %v", len(w.runs), err)
	}
}

func TestRebase_ChangesNoForkIfOneOfSeveralCannotBe(t *testing.T) {
	for _, tt := range []struct {
		name  string
		forks int
		errs  []error
		runs  []bool
	}{
		{"one", 1, nil, []bool{false}},
		{"several", 2, nil, []bool{true, false}},
		{"several, of which one can't", 2, []error{errors.New("no")}, []bool{true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &fakeForkWriter{errs: tt.errs}
			r := Rebase{Write: w}
			_, err := r.write(t.Context(), &forks.Plan{Forks: make([]forks.Fork, tt.forks)}, DryRunNone)
			if (err != nil) != (tt.errs != nil) || len(w.runs) != len(tt.runs) {
				t.Errorf("dry runs %v, want %v, error %v", w.runs, tt.runs, err)
			}
		})
	}
}
