package cluster

import (
	"context"
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Inventory reads the sandboxes of a namespace, or of all if it is empty, and what determines the state of their
// forks.
func (c *Client) Inventory(ctx context.Context, namespace string) (*sandboxes.Inventory, error) {
	return c.inventory(ctx, namespace, "")
}

// SandboxInventory reads one sandbox of the client's namespace, with current counts of requests. If it does not
// exist, the error is a *plan.Problem.
func (c *Client) SandboxInventory(ctx context.Context, name string) (*sandboxes.Inventory, error) {
	cm, err := c.sandboxConfigMap(ctx, name)
	if err != nil {
		return nil, Explain(err)
	}
	counted := false
	if isSandbox(cm, name) && cm.DeletionTimestamp == nil {
		cm, counted = c.counted(ctx, cm)
	}
	v, err := c.inventory(ctx, c.Namespace, sandbox.LabelSandbox+"="+name)
	if err != nil {
		return nil, err
	}
	v.ConfigMaps = nil
	if isSandbox(cm, name) {
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
func (c *Client) inventory(ctx context.Context, namespace, selector string) (*sandboxes.Inventory, error) {
	v := &sandboxes.Inventory{Now: time.Now()}
	of := func(role string) metav1.ListOptions {
		only := sandbox.LabelRole + "=" + role
		if selector != "" {
			only += "," + selector
		}
		return metav1.ListOptions{LabelSelector: only}
	}
	var forkPods, baselinePods corev1.PodList
	err := inParallel(
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
			list, err := c.Kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: sandbox.LabelRole + "=" + sandbox.RoleBaseline})
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
		return nil, Explain(err)
	}
	v.Pods = slices.Concat(forkPods.Items, baselinePods.Items)
	v.BaselineStates, err = c.BaselineStates(ctx, v.Forks)
	return v, err
}

// maxCounted is the largest number of sandboxes for which RouteInventory requests counts from the routers.
const maxCounted = 16

// RouteInventory is Inventory with the routed workloads of the namespace, forked or not. Counts are current if it
// reads one namespace with few sandboxes.
func (c *Client) RouteInventory(ctx context.Context, namespace string) (*sandboxes.Inventory, error) {
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
func (c *Client) RoutedByNamespace(ctx context.Context, namespace string) ([]RoutedNamespace, error) {
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

// In returns a client for another namespace of the cluster.
func (c *Client) In(namespace string) *Client {
	other := *c
	other.Namespace = namespace
	return &other
}

// everyWorkload reads the Deployments, StatefulSets and DaemonSets of a namespace.
func (c *Client) everyWorkload(ctx context.Context, namespace string) ([]*plan.Workload, error) {
	byKind := make([][]*plan.Workload, 3)
	var calls []func() error
	for i, resource := range []string{"deployments", "statefulsets", "daemonsets"} {
		gvr := appsv1.SchemeGroupVersion.WithResource(resource)
		calls = append(calls, func() error {
			list, err := c.Dynamic.Resource(gvr).Namespace(namespace).List(ctx, metav1.ListOptions{LabelSelector: sandbox.LabelRole + "!=" + sandbox.RoleFork})
			if apierrors.IsForbidden(err) {
				return nil // a caller who may only fork need not see them; the routed ones are found through their pods
			}
			if err != nil {
				return err
			}
			for j := range list.Items {
				byKind[i] = append(byKind[i], &plan.Workload{Object: &list.Items[j], Resource: gvr.GroupResource()})
			}
			return nil
		})
	}
	err := inParallel(calls...)
	return slices.Concat(byKind...), Explain(err)
}

// customBaselines reads the routed workloads of custom kinds, which are found through their pods. It skips what the
// caller may not read.
func (c *Client) customBaselines(ctx context.Context, v *sandboxes.Inventory) ([]*plan.Workload, error) {
	var out []*plan.Workload
	for _, ref := range sandboxes.CustomBaselines(v) {
		gv, err := schema.ParseGroupVersion(ref.APIVersion)
		if err != nil {
			continue
		}
		mapping, err := c.Mapper.RESTMapping(schema.GroupKind{Group: gv.Group, Kind: ref.Kind}, gv.Version)
		if err != nil {
			continue // its kind is gone
		}
		u, err := c.Dynamic.Resource(mapping.Resource).Namespace(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err), apierrors.IsForbidden(err):
		case err != nil:
			return out, Explain(err)
		default:
			out = append(out, sandboxes.RoutedWorkloads([]*plan.Workload{{Object: u, Resource: mapping.Resource.GroupResource()}})...)
		}
	}
	return out, nil
}

// settling is how long changes are collected before a listing is read again.
const settling = 300 * time.Millisecond

// WatchInventory sends on the returned channel whenever the objects of an Inventory have changed, until ctx ends. An
// error is the last value.
func (c *Client) WatchInventory(ctx context.Context, namespace string) <-chan error {
	changes := make(chan error, 1)
	events := make(chan func(*struct{}) error)
	roles := metav1.ListOptions{LabelSelector: sandbox.LabelRole}
	go watchObjects(ctx, roles, c.Kube.CoreV1().ConfigMaps(namespace).Watch, events, func(*struct{}) {}, func(*struct{}, *corev1.ConfigMap, bool) {})
	go watchObjects(ctx, roles, c.Kube.AppsV1().Deployments(namespace).Watch, events, func(*struct{}) {}, func(*struct{}, *appsv1.Deployment, bool) {})
	go watchObjects(ctx, roles, c.Kube.CoreV1().Pods(namespace).Watch, events, func(*struct{}) {}, func(*struct{}, *corev1.Pod, bool) {})
	go watchObjects(ctx, metav1.ListOptions{}, func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
		return c.Kube.CoreV1().Services(namespace).Watch(ctx, o)
	}, events, func(*struct{}) {}, func(*struct{}, *corev1.Service, bool) {})
	go func() {
		defer close(changes)
		var settled <-chan time.Time
		for {
			select {
			case <-ctx.Done():
				return
			case event := <-events:
				if err := event(&struct{}{}); err != nil && !IsTransient(err) {
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
