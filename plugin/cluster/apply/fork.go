package apply

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/policies"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// CleanUpTime bounds the clean-up of partial writes after a failure or an interrupt.
const CleanUpTime = 15 * time.Second

// Applied is what ApplyFork wrote.
type Applied struct {
	ConfigMap *corev1.ConfigMap
	Forks     []*unstructured.Unstructured // in the order of the plan
	// Policies are those of each fork, in the order of the plan.
	Policies [][]*unstructured.Unstructured

	policies []*policies.Policy // those that were written, or may have been
}

// errSandboxExists means that somebody else created the sandbox since it was read: plan again.
var errSandboxExists = errors.New("the sandbox was created by somebody else just now")

// IsStale reports whether a plan must be made again because the state that it was based on has changed.
func IsStale(err error) bool { return errors.Is(err, errSandboxExists) }

// ApplyFork writes the plan: first the ConfigMap, which decides who created the sandbox; then the forks, each after
// its policies. The ConfigMap owns all of them. If a write fails, or ctx ends, ApplyFork deletes what it created.
// Existing objects that it updated stay updated, and the error says so. With dryRun the API server does everything
// but store it.
func (c *Writer) ApplyFork(ctx context.Context, p *forks.Plan, dryRun bool) (*Applied, error) {
	// A write is never cancelled midway, so that its outcome is known. ctx is checked between writes.
	write := context.WithoutCancel(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cm, err := c.applySandbox(write, p, dryRun)
	if err != nil {
		if uncertain(err) && !dryRun && p.Exists == "" {
			return nil, c.undo(write, p, &Applied{}, true, cluster.Explain(err))
		}
		return nil, cluster.Explain(err)
	}
	applied := &Applied{ConfigMap: cm}
	doubt := false
	for i := range p.Forks {
		if err = ctx.Err(); err != nil {
			break
		}
		if err = c.applyPolicies(ctx, p, &p.Forks[i], applied, dryRun); err != nil {
			break
		}
		d := p.Forks[i].Deployment.DeepCopy()
		d.SetOwnerReferences(owner(cm))
		var got *unstructured.Unstructured
		if got, err = c.Apply(write, cluster.Deployments(), d, p.Forks[i].Force, dryRun); err != nil {
			doubt, err = uncertain(err), forkApplyError(p, &p.Forks[i], err)
			break
		}
		applied.Forks = append(applied.Forks, got)
	}
	if err == nil {
		return applied, nil
	}
	if dryRun {
		return nil, err
	}
	return nil, c.undo(write, p, applied, doubt, err)
}

// uncertain reports whether a write that failed with err may have happened anyway: the API server did not answer that
// it had not.
func uncertain(err error) bool {
	var status apierrors.APIStatus
	_, unknown := forks.UnknownField(err)
	return !unknown && !errors.Is(err, errSandboxExists) &&
		(!errors.As(err, &status) ||
			apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || apierrors.IsInternalError(err))
}

// applySandbox creates the ConfigMap, or writes its expiry. It creates instead of applying, so that exactly one of
// several concurrent commands chooses the key.
func (c *Writer) applySandbox(ctx context.Context, p *forks.Plan, dryRun bool) (*corev1.ConfigMap, error) {
	api := c.Kube.CoreV1().ConfigMaps(p.Namespace)
	var dry []string
	if dryRun {
		dry = []string{metav1.DryRunAll}
	}
	if p.Exists == "" {
		cm, err := api.Create(ctx, p.ConfigMap, metav1.CreateOptions{FieldManager: sandbox.FieldManager, DryRun: dry})
		if apierrors.IsAlreadyExists(err) || p.KeyMayChange && plan.KeyInUse(err) {
			return nil, errSandboxExists
		}
		return cm, err
	}
	cm, err := api.Patch(
		ctx,
		p.ConfigMap.Name,
		types.MergePatchType,
		p.Renewal(),
		metav1.PatchOptions{FieldManager: sandbox.FieldManager, DryRun: dry},
	)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // deleted meanwhile, or recreated
		return nil, errSandboxExists
	}
	return cm, err
}

// forkApplyError explains why a fork can't be applied.
func forkApplyError(p *forks.Plan, f *forks.Fork, err error) error {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		if s := status.Status(); plan.ExplainRefusal(&s, err) != nil {
			return cluster.Explain(err)
		}
	}
	if _, unknown := forks.UnknownField(err); unknown || apierrors.IsConflict(err) || apierrors.IsInvalid(err) {
		return p.ApplyProblem(f, err)
	}
	return cluster.Explain(err)
}

// undo deletes what was created and returns cause, with what is left, if anything. With doubt, the write after those
// in applied may have happened too.
func (c *Writer) undo(ctx context.Context, p *forks.Plan, applied *Applied, doubt bool, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, CleanUpTime)
	defer cancel()
	var left []string
	if p.Exists == "" {
		left = c.undoSandbox(ctx, p, applied.ConfigMap)
	} else {
		left = append(c.undoForks(ctx, p, applied, doubt), c.undoPolicies(ctx, applied)...)
	}
	if len(left) == 0 {
		return cause
	}
	return p.LeftProblem(cause, strings.Join(left, ", "))
}

// undoSandbox deletes the created ConfigMap, and leaves what it owns to the garbage collector. If it is unknown
// whether the ConfigMap was created, its key identifies it.
func (c *Writer) undoSandbox(ctx context.Context, p *forks.Plan, made *corev1.ConfigMap) (left []string) {
	err := error(nil)
	if made == nil {
		made, err = c.read.SandboxConfigMap(ctx, p.Sandbox)
		if err == nil && (made == nil || made.Data[sandbox.DataKey] != p.Key ||
			p.CreatedBy != "" && made.Data[sandbox.DataCreatedBy] != p.CreatedBy) {
			return nil
		}
	}
	if err == nil {
		err = c.DeleteSandbox(ctx, made, false)
	}
	if err != nil {
		return []string{"configmap/" + p.ConfigMap.Name}
	}
	return nil
}

// undoForks deletes the forks that were added to an existing sandbox. Updated forks stay.
func (c *Writer) undoForks(ctx context.Context, p *forks.Plan, applied *Applied, doubt bool) (left []string) {
	written := len(applied.Forks)
	if doubt {
		written++
	}
	api := c.Kube.AppsV1().Deployments(p.Namespace)
	for i := range written {
		f := &p.Forks[i]
		name := "deployment.apps/" + f.Name()
		if f.Replaces != 0 {
			left = append(left, name)
			continue
		}
		d, err := api.Get(ctx, f.Name(), metav1.GetOptions{})
		if err == nil && OwnedBy(d.OwnerReferences, applied.ConfigMap.UID) {
			err = api.Delete(ctx, d.Name, DeleteOptions(d.UID, false))
		}
		if err != nil && !apierrors.IsNotFound(err) {
			left = append(left, name)
		}
	}
	return left
}

// OwnedBy reports whether one of the owners has the uid.
func OwnedBy(owners []metav1.OwnerReference, uid types.UID) bool {
	return slices.ContainsFunc(owners, func(r metav1.OwnerReference) bool { return r.UID == uid })
}

// DeleteSandbox deletes the ConfigMap by its uid, so that a recreated one of the same name stays.
func (c *Writer) DeleteSandbox(ctx context.Context, cm *corev1.ConfigMap, dryRun bool) error {
	err := c.Kube.CoreV1().ConfigMaps(cm.Namespace).Delete(ctx, cm.Name, DeleteOptions(cm.UID, dryRun))
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone, or another's
	}
	return err
}
