package operate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
)

// RouteTimeout is the default limit of the time that routing takes: the default progress deadline of a Deployment.
const RouteTimeout = 10 * time.Minute

// A Routing reads and writes what routing some workloads of a namespace needs.
type Routing interface {
	// Routable returns a *plan.Problem if pods of the namespace can't get routers.
	Routable() error
	// MayRoute returns a *plan.Problem if the caller lacks the right to mark baselines.
	MayRoute(ctx context.Context) error
	// ReadPolicies adds to the views what routing can only warn of.
	ReadPolicies(ctx context.Context) error
	View(ctx context.Context) (*routes.View, error)
	// Admission returns a *plan.Problem if pods of the view's targets would get no routers.
	Admission(ctx context.Context, view *routes.View) error
	// Write does one write, and returns the object as the API server stored it, or would.
	Write(ctx context.Context, w *routes.Write, dryRun bool) (*unstructured.Unstructured, error)
	// Watch sends the workload each time it changes.
	Watch(ctx context.Context, w *plan.Workload, changes chan<- *plan.Workload)
	// Explain turns an error of a Write into a Problem.
	Explain(ctx context.Context, err error) error
}

// OpenRouting returns the Routing of workloads of a namespace.
type OpenRouting func(ctx context.Context, targets []*plan.Workload) (Routing, error)

// A WorkloadReader reads the workloads that args name.
type WorkloadReader interface {
	Workloads(ctx context.Context, args []string, templatePath string) ([]*plan.Workload, error)
}

// A RoutePlanner plans all steps from a view, and returns the resulting view.
type RoutePlanner func(*routes.View) ([]*routes.Step, *routes.View, error)

// A Route puts routers in front of workloads.
type Route struct {
	Read WorkloadReader
	// Routable reads all workloads of the namespace that can be routed, and says why the others are left out.
	Routable func(ctx context.Context) ([]*plan.Workload, []string, error)
	Open     OpenRouting
	Report   Reporter
}

// RouteOptions select the workloads to route.
type RouteOptions struct {
	All          bool
	Workloads    []string // without All
	TemplatePath string
}

// Plan plans the steps. It returns nil if there is no workload to route.
func (r *Route) Plan(ctx context.Context, o RouteOptions) (*RoutePlan, error) {
	workloads, err := r.workloads(ctx, o)
	if err != nil || o.All && len(workloads) == 0 {
		return nil, err
	}
	return planRoute(ctx, r.Open, workloads, func(view *routes.View) ([]*routes.Step, *routes.View, error) {
		return routes.Steps(view, routes.Route)
	}, r.Report)
}

func (r *Route) workloads(ctx context.Context, o RouteOptions) ([]*plan.Workload, error) {
	if !o.All {
		return r.Read.Workloads(ctx, o.Workloads, o.TemplatePath)
	}
	workloads, left, err := r.Routable(ctx)
	if err != nil {
		return nil, err
	}
	for _, why := range left {
		r.Report.Warn("left out: " + why)
	}
	return workloads, nil
}

// A RoutePlan holds the steps that put routers in front of workloads of one namespace, or remove them.
type RoutePlan struct {
	Targets  []*plan.Workload
	Services []*corev1.Service // that were named
	Steps    []*routes.Step    // all that are to come, if all goes well
	Removes  bool              // the routers

	final   *routes.View // how things are after the steps
	next    func(*routes.View) (*routes.Step, error)
	routing Routing
}

// planRoute plans the steps that route the workloads, and reports what they will do. It changes nothing.
func planRoute(
	ctx context.Context, open OpenRouting, workloads []*plan.Workload, steps RoutePlanner, report Reporter,
) (*RoutePlan, error) {
	r, err := open(ctx, workloads)
	if err != nil {
		return nil, err
	}
	if err := r.Routable(); err != nil {
		return nil, err
	}
	if err := r.MayRoute(ctx); err != nil {
		return nil, err
	}
	if err := r.ReadPolicies(ctx); err != nil {
		return nil, err
	}
	p := &RoutePlan{routing: r, next: routes.Route}
	view, err := p.plan(ctx, steps)
	if err != nil {
		return nil, err
	}
	notices, err := routes.Notices(view)
	if err != nil {
		return nil, err
	}
	if len(p.Steps) > 0 {
		for _, n := range append(notices, routes.ProtocolNotices(view)...) {
			report.Warn(n)
		}
	}
	p.Announce(report)
	return p, nil
}

// plan plans all steps, and returns the view that they start from.
func (p *RoutePlan) plan(ctx context.Context, steps RoutePlanner) (*routes.View, error) {
	view, err := p.routing.View(ctx)
	if err != nil {
		return nil, err
	}
	p.Targets = view.Targets
	if p.Steps, p.final, err = steps(view); err != nil {
		return nil, err
	}
	return view, nil
}

