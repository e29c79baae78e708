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
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func deployments() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
}

// ReadFork reads the workloads that args name and what else a fork of them is planned against, as much at once as can be. The calls
// do not grow with what the namespace holds, nor what is read with the number of its sandboxes: forks of others are left out.
func (c *Client) ReadFork(ctx context.Context, args []string, o *plan.ForkOptions) ([]*plan.Workload, *plan.ForkState, error) {
	state := &plan.ForkState{Namespace: c.Namespace}
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
			state.Taken, err = c.deploymentsNamed(ctx, plan.ForkNames(o.Sandbox, workloads, state.Forks))
			return err
		},
		func() error { return c.readDependents(ctx, workloads, &state.Objects) },
		func() error { return c.furtherPolicies(ctx, state, o.Sandbox) },
		func() (err error) {
			state.EnvFrom, err = c.envSources(ctx, plan.EnvSourceRefs(o, workloads, state.Forks))
			return err
		},
	)
	return workloads, state, Explain(err)
}

// sandboxConfigMap returns the ConfigMap of that sandbox's name, nil where there is none.
func (c *Client) sandboxConfigMap(ctx context.Context, name string) (*corev1.ConfigMap, error) {
	cm, err := c.Kube.CoreV1().ConfigMaps(c.Namespace).Get(ctx, sandbox.ConfigMapName(name), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return cm, err
}

// user returns who the API server takes the caller for; empty where it does not say.
func (c *Client) user(ctx context.Context) string {
	review, err := c.Kube.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return "" // a nicety of the sandbox's description; nothing depends on it
	}
	return review.Status.UserInfo.Username
}

// deploymentsNamed returns which of the names are of Deployments that exist.
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

// cleanUpTime bounds what is done after a failure or an interrupt to leave nothing half-made.
const cleanUpTime = 15 * time.Second

// Applied is what ApplyFork wrote.
type Applied struct {
	ConfigMap *corev1.ConfigMap
	Forks     []*unstructured.Unstructured // in the order of the plan
	// Policies are those of each fork, in the order of the plan.
	Policies [][]*unstructured.Unstructured

	policies []*plan.ForkPolicy // those that were written, or may have been
}

// errSandboxExists says that the sandbox was made by somebody else since it was read: the plan has to be made anew.
var errSandboxExists = errors.New("the sandbox was created by somebody else just now")

// IsStale reports whether a plan must be made anew because what it was planned against has changed.
func IsStale(err error) bool { return errors.Is(err, errSandboxExists) }

// ApplyFork writes the plan: the ConfigMap, which decides who made the sandbox, then the forks, each after its policies, all of
// which it owns. When a write fails, or ctx ends, what was made is deleted again; what existed and was updated stays so, and the
// error says so. With dryRun the API server does all but store it.
func (c *Client) ApplyFork(ctx context.Context, p *plan.ForkPlan, dryRun bool) (*Applied, error) {
	// A write is never cut off midway, so that what was written is known: ctx is looked at between them.
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

// uncertain says whether a write that failed with err may have been made all the same: the API server did not say that it
// was not.
func uncertain(err error) bool {
	var status apierrors.APIStatus
	_, unknown := plan.UnknownField(err)
	return !unknown && !errors.Is(err, errSandboxExists) &&
		(!errors.As(err, &status) || apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || apierrors.IsInternalError(err))
}

// applySandbox creates the ConfigMap, or writes its expiry. Creating, rather than applying, lets exactly one of several
// commands that run at once choose the key.
func (c *Client) applySandbox(ctx context.Context, p *plan.ForkPlan, dryRun bool) (*corev1.ConfigMap, error) {
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
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // deleted meanwhile, or deleted and made anew
		return nil, errSandboxExists
	}
	return cm, err
}

// forkApplyError explains why a fork can't be applied.
func forkApplyError(p *plan.ForkPlan, f *plan.Fork, err error) error {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		if s := status.Status(); plan.ExplainRefusal(&s, err) != nil {
			return Explain(err)
		}
	}
	if _, unknown := plan.UnknownField(err); unknown || apierrors.IsConflict(err) || apierrors.IsInvalid(err) {
		return p.ApplyProblem(f, err)
	}
	return Explain(err)
}

// undo deletes what was made and returns cause, with what is left when there is something. With doubt, the write after those of
// applied may have been made as well.
func (c *Client) undo(ctx context.Context, p *plan.ForkPlan, applied *Applied, doubt bool, cause error) error {
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

// undoSandbox deletes the ConfigMap that was created, and leaves what it owns to the garbage collector. Where it is not known
// whether it was created, it is known by its key.
func (c *Client) undoSandbox(ctx context.Context, p *plan.ForkPlan, made *corev1.ConfigMap) (left []string) {
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

// undoForks deletes the forks that were added to a sandbox there was; those that were updated stay so.
func (c *Client) undoForks(ctx context.Context, p *plan.ForkPlan, applied *Applied, doubt bool) (left []string) {
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

// deleteSandbox deletes that very ConfigMap, not one made anew by its name.
func (c *Client) deleteSandbox(ctx context.Context, cm *corev1.ConfigMap, dryRun bool) error {
	err := c.Kube.CoreV1().ConfigMaps(cm.Namespace).Delete(ctx, cm.Name, deleteOptions(cm.UID, dryRun))
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone, or another's
	}
	return err
}

// sandboxes returns the ConfigMaps of all sandboxes of the namespace that the label selector selects; of all namespaces where
// it is empty.
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
