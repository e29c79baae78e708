package operate

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/jobs"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

const suiteText = `
apiVersion: batch/v1
kind: Job
metadata: {name: smoke}
spec:
  template:
    spec:
      containers: [{name: test, image: test:1}]
`

// fakeExperiments store and run an experiment over the sandboxes a and b.
type fakeExperiments struct {
	resumed bool
	left    []string // what can't be deleted
	errs    struct{ create, save, heartbeats error }
	check   func(ctx context.Context, v *suite.Variant) error // nil: each check's Job can't be created

	mu                           sync.Mutex
	started, abandoned, released bool
	saves                        int
	checked, deleted             []string
}

func (f *fakeExperiments) SandboxesNamed(
	_ context.Context,
	names []string,
) (found []sandboxes.Sandbox, missing []string, err error) {
	for _, name := range names {
		if name == "a" || name == "b" {
			found = append(found, sandboxes.Sandbox{Name: name, Key: "key-" + name})
		} else {
			missing = append(missing, name)
		}
	}
	return found, missing, nil
}

func (f *fakeExperiments) Entry(context.Context, []string) (plan.Entry, error) {
	return plan.Entry{Service: plan.ServiceRef{Name: "api", Namespace: "shop"}}, nil
}

func (f *fakeExperiments) KeyCarriers(context.Context, string) (route.Carriers, error) {
	return route.Carriers{}, nil
}

func (f *fakeExperiments) CronJob(context.Context, string) (*batchv1.CronJob, error) {
	return nil, errors.New("there is none")
}

func (f *fakeExperiments) CheckService(_ context.Context, ref plan.ServiceRef) (sandbox.Service, error) {
	return sandbox.Service{Host: ref.Name, Port: 80}, nil
}

func (f *fakeExperiments) Probes(context.Context) (suite.Probes, error) {
	return suite.Probes{}, nil
}

func (f *fakeExperiments) StartExperiment(
	_ context.Context, r *experiment.Report, _ string, _ time.Time, _ bool,
) (*jobs.Experiment, error) {
	f.started = true
	return &jobs.Experiment{ConfigMap: &corev1.ConfigMap{}, Report: r, Began: !f.resumed}, nil
}

func (f *fakeExperiments) SaveReport(context.Context, *jobs.Experiment) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.saves++
	if f.saves > 2 { // the last of two checks and the end
		return f.errs.save
	}
	return nil
}

func (f *fakeExperiments) SendHeartbeats(ctx context.Context, _ *jobs.Experiment) error {
	if f.errs.heartbeats != nil {
		return f.errs.heartbeats
	}
	<-ctx.Done()
	return nil
}

func (f *fakeExperiments) Release(context.Context, *jobs.Experiment) { f.released = true }

func (f *fakeExperiments) AbandonExperiment(context.Context, *jobs.Experiment, []string) ([]string, error) {
	f.abandoned = true
	return f.left, nil
}

func (f *fakeExperiments) CreateObjects(context.Context, []suite.Object) error {
	return f.errs.create
}

func (f *fakeExperiments) DeleteCreated(_ context.Context, _ string, names []string) []string {
	f.deleted = append(f.deleted, names...)
	return f.left
}

func (f *fakeExperiments) Check(
	ctx context.Context, _ *jobs.Experiment, v *suite.Variant, _ jobs.CheckJob,
) (*experiment.Evidence, []string, error) {
	f.mu.Lock()
	f.checked = append(f.checked, v.Name)
	f.mu.Unlock()
	if f.check != nil {
		if err := f.check(ctx, v); err != nil {
			return nil, nil, err
		}
	}
	return &experiment.Evidence{Job: experiment.NotCreated("no")}, nil, nil
}

func (f *fakeExperiments) Compare(
	context.Context, *jobs.Experiment, []suite.Variant, string, jobs.CheckJob,
) ([]*experiment.Evidence, io.Reader, []string, error) {
	return nil, nil, nil, errors.New("there is no built-in check")
}

// start starts an experiment over the sandboxes.
func (f *fakeExperiments) start(ctx context.Context, t *testing.T, sandboxes ...string) (*ExperimentRun, error) {
	t.Helper()
	parsed, err := suite.Parse("suite.yaml", []byte(suiteText))
	if err != nil {
		t.Fatal(err)
	}
	e := Experiment{Namespace: "shop", Read: f, Sources: f, Store: f, Checks: f, Report: &reported{}}
	return e.Start(ctx, ExperimentOptions{
		ID: "r1", Args: sandboxes, Suite: *parsed, Require: experiment.RequireAny, Parallel: 2, Timeout: time.Minute,
		Wait: true, Command: []string{"kubectl", "sandbox", "test"},
	})
}

