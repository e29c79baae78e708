package operate

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
)

// fakeRouting answers writes with errors, in order; after the last one, writes succeed.
type fakeRouting struct {
	errs   []error
	writes []string // objects, also of refused writes
	dry    bool     // all writes were dry runs
}

func (r *fakeRouting) Routable() error                               { return nil }
func (r *fakeRouting) MayRoute(context.Context) error                { return nil }
func (r *fakeRouting) ReadPolicies(context.Context) error            { return nil }
func (r *fakeRouting) Explain(_ context.Context, err error) error    { return err }
func (r *fakeRouting) Admission(context.Context, *routes.View) error { return nil }

func (r *fakeRouting) View(ctx context.Context) (*routes.View, error) {
	return &routes.View{}, context.Cause(ctx)
}

func (r *fakeRouting) Write(_ context.Context, w *routes.Write, dryRun bool) (*unstructured.Unstructured, error) {
	r.writes, r.dry = append(r.writes, w.Object), dryRun
	if len(r.errs) > 0 {
		err := r.errs[0]
		r.errs = r.errs[1:]
		return nil, err
	}
	return &unstructured.Unstructured{}, nil
}

func (r *fakeRouting) Watch(ctx context.Context, _ *plan.Workload, _ chan<- *plan.Workload) {
	<-ctx.Done()
}

// writing returns a planner of steps: one for each object until that was written; then waits, if any.
func writing(r *fakeRouting, waits []routes.Wait, objects ...string) func(*routes.View) (*routes.Step, error) {
	return func(*routes.View) (*routes.Step, error) {
		for _, o := range objects {
			if !slices.Contains(r.writes, o) {
				return &routes.Step{Title: "step", Writes: []routes.Write{{Object: o}}}, nil
			}
		}
		if len(waits) > 0 {
			return &routes.Step{Title: "roll out", Waits: waits}, nil
		}
		return &routes.Step{Done: true}, nil
	}
}

func TestRoutePlan_PlansAgainWhenAnObjectHasChanged(t *testing.T) {
	r := &fakeRouting{errs: []error{conflict()}}
	views := 0
	p := &RoutePlan{routing: r, next: func(*routes.View) (*routes.Step, error) {
		if views++; len(r.errs) == 0 && len(r.writes) == 2 {
			return &routes.Step{Done: true}, nil
		}
		return &routes.Step{Writes: []routes.Write{{Object: "service/api"}}}, nil
	}}
	wrote, err := p.Do(t.Context(), 0, true, &reported{})
	if err != nil || len(wrote) != 1 || views != 3 || !slices.Equal(r.writes, []string{"service/api", "service/api"}) {
		t.Errorf("got %v after %d views, writes %q, error %v", wrote, views, r.writes, err)
	}
}

func TestRoutePlan_GivesUpOnAnObjectThatNeverStopsChanging(t *testing.T) {
	r := &fakeRouting{errs: slices.Repeat([]error{conflict()}, 2*maxRefusals)}
	p := &RoutePlan{routing: r, next: func(*routes.View) (*routes.Step, error) {
		return &routes.Step{Writes: []routes.Write{{Object: "service/api"}}}, nil
	}}
	_, err := p.Do(t.Context(), 0, true, &reported{})
	var partly *PartlyRouted
	if err == nil || errors.As(err, &partly) || len(r.writes) != maxRefusals+1 {
		t.Errorf("got %v after %d writes", err, len(r.writes))
	}
}

func TestRoutePlan_NamesWhatWasWrittenBeforeAFailure(t *testing.T) {
	r := &fakeRouting{}
	waits := []routes.Wait{{Message: "image can't be pulled", Failed: true}}
	p := &RoutePlan{routing: r, Removes: true, next: writing(r, waits, "service/api", "deployment.apps/api")}
	_, err := p.Do(t.Context(), 0, true, &reported{})
	var partly *PartlyRouted
	if !errors.As(err, &partly) || partly.Plan != p ||
		!slices.Equal(partly.Changed, []string{"service/api", "deployment.apps/api"}) {
		t.Fatalf("got %#v", err)
	}
	wantProblem(t, err, "does not roll out: image can't be pulled")
}

func TestRoutePlan_StopsAtItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, report := &fakeRouting{}, &reported{}
		p := &RoutePlan{routing: r, next: writing(r, []routes.Wait{{Message: "1 of 2 pods"}}, "deployment.apps/api")}
		begun := time.Now()
		_, err := p.Do(t.Context(), time.Minute, true, report)
		problem := wantProblem(t, err, "timed out after 1m0s (--timeout), waiting for 1 of 2 pods")
		if problem.Code != status.CodeTimedOut || time.Since(begun) != time.Minute ||
			!slices.Equal(report.waits, []string{"roll out: 1 of 2 pods"}) {
			t.Errorf("code %s after %s, waits %q", problem.Code, time.Since(begun), report.waits)
		}
	})
}

func TestRoutePlan_StopsWhenInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(5*time.Second, cancel)
		r := &fakeRouting{}
		p := &RoutePlan{routing: r, next: writing(r, []routes.Wait{{Message: "1 of 2 pods"}})}
		_, err := p.Do(ctx, time.Minute, true, &reported{})
		if problem := wantProblem(t, err, "interrupted"); problem.Code != status.CodeInterrupted {
			t.Errorf("code %s", problem.Code)
		}
	})
}

func TestRoutePlan_LeavesTheLastRolloutAlone(t *testing.T) {
	r := &fakeRouting{}
	p := &RoutePlan{routing: r, next: func(*routes.View) (*routes.Step, error) {
		return &routes.Step{Last: true, Waits: []routes.Wait{{Message: "pods"}}}, nil
	}}
	if _, err := p.Do(t.Context(), 0, false, &reported{}); err != nil {
		t.Error(err)
	}
}

func TestRoutePlan_StoresNothingInADryRun(t *testing.T) {
	r := &fakeRouting{}
	p := &RoutePlan{routing: r, Steps: []*routes.Step{{Writes: []routes.Write{
		{Name: "api", Object: "service/api", Create: &unstructured.Unstructured{}},
		{Name: "web", Object: "service/web", Create: &unstructured.Unstructured{}},
	}}}}
	wrote, err := p.DryRun(t.Context())
	if err != nil || len(wrote) != 2 || !r.dry {
		t.Errorf("got %v, dry run %t, error %v", wrote, r.dry, err)
	}
}
