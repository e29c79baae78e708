package cluster

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/policies"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func deployments() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
}

// ReadFork reads the workloads that args name and everything else that planning their forks needs, with as many
// concurrent calls as possible. The number of calls does not depend on what the namespace holds. The amount of data
// does not depend on the number of sandboxes, because other sandboxes' forks are left out.
func (c *Client) ReadFork(ctx context.Context, args []string, o *forks.Options) ([]*plan.Workload, *forks.State, error) {
	state := &forks.State{Namespace: c.Namespace}
	var workloads []*plan.Workload
	reads := []func() error{
		func() (err error) { workloads, err = c.objects(ctx, args, o.TemplatePath); return err },
		func() (err error) { state.Sandbox, err = c.sandboxConfigMap(ctx, o.Sandbox); return err },
		func() error {
			list, err := c.Dynamic.Resource(deployments()).Namespace(c.Namespace).List(ctx, metav1.ListOptions{
				LabelSelector: sandbox.LabelSandbox + "=" + o.Sandbox + "," + sandbox.LabelRole + "=" + sandbox.RoleFork,
			})
			if err == nil {
				state.Forks = list.Items
			}
			return err
		},
		func() error {
			list, err := c.Kube.CoreV1().Services(c.Namespace).List(ctx, metav1.ListOptions{})
			if err == nil {
				state.Services = list.Items
			}
			return err
		},
		func() error {
			installed, err := c.installation(ctx)
			state.NoWebhook, state.DefaultTTL = installed.missing, installed.defaultTTL
			return err
		},
		func() error { state.User = c.user(ctx); return nil },
		func() error { return c.readNamespace(ctx, &state.Objects) },
		func() error { return c.policies(ctx, &state.Policies) },
		func() (err error) { state.Admission, err = c.admission(ctx); return err },
	}
	if !o.Rebase {
		reads = append(reads, func() (err error) {
			state.Sandboxes, err = c.sandboxes(ctx, c.Namespace, sandbox.LabelKey+"="+o.OwnKey())
			return err
		})
	}
	if err := inParallel(reads...); err != nil {
		return nil, nil, Explain(err)
	}
	for _, w := range workloads {
		w.RememberTemplate(o.Sandbox, state.Forks)
		if err := plan.CheckWorkload(w); err != nil {
			return nil, nil, err
		}
	}
	err := inParallel(
		func() (err error) {
			state.Taken, err = c.deploymentsNamed(ctx, forks.Names(o.Sandbox, workloads, state.Forks))
			return err
		},
		func() error { return c.readDependents(ctx, workloads, &state.Objects) },
		func() error { return c.furtherPolicies(ctx, state, o.Sandbox) },
		func() (err error) {
			state.EnvFrom, err = c.envSources(ctx, forks.EnvSourceRefs(o, workloads, state.Forks))
			return err
		},
	)
	return workloads, state, Explain(err)
}

// sandboxConfigMap returns the ConfigMap of that sandbox name; nil if there is none.
func (c *Client) sandboxConfigMap(ctx context.Context, name string) (*corev1.ConfigMap, error) {
	cm, err := c.Kube.CoreV1().ConfigMaps(c.Namespace).Get(ctx, sandbox.ConfigMapName(name), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return cm, err
}

// user returns the caller's name as the API server knows it; empty if it does not report one.
func (c *Client) user(ctx context.Context) string {
	review, err := c.Kube.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return "" // a nicety of the sandbox's description; nothing depends on it
	}
	return review.Status.UserInfo.Username
}

// deploymentsNamed returns which of the names belong to existing Deployments.
func (c *Client) deploymentsNamed(ctx context.Context, names []string) (map[string]bool, error) {
	there := make([]bool, len(names))
	reads := make([]func() error, len(names))
	for i, name := range names {
		reads[i] = func() error {
			_, err := c.Dynamic.Resource(deployments()).Namespace(c.Namespace).Get(ctx, name, metav1.GetOptions{})
			there[i] = err == nil
			if apierrors.IsNotFound(err) {
				return nil
			}
			return err
		}
	}
	err := inParallel(reads...)
	taken := map[string]bool{}
	for i, name := range names {
		taken[name] = taken[name] || there[i]
	}
	return taken, err
}

