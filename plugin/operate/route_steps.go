package operate

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
)

// maxRefusals bounds how often in a row the steps are planned again because objects changed between reading and
// writing.
const maxRefusals = 10

// recheck is how often everything is read again during a rollout whose status does not show its end.
const recheck = time.Second

var errRecheck = errors.New("look again")

// A RouteWritten is an object as the API server stored it.
type RouteWritten struct {
	Write  routes.Write
	Object *unstructured.Unstructured
}

// routeSteps takes the steps that put routers in front of workloads, or remove them.
type routeSteps struct {
	routing Routing
	report  Reporter

	wrote []RouteWritten
	waits []routes.Wait // the last known
}

// run takes steps until none is left or, without wait, until only the last rollout is. It returns the last view.
// After an error, the steps so far stay; calling run again resumes from there, in either direction.
func (s *routeSteps) run(
	ctx context.Context, next func(*routes.View) (*routes.Step, error), wait bool,
) (*routes.View, error) {
	for refusals := 0; ; {
		view, err := s.routing.View(ctx)
		if err != nil {
			return nil, err
		}
		step, err := next(view)
		switch {
		case err != nil:
			return view, err
		case step.Done, step.Last && !wait:
			return view, nil
		case len(step.Writes) == 0:
			if err := s.await(ctx, step); err != nil {
				return view, err
			}
			continue
		}
		err = s.writeAll(ctx, step)
		if err == nil {
			refusals = 0
			continue
		}
		if refusals++; !refused(err) || refusals > maxRefusals {
			return view, s.routing.Explain(ctx, err)
		}
	}
}

func (s *routeSteps) writeAll(ctx context.Context, step *routes.Step) error {
	for i := range step.Writes {
		object, err := s.routing.Write(ctx, &step.Writes[i], false)
		if err != nil {
			return err
		}
		s.wrote = append(s.wrote, RouteWritten{step.Writes[i], object})
	}
	return nil
}

// refused reports whether the API server found an object changed since it was read: then reading again helps. A patch
// whose test fails is answered with 422, as is an invalid object.
func refused(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsInvalid(err) ||
		apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err)
}

// await returns when a rollout that the step waits for has ended, or after recheck, or with the reason why it never
// will.
func (s *routeSteps) await(ctx context.Context, step *routes.Step) error {
	s.waits = step.Waits
	s.report.Waiting(step.Title + ": " + describeWait(step.Waits[0]))
	for _, w := range step.Waits {
		if w.Failed {
			return fmt.Errorf("%s does not roll out: %s", w.Workload, w.Message)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, recheck, errRecheck)
	defer cancel()
	changes := make(chan *plan.Workload)
	for _, w := range step.Waits {
		if w.Workload != nil {
			go s.routing.Watch(ctx, w.Workload, changes)
		}
	}
	for {
		select {
		case <-ctx.Done():
			if err := context.Cause(ctx); !errors.Is(err, errRecheck) {
				return err
			}
			return nil
		case w := <-changes:
			if _, done, err := plan.RolledOut(w); done || err != nil {
				return nil
			}
		}
	}
}

func describeWait(w routes.Wait) string {
	if w.Workload == nil {
		return w.Message
	}
	return w.Workload.String() + ": " + w.Message
}