// run starts an experiment over both sandboxes, and runs it.
func (f *fakeExperiments) run(ctx context.Context, t *testing.T) (*experiment.Report, error) {
	t.Helper()
	r, err := f.start(ctx, t, "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	return r.Run(ctx)
}

func TestExperiment_IsNotStartedOverAMissingSandbox(t *testing.T) {
	f := &fakeExperiments{}
	_, err := f.start(t.Context(), t, "a", "c")
	if wantProblem(t, err, `there is no sandbox "c"`); f.started {
		t.Error("it was started")
	}
}

func TestExperiment_LeavesNothingOfOneThatCannotBegin(t *testing.T) {
	for _, tt := range []struct {
		name                string
		resumed             bool
		left                []string
		want                string
		abandoned, released bool
	}{
		{"all is deleted", false, nil, "experiment r1: no; nothing of it is left", true, false},
		{"something can't be deleted", false, []string{"configmap/run-r1"},
			"experiment r1: no; still there: configmap/run-r1", true, false},
		{"another command began it", true, nil, "experiment r1: no; what it found so far is kept", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &fakeExperiments{resumed: tt.resumed, left: tt.left}
			f.errs.create = errors.New("no")
			_, err := f.start(t.Context(), t, "a")
			if wantProblem(t, err, tt.want); f.abandoned != tt.abandoned || f.released != tt.released {
				t.Errorf("abandoned: %t, released: %t", f.abandoned, f.released)
			}
		})
	}
}

func TestExperiment_ChecksEveryVariant(t *testing.T) {
	f := &fakeExperiments{}
	rep, err := f.run(t.Context(), t)
	if err != nil || f.saves != 3 || rep.Window.Ended.IsZero() || len(f.checked) != 2 {
		t.Fatalf("got %v, %d saves, checked %q, error %v", rep, f.saves, f.checked, err)
	}
	for _, v := range rep.Variants {
		if !v.Results[0].Done() || v.Results[0].Verdict.Outcome != experiment.Inconclusive {
			t.Errorf("%s: %v", v.Name, v.Results[0].Verdict)
		}
	}
}

func TestExperiment_ReturnsAReportThatCannotBeKept(t *testing.T) {
	f := &fakeExperiments{}
	f.errs.save = errors.New("no")
	rep, err := f.run(t.Context(), t)
	if rep == nil || err == nil || !strings.Contains(err.Error(), "its report could not be kept") || f.abandoned {
		t.Errorf("got %v, error %v, abandoned: %t", rep, err, f.abandoned)
	}
}

func TestExperiment_StopsWhenAnotherClientTakesOver(t *testing.T) {
	f := &fakeExperiments{check: func(ctx context.Context, _ *suite.Variant) error { <-ctx.Done(); return ctx.Err() }}
	f.errs.heartbeats = jobs.ErrNotHolder
	rep, err := f.run(t.Context(), t)
	if rep != nil || !errors.Is(err, jobs.ErrNotHolder) || f.abandoned || f.released {
		t.Errorf("got %v, error %v, abandoned: %t, released: %t", rep, err, f.abandoned, f.released)
	}
}

func TestExperiment_IsDeletedWhenInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := &fakeExperiments{check: func(context.Context, *suite.Variant) error { cancel(); return ctx.Err() }}
	_, err := f.run(ctx, t)
	if wantProblem(t, err, "experiment r1: interrupted; nothing of it is left"); !f.abandoned {
		t.Error("it was not abandoned")
	}
}

// A failure of a later check must not lose the results of an earlier one.
func TestExperiment_KeepsWhatItFoundBeforeAFailure(t *testing.T) {
	f := &fakeExperiments{}
	first := make(chan struct{})
	f.check = func(_ context.Context, v *suite.Variant) error {
		if v.Name == "a" {
			defer close(first)
			return nil
		}
		<-first
		for done := false; !done; time.Sleep(time.Millisecond) { // until the result is recorded
			f.mu.Lock()
			done = f.saves > 0
			f.mu.Unlock()
		}
		return errors.New("no")
	}
	_, err := f.run(t.Context(), t)
	if p := wantProblem(
		t,
		err,
		"what it found so far is kept",
	); f.abandoned || !f.released ||
		!slices.Contains(p.Fix, "--id=r1") {
		t.Errorf("abandoned: %t, released: %t, fix %q", f.abandoned, f.released, p.Fix)
	}
}

func TestExperiment_WaitsForRoomInTheQuota(t *testing.T) {
	for _, tt := range []struct {
		name   string
		room   time.Duration // when there is room again
		reason bool          // whether the verdict names the quota
	}{
		{"until there is some", 15 * time.Second, false},
		{"no longer than the check may take", 24 * time.Hour, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				f := &fakeExperiments{check: func(context.Context, *suite.Variant) error {
					if time.Since(begun) < tt.room {
						return &jobs.QuotaError{Message: "exceeded quota: pods"}
					}
					return nil
				}}
				r, err := f.start(t.Context(), t, "a")
				if err != nil {
					t.Fatal(err)
				}
				rep, err := r.Run(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				reasons := rep.Variants[0].Results[0].Verdict.Reasons
				if len(reasons) == 0 || strings.Contains(reasons[0].Message, "quota") != tt.reason ||
					time.Since(begun) > time.Hour {
					t.Errorf("after %s: %v", time.Since(begun), reasons)
				}
			})
		})
	}
}

func TestExperiment_DeletesOnlyWhatItCreated(t *testing.T) {
	f := &fakeExperiments{left: []string{"configmap/sandbox-a"}}
	r, err := f.start(t.Context(), t, "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	r.kept.Report.Variants[0].Made = true
	if left := r.Delete(t.Context(), DeleteAll); !slices.Equal(f.deleted, []string{"a"}) || !slices.Equal(left, f.left) {
		t.Errorf("deleted %q, left %q", f.deleted, left)
	}
	f.deleted = nil
	if r.Delete(t.Context(), DeleteNone); len(f.deleted) > 0 {
		t.Errorf("deleted %q", f.deleted)
	}
}
