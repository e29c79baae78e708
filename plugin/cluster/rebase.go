package cluster

import (
	"context"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// ReadRebase reads what a rebase is planned from: what ReadFork reads, for the workloads that args name or, without
// args, for all that the sandbox has forks of.
func (c *Client) ReadRebase(ctx context.Context, args []string, o *forks.Options) ([]*plan.Workload, *forks.State, error) {
	if len(args) > 0 {
		return c.ReadFork(ctx, args, o)
	}
	var cm *corev1.ConfigMap
	var forked []appsv1.Deployment
	err := inParallel(
		func() (err error) { cm, err = c.sandboxConfigMap(ctx, o.Sandbox); return err },
		func() (err error) {
			forked, err = c.forks(ctx, c.Namespace, sandbox.LabelSandbox+"="+o.Sandbox)
			return err
		},
	)
	switch {
	case err != nil:
		return nil, nil, Explain(err)
	case cm == nil:
		return nil, nil, plan.NoSandbox(o.Sandbox, c.Namespace)
	case len(forked) == 0:
		return nil, nil, forks.NoForks(o.Sandbox)
	}
	for i := range forked {
		ref, err := fork.BaselineOf(&forked[i])
		if err != nil {
			return nil, nil, err
		}
		resource, err := ref.Resource()
		if err != nil {
			return nil, nil, err
		}
		arg := resource.Resource
		if resource.Group != "" {
			arg += "." + resource.Version + "." + resource.Group
		}
		args = append(args, arg+"/"+ref.Name)
	}
	return c.ReadFork(ctx, args, o)
}

// DryRunForks applies the plan's forks as a dry run on the server: if one of several can't be changed, none is.
func (c *Client) DryRunForks(ctx context.Context, p *forks.Plan) error {
	_, err := c.ApplyFork(ctx, p, true)
	return err
}

// maxBaselines bounds how many baselines are read concurrently.
const maxBaselines = 16

// BaselineStates returns the states of forks relative to their baselines, by "NAMESPACE/NAME" of the fork. Each
// baseline is read once. Forks whose baselines the caller may not read are left out.
func (c *Client) BaselineStates(ctx context.Context, forks []appsv1.Deployment) (map[string]sandboxes.BaselineState, error) {
	type at struct {
		namespace string
		fork.Ref
	}
	of := map[at][]*appsv1.Deployment{}
	for i := range forks {
		if ref, err := fork.BaselineOf(&forks[i]); err == nil {
			where := at{forks[i].Namespace, ref}
			of[where] = append(of[where], &forks[i])
		}
	}
	states := map[string]sandboxes.BaselineState{}
	var mu sync.Mutex
	var reads []func() error
	slots := make(chan struct{}, maxBaselines)
	for where, forks := range of {
		reads = append(reads, func() error {
			slots <- struct{}{}
			defer func() { <-slots }()
			baseline, known, err := c.baseline(ctx, where.namespace, where.Ref)
			if err != nil || !known {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			for _, d := range forks {
				if s, err := sandboxes.BaselineStateOf(d, baseline); err == nil { // else it holds what forks don't
					states[d.Namespace+"/"+d.Name] = s
				}
			}
			return nil
		})
	}
	return states, Explain(inParallel(reads...))
}

// baseline reads a fork's baseline; nil if it does not exist. It is not known if the caller may not read it, or the
// cluster no longer knows its kind.
func (c *Client) baseline(ctx context.Context, namespace string, ref fork.Ref) (u *unstructured.Unstructured, known bool, err error) {
	partial, err := ref.Resource()
	if err != nil {
		return nil, false, nil //nolint:nilerr // somebody edited the fork
	}
	resource, err := c.Mapper.ResourceFor(partial)
	if meta.IsNoMatchError(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	u, err = c.Dynamic.Resource(resource).Namespace(namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, true, nil
	case apierrors.IsForbidden(err):
		return nil, false, nil
	}
	return u, err == nil, err
}
