package operate

import (
	"context"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
)

// An UnrouteReader reads the workloads to unroute.
type UnrouteReader interface {
	WorkloadReader
	// RoutedByNamespace reads which workloads are routed; of all namespaces if namespace is empty.
	RoutedByNamespace(ctx context.Context, namespace string) ([]read.RoutedNamespace, error)
}

// An Unroute removes routers from workloads.
type Unroute struct {
	Read UnrouteReader
	// Open returns the Routing of workloads of any namespace.
	Open func(ctx context.Context, namespace string, targets []*plan.Workload) (Routing, error)
}

// UnrouteOptions select the workloads and Services to unroute.
type UnrouteOptions struct {
	Namespace string // empty, with All: all of them
	All       bool
	Force     bool // even if forks still need the routers

	// Workloads and Services are named, without All.
	Workloads, Services []string
}

// Plan plans the steps, for each namespace before anything is changed. With All, it leaves out namespaces in which
// there is nothing to do.
func (u *Unroute) Plan(ctx context.Context, o UnrouteOptions) ([]*RoutePlan, error) {
	if !o.All {
		var workloads []*plan.Workload
		if len(o.Workloads) > 0 {
			var err error
			if workloads, err = u.Read.Workloads(ctx, o.Workloads, ""); err != nil {
				return nil, err
			}
		}
		p, err := u.plan(ctx, o, o.Namespace, workloads)
		if err != nil {
			return nil, err
		}
		return []*RoutePlan{p}, nil
	}
	routed, err := u.Read.RoutedByNamespace(ctx, o.Namespace)
	if err != nil {
		return nil, err
	}
	var plans []*RoutePlan
	for _, r := range routed {
		p, err := u.plan(ctx, o, r.Namespace, r.Workloads)
		if err != nil {
			return nil, err
		}
		if len(p.Steps) > 0 {
			plans = append(plans, p)
		}
	}
	return plans, nil
}

// plan plans for one namespace: for workloads, and for the named Services or, with All, the switched ones.
func (u *Unroute) plan(
	ctx context.Context, o UnrouteOptions, namespace string, workloads []*plan.Workload,
) (*RoutePlan, error) {
	routing, err := u.Open(ctx, namespace, workloads)
	if err != nil {
		return nil, err
	}
	if err := routing.MayRoute(ctx); err != nil {
		return nil, err
	}
	next := routes.Unroute
	if o.Force {
		next = routes.UnrouteForced
	}
	p := &RoutePlan{routing: routing, Removes: true}
	_, err = p.plan(ctx, func(view *routes.View) ([]*routes.Step, *routes.View, error) {
		services := o.Services
		if o.All {
			services = view.Switched()
		} else if p.Services, err = view.NamedServices(services, namespace, o.Force); err != nil {
			return nil, nil, err
		}
		p.next = routes.UnrouteAll(next, services)
		return routes.Steps(view, p.next)
	})
	return p, err
}
