package read

import (
	"context"
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Inventory reads the sandboxes of a namespace, or of all if it is empty, and what determines the state of their
// forks.
func (c *Reader) Inventory(ctx context.Context, namespace string) (*sandboxes.Inventory, error) {
	return c.inventory(ctx, namespace, "")
}

// SandboxInventory reads one sandbox of the client's namespace, with current counts of requests. If it does not
// exist, the error is a *plan.Problem.
func (c *Reader) SandboxInventory(ctx context.Context, name string) (*sandboxes.Inventory, error) {
	cm, err := c.SandboxConfigMap(ctx, name)
	if err != nil {
		return nil, cluster.Explain(err)
	}
	counted := false
	if IsSandbox(cm, name) && cm.DeletionTimestamp == nil {
		cm, counted = c.Counted(ctx, cm)
	}
	v, err := c.inventory(ctx, c.Namespace, sandbox.LabelSandbox+"="+name)
	if err != nil {
		return nil, err
	}
	v.ConfigMaps = nil
	if IsSandbox(cm, name) {
		v.ConfigMaps = []corev1.ConfigMap{*cm}
	}
	if len(v.ConfigMaps)+len(v.Forks) == 0 {
		return nil, plan.NoSandbox(name, c.Namespace)
	}
	v.Current = counted
	if counted {
		v.Missing = cm.Annotations[sandbox.AnnotationFlushMissing]
	}
	v.Gateway, err = c.Gateway(ctx)
	return v, err
}

// inventory reads the sandboxes whose objects the label selector selects.
func (c *Reader) inventory(ctx context.Context, namespace, selector string) (*sandboxes.Inventory, error) {
	v := &sandboxes.Inventory{Now: time.Now()}
	of := func(role string) metav1.ListOptions {
		only := sandbox.LabelRole + "=" + role
		if selector != "" {
			only += "," + selector
		}
		return metav1.ListOptions{LabelSelector: only}
	}
	var forkPods, baselinePods corev1.PodList
	err := cluster.InParallel(
		func() (err error) { v.ConfigMaps, err = c.sandboxes(ctx, namespace, selector); return err },
		func() (err error) { v.Forks, err = c.forks(ctx, namespace, selector); return err },
		func() error {
			list, err := c.Kube.AppsV1().ReplicaSets(namespace).List(ctx, of(sandbox.RoleFork))
			if err == nil {
				v.Sets = list.Items
			}
			return err
		},
		func() error {
			list, err := c.Kube.CoreV1().Pods(namespace).List(ctx, of(sandbox.RoleFork))
			if err == nil {
				forkPods = *list
			}
			return err
		},
		func() error {
			list, err := c.Kube.CoreV1().
				Pods(namespace).
				List(ctx, metav1.ListOptions{LabelSelector: sandbox.LabelRole + "=" + sandbox.RoleBaseline})
			if err == nil {
				baselinePods = *list
			}
			return err
		},
		func() error {
			list, err := c.Kube.CoreV1().Services(namespace).List(ctx, metav1.ListOptions{})
			if apierrors.IsForbidden(err) {
				return nil // it is not known then
			}
			if err == nil {
				v.Services = &list.Items
			}
			return err
		},
	)
	if err != nil {
		return nil, cluster.Explain(err)
	}
	v.Pods = slices.Concat(forkPods.Items, baselinePods.Items)
	v.BaselineStates, err = c.baselineStates(ctx, v.Forks)
	return v, err
}

// maxCounted is the largest number of sandboxes for which RouteInventory requests counts from the routers.
const maxCounted = 16

// RouteInventory is Inventory with the routed workloads of the namespace, forked or not. Counts are current if it
// reads one namespace with few sandboxes.
func (c *Reader) RouteInventory(ctx context.Context, namespace string) (*sandboxes.Inventory, error) {
	v, err := c.Inventory(ctx, namespace)
	if err != nil {
		return nil, err
	}
	workloads, err := c.everyWorkload(ctx, namespace)
	if err != nil {
		return nil, err
	}
	v.Routed = sandboxes.RoutedWorkloads(workloads)
	if namespace != "" && len(v.ConfigMaps) <= maxCounted {
		v.Current, v.Missing = c.countAll(ctx, v.ConfigMaps)
	}
	custom, err := c.customBaselines(ctx, v)
	v.Routed = append(v.Routed, custom...)
	return v, err
}

// A RoutedNamespace holds the routed workloads of a namespace.
type RoutedNamespace struct {
	Namespace string
	Workloads []*plan.Workload
}

// RoutedByNamespace reads which workloads are routed, grouped by namespace; of all namespaces if namespace is empty.
// Namespaces with only switched Services are included.
func (c *Reader) RoutedByNamespace(ctx context.Context, namespace string) ([]RoutedNamespace, error) {
	v, err := c.RouteInventory(ctx, namespace)
	if err != nil {
		return nil, err
	}
	by := map[string][]*plan.Workload{}
	for _, w := range v.Routed {
		by[w.Namespace()] = append(by[w.Namespace()], w)
	}
	if v.Services != nil {
		for i := range *v.Services {
			s := &(*v.Services)[i]
			if s.Labels[sandbox.LabelRole] == sandbox.RoleService || s.Annotations[sandbox.AnnotationTargetPorts] != "" {
				if _, ok := by[s.Namespace]; !ok {
					by[s.Namespace] = nil
				}
			}
		}
	}
	var out []RoutedNamespace
	for _, name := range slices.Sorted(maps.Keys(by)) {
		out = append(out, RoutedNamespace{name, by[name]})
	}
	return out, nil
}

// settling is how long changes are collected before a listing is read again.
const settling = 300 * time.Millisecond

// WatchInventory sends on the returned channel whenever the objects of an Inventory have changed, until ctx ends. An
// error is the last value.
func (c *Reader) WatchInventory(ctx context.Context, namespace string) <-chan error {
	changes := make(chan error, 1)
	events := make(chan func(*struct{}) error)
	roles := metav1.ListOptions{LabelSelector: sandbox.LabelRole}
	apps, core := c.Kube.AppsV1(), c.Kube.CoreV1()
	watchAny[*corev1.ConfigMap](ctx, roles, core.ConfigMaps(namespace).Watch, events)
	watchAny[*appsv1.Deployment](ctx, roles, apps.Deployments(namespace).Watch, events)
	watchAny[*corev1.Pod](ctx, roles, core.Pods(namespace).Watch, events)
	watchAny[*corev1.Service](ctx, metav1.ListOptions{}, core.Services(namespace).Watch, events)
	go func() {
		defer close(changes)
		var settled <-chan time.Time
		for {
			select {
			case <-ctx.Done():
				return
			case event := <-events:
				if err := event(&struct{}{}); err != nil && !cluster.IsTransient(err) {
					changes <- err
					return
				}
				if settled == nil {
					settled = time.After(settling)
				}
			case <-settled:
				settled = nil
				select {
				case changes <- nil:
				default: // one is waiting already
				}
			}
		}
	}()
	return changes
}

// watchAny sends an event for each change of an object, until ctx ends.
func watchAny[T any](
	ctx context.Context, options metav1.ListOptions,
	open func(context.Context, metav1.ListOptions) (watch.Interface, error), events chan<- func(*struct{}) error,
) {
	go cluster.WatchObjects(ctx, options, open, events, func(*struct{}) {}, func(*struct{}, T, bool) {})
}
