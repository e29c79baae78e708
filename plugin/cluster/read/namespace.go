package read

import (
	"context"
	"slices"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// monitoring is the API group of the Prometheus operator.
const monitoring = "monitoring.coreos.com"

// maxScaled is the largest number of autoscaler targets of custom kinds whose pod selectors are read.
const maxScaled = 3

// A namespaceReader reads the objects of a namespace by concurrent calls. It records and skips what the caller may
// not list.
type namespaceReader struct {
	*plan.NamespaceObjects
	mu sync.Mutex
}

// list returns a call that adds what read returns.
func (r *namespaceReader) list(resource string, read func() (add func(), err error)) func() error {
	return func() error {
		add, err := read()
		r.mu.Lock()
		defer r.mu.Unlock()
		switch {
		case apierrors.IsForbidden(err):
			r.Unread = append(r.Unread, resource)
			slices.Sort(r.Unread)
			return nil
		case err == nil:
			add()
		}
		return err
	}
}

// readNamespace reads the objects that every fork is compared with.
func (c *Reader) readNamespace(ctx context.Context, into *plan.NamespaceObjects) error {
	r := &namespaceReader{NamespaceObjects: into}
	notForks := metav1.ListOptions{LabelSelector: sandbox.LabelRole + "!=" + sandbox.RoleFork}
	var calls []func() error
	byKind := make([][]*plan.Workload, 4) // in the order of the kinds, whichever answer comes first
	for i, resource := range []string{"deployments", "statefulsets", "daemonsets", "replicasets"} {
		options := notForks
		if resource == "replicasets" {
			// A ReplicaSet of a Deployment also selects by this label's value, which pods of another workload never
			// have.
			options.LabelSelector += ",!" + appsv1.DefaultDeploymentUniqueLabelKey
		}
		gvr := appsv1.SchemeGroupVersion.WithResource(resource)
		calls = append(calls, r.list(gvr.GroupResource().String(), func() (func(), error) {
			list, err := c.Dynamic.Resource(gvr).Namespace(c.Namespace).List(ctx, options)
			return func() {
				for j := range list.Items {
					byKind[i] = append(byKind[i], &plan.Workload{Object: &list.Items[j], Resource: gvr.GroupResource()})
				}
			}, err
		}))
	}
	calls = append(calls,
		r.list("horizontalpodautoscalers.autoscaling", func() (func(), error) {
			list, err := c.Kube.AutoscalingV2().HorizontalPodAutoscalers(c.Namespace).List(ctx, metav1.ListOptions{})
			return func() { r.Autoscalers = list.Items }, err
		}),
		r.list("poddisruptionbudgets.policy", func() (func(), error) {
			list, err := c.Kube.PolicyV1().PodDisruptionBudgets(c.Namespace).List(ctx, metav1.ListOptions{})
			return func() { r.Budgets = list.Items }, err
		}),
		func() error {
			list, err := c.Kube.CoordinationV1().Leases(c.Namespace).List(ctx, metav1.ListOptions{})
			if err == nil {
				into.Leases = list.Items
			}
			return nil // they only confirm what arguments and variables indicate about elections
		},
	)
	err := cluster.InParallel(calls...)
	into.Workloads = slices.Concat(byKind...)
	return err
}

// readDependents reads what is needed because of other objects: nothing in most namespaces.
func (c *Reader) readDependents(ctx context.Context, workloads []*plan.Workload, into *plan.NamespaceObjects) error {
	r := &namespaceReader{NamespaceObjects: into}
	var calls []func() error
	if slices.ContainsFunc(workloads, (*plan.Workload).Claims) {
		calls = append(calls, func() error {
			list, err := c.Kube.CoreV1().PersistentVolumeClaims(c.Namespace).List(ctx, metav1.ListOptions{})
			if err == nil {
				into.Claims = list.Items
			}
			return nil // the notice about a claim then says that it could not be read
		})
	}
	if version := c.served(monitoring); version != "" {
		gvr := schema.GroupVersionResource{Group: monitoring, Version: version, Resource: "podmonitors"}
		calls = append(calls, r.list(gvr.GroupResource().String(), func() (func(), error) {
			list, err := c.monitors(ctx, gvr)
			return func() { r.Monitors = list }, err
		}))
	}
	into.Scaled = map[string]string{}
	requested := 0
	for i := range into.Autoscalers {
		target, other := plan.Scales(&into.Autoscalers[i])
		if !other {
			continue
		}
		if requested++; requested > maxScaled {
			into.Unread = append(into.Unread, "further targets of horizontalpodautoscalers.autoscaling")
			break
		}
		key := plan.ScaledKey(target)
		calls = append(calls, r.list("the scale of "+key, func() (func(), error) {
			selector, err := c.scaleSelector(ctx, target)
			return func() { r.Scaled[key] = selector }, err
		}))
	}
	return cluster.InParallel(calls...)
}

// served returns the version in which the API server serves the group, according to discovery; empty if it does not.
func (c *Reader) served(group string) string {
	groups, err := c.Discovery.ServerGroups()
	if err != nil {
		return "" // the calls that matter say so themselves
	}
	for _, g := range groups.Groups {
		if g.Name == group {
			return g.PreferredVersion.Version
		}
	}
	return ""
}

// monitors returns the PodMonitors of all namespaces, since one may select pods of another namespace. If the caller
// may not read them, it returns those of this namespace.
func (c *Reader) monitors(ctx context.Context, gvr schema.GroupVersionResource) ([]unstructured.Unstructured, error) {
	list, err := c.Dynamic.Resource(gvr).List(ctx, metav1.ListOptions{})
	if apierrors.IsForbidden(err) {
		list, err = c.Dynamic.Resource(gvr).Namespace(c.Namespace).List(ctx, metav1.ListOptions{})
	}
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil // the group is there without them
	case err != nil:
		return nil, err
	}
	return list.Items, nil
}

// scaleSelector returns the pod selector in the scale subresource of an autoscaler's target; empty if there is none.
func (c *Reader) scaleSelector(ctx context.Context, target autoscalingv2.CrossVersionObjectReference) (string, error) {
	gv, err := schema.ParseGroupVersion(target.APIVersion)
	if err != nil {
		return "", nil //nolint:nilerr // it names no API, so it scales nothing
	}
	mapping, err := c.Mapper.RESTMapping(schema.GroupKind{Group: gv.Group, Kind: target.Kind}, gv.Version)
	if err != nil {
		return "", nil //nolint:nilerr // the same
	}
	scale, err := c.Dynamic.Resource(mapping.Resource).
		Namespace(c.Namespace).
		Get(ctx, target.Name, metav1.GetOptions{}, "scale")
	if err != nil {
		if apierrors.IsNotFound(err) {
			err = nil
		}
		return "", err
	}
	selector, _, _ := unstructured.NestedString(scale.Object, "status", "selector")
	return selector, nil
}
