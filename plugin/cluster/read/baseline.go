package read

import (
	"context"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
)

// maxBaselines bounds how many baselines are read concurrently.
const maxBaselines = 16

// baselineStates returns the states of forks relative to their baselines, by "NAMESPACE/NAME" of the fork. Each
// baseline is read once. Forks whose baselines the caller may not read are left out.
func (c *Reader) baselineStates(ctx context.Context, forks []appsv1.Deployment) (map[string]sandboxes.BaselineState, error) {
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
	return states, cluster.Explain(cluster.InParallel(reads...))
}

// baseline reads a fork's baseline; nil if it does not exist. It is not known if the caller may not read it, or the
// cluster no longer knows its kind.
func (c *Reader) baseline(
	ctx context.Context,
	namespace string,
	ref fork.Ref,
) (u *unstructured.Unstructured, known bool, err error) {
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