// Announce reports which workloads will roll out.
func (p *RoutePlan) Announce(report Reporter) {
	for _, t := range p.Targets {
		if n := p.rollouts(t); n > 0 {
			report.RollsOut(t, n)
		}
	}
}

// Rolls reports whether any workload rolls out.
func (p *RoutePlan) Rolls() bool {
	return slices.ContainsFunc(p.Targets, func(t *plan.Workload) bool { return p.rollouts(t) > 0 })
}

func (p *RoutePlan) rollouts(w *plan.Workload) int {
	n := 0
	for _, step := range p.Steps {
		for _, write := range step.Writes {
			if write.Rolls != nil && write.Rolls.Object.GetUID() == w.Object.GetUID() {
				n++
			}
		}
	}
	return n
}

// Admission checks before any change whether the pods would get routers.
func (p *RoutePlan) Admission(ctx context.Context) error {
	if !p.Rolls() {
		return nil
	}
	return p.routing.Admission(ctx, p.final)
}

// DryRun makes the API server process all the steps without storing them. It returns each object once, with all
// changes of the steps. After an error, it returns those before it.
func (p *RoutePlan) DryRun(ctx context.Context) ([]RouteWritten, error) {
	var wrote []RouteWritten
	for _, w := range routes.MergeSteps(p.Steps) {
		object, err := p.routing.Write(ctx, &w, true)
		if err != nil {
			return wrote, p.routing.Explain(ctx, err)
		}
		if w.Forgets {
			object = w.After
		}
		wrote = append(wrote, RouteWritten{w, object})
	}
	return wrote, nil
}

var errRouteTimeout = errors.New("timed out")

// Do takes the steps, and returns what it wrote. timeout bounds the time; 0 means no limit. Without wait, the last
// rollout is not waited for. If it fails after a write, the error is a *PartlyRouted.
func (p *RoutePlan) Do(ctx context.Context, timeout time.Duration, wait bool, report Reporter) ([]RouteWritten, error) {
	running := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		running, cancel = context.WithTimeoutCause(ctx, timeout, errRouteTimeout)
		defer cancel()
	}
	steps := &routeSteps{routing: p.routing, report: report}
	view, err := steps.run(running, p.next, wait)
	report.Waiting("")
	if err != nil {
		return nil, p.explain(ctx, err, timeout, steps)
	}
	if !p.Removes && wait {
		return steps.wrote, checkRouters(view, report)
	}
	return steps.wrote, nil
}

// A PartlyRouted is the error of steps of which some were taken: they stay.
type PartlyRouted struct {
	*plan.Problem
	Plan    *RoutePlan
	Changed []string // objects
}

// Unwrap returns the Problem.
func (e *PartlyRouted) Unwrap() error { return e.Problem }

// explain turns an error of the steps into a Problem, and adds what was written.
func (p *RoutePlan) explain(ctx context.Context, err error, timeout time.Duration, steps *routeSteps) error {
	problem := &plan.Problem{What: err.Error(), Err: err}
	var known *plan.Problem
	switch {
	case ctx.Err() != nil:
		problem.What, problem.Code = "interrupted", status.CodeInterrupted
	case errors.Is(err, errRouteTimeout) || errors.Is(err, context.DeadlineExceeded):
		problem.What, problem.Code = fmt.Sprintf("timed out after %s (--timeout)", timeout), status.CodeTimedOut
		if len(steps.waits) > 0 {
			problem.What += ", waiting for " + describeWait(steps.waits[0])
		}
	case errors.As(cluster.Explain(err), &known):
		problem = known
	}
	if len(steps.wrote) == 0 {
		return problem
	}
	var objects []string
	for _, w := range steps.wrote {
		if !slices.Contains(objects, w.Write.Object) {
			objects = append(objects, w.Write.Object)
		}
	}
	return &PartlyRouted{Problem: problem, Plan: p, Changed: objects}
}

// checkRouters warns of ready pods that should have a router and have none. It fails if a workload has no pod with a
// router.
func checkRouters(view *routes.View, report Reporter) error {
	gaps := routes.RouterGaps(view)
	for _, g := range gaps {
		report.Warn(fmt.Sprintf("%s: %s", g.Workload, g.Message))
	}
	if len(gaps) == 0 {
		return nil
	}
	w := gaps[0].Workload
	return &plan.Problem{
		What: fmt.Sprintf("%s was rolled out, but not all its pods have routers: no request reaches a fork of it", w),
		Hint: "fix the reason above, then recreate its pods", Fix: plan.Kubectl("rollout", "restart", w.Arg()),
	}
}