// cleanUpTime bounds the clean-up of partial writes after a failure or an interrupt.
const cleanUpTime = 15 * time.Second

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
func (c *Client) ApplyFork(ctx context.Context, p *forks.Plan, dryRun bool) (*Applied, error) {
	// A write is never cancelled midway, so that its outcome is known. ctx is checked between writes.
	write := context.WithoutCancel(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	cm, err := c.applySandbox(write, p, dryRun)
	if err != nil {
		if uncertain(err) && !dryRun && p.Exists == "" {
			return nil, c.undo(write, p, &Applied{}, true, Explain(err))
		}
		return nil, Explain(err)
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
		if got, err = c.Apply(write, deployments(), d, p.Forks[i].Force, dryRun); err != nil {
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
		(!errors.As(err, &status) || apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || apierrors.IsInternalError(err))
}

// applySandbox creates the ConfigMap, or writes its expiry. It creates instead of applying, so that exactly one of
// several concurrent commands chooses the key.
func (c *Client) applySandbox(ctx context.Context, p *forks.Plan, dryRun bool) (*corev1.ConfigMap, error) {
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
	cm, err := api.Patch(ctx, p.ConfigMap.Name, types.MergePatchType, p.Renewal(), metav1.PatchOptions{FieldManager: sandbox.FieldManager, DryRun: dry})
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
			return Explain(err)
		}
	}
	if _, unknown := forks.UnknownField(err); unknown || apierrors.IsConflict(err) || apierrors.IsInvalid(err) {
		return p.ApplyProblem(f, err)
	}
	return Explain(err)
}

// undo deletes what was created and returns cause, with what is left, if anything. With doubt, the write after those
// in applied may have happened too.
func (c *Client) undo(ctx context.Context, p *forks.Plan, applied *Applied, doubt bool, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, cleanUpTime)
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
func (c *Client) undoSandbox(ctx context.Context, p *forks.Plan, made *corev1.ConfigMap) (left []string) {
	err := error(nil)
	if made == nil {
		made, err = c.sandboxConfigMap(ctx, p.Sandbox)
		if err == nil && (made == nil || made.Data[sandbox.DataKey] != p.Key || p.CreatedBy != "" && made.Data[sandbox.DataCreatedBy] != p.CreatedBy) {
			return nil
		}
	}
	if err == nil {
		err = c.deleteSandbox(ctx, made, false)
	}
	if err != nil {
		return []string{"configmap/" + p.ConfigMap.Name}
	}
	return nil
}

// undoForks deletes the forks that were added to an existing sandbox. Updated forks stay.
func (c *Client) undoForks(ctx context.Context, p *forks.Plan, applied *Applied, doubt bool) (left []string) {
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
		if err == nil && ownedBy(d.OwnerReferences, applied.ConfigMap.UID) {
			err = api.Delete(ctx, d.Name, deleteOptions(d.UID, false))
		}
		if err != nil && !apierrors.IsNotFound(err) {
			left = append(left, name)
		}
	}
	return left
}

func ownedBy(owners []metav1.OwnerReference, uid types.UID) bool {
	return slices.ContainsFunc(owners, func(r metav1.OwnerReference) bool { return r.UID == uid })
}

// deleteSandbox deletes the ConfigMap by its uid, so that a recreated one of the same name stays.
func (c *Client) deleteSandbox(ctx context.Context, cm *corev1.ConfigMap, dryRun bool) error {
	err := c.Kube.CoreV1().ConfigMaps(cm.Namespace).Delete(ctx, cm.Name, deleteOptions(cm.UID, dryRun))
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone, or another's
	}
	return err
}

// sandboxes returns the ConfigMaps of the namespace's sandboxes that the label selector selects; of all namespaces if
// namespace is empty.
func (c *Client) sandboxes(ctx context.Context, namespace, selector string) ([]corev1.ConfigMap, error) {
	only := sandbox.LabelRole + "=" + sandbox.RoleSandbox
	if selector != "" {
		only += "," + selector
	}
	list, err := c.Kube.CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{LabelSelector: only})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}
