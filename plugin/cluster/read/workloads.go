package read

import (
	"context"
	"errors"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/resource"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Workloads reads the workloads that args name, in the forms of kubectl ("deploy/api", "deployment api worker"), in
// the client's namespace. A workload that does not exist, or that is none (plan.CheckWorkload), is a *plan.Problem.
// templatePath is the path of pod templates in custom kinds; if empty, that of the object's annotation.
func (c *Reader) Workloads(ctx context.Context, args []string, templatePath string) ([]*plan.Workload, error) {
	workloads, err := c.objects(ctx, args, templatePath)
	if err != nil {
		return nil, err
	}
	for _, w := range workloads {
		if err := plan.CheckWorkload(w); err != nil {
			return nil, err
		}
	}
	return workloads, nil
}

// objects is Workloads without the check.
func (c *Reader) objects(ctx context.Context, args []string, templatePath string) ([]*plan.Workload, error) {
	type answer struct {
		infos []*resource.Info
		err   error
	}
	// The builder takes no context. Its calls only read, so after cancellation they may end by themselves.
	done := make(chan answer, 1)
	go func() {
		infos, err := c.Builder().Unstructured().NamespaceParam(c.Namespace).DefaultNamespace().
			ResourceTypeOrNameArgs(false, args...).Flatten().Latest().Do().Infos()
		done <- answer{infos, err}
	}()
	var a answer
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case a = <-done:
	}
	if a.err != nil {
		return nil, c.explainWorkload(a.err)
	}
	workloads := make([]*plan.Workload, len(a.infos))
	for i, info := range a.infos {
		u, err := asUnstructured(info)
		if err != nil {
			return nil, err
		}
		workloads[i] = plan.NewWorkload(u, info.Mapping.Resource.GroupResource(), templatePath)
	}
	return workloads, nil
}

func asUnstructured(info *resource.Info) (*unstructured.Unstructured, error) {
	u, ok := info.Object.(*unstructured.Unstructured)
	if !ok {
		return nil, fmt.Errorf("%s: the API server answered with a %T", info.ObjectName(), info.Object)
	}
	return u, nil
}

// explainWorkload explains why a workload could not be read.
func (c *Reader) explainWorkload(err error) error {
	var status apierrors.APIStatus
	if !apierrors.IsNotFound(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return cluster.Explain(err)
	}
	d := status.Status().Details
	kind := d.Kind
	if d.Group != "" {
		kind += "." + d.Group
	}
	return &plan.Problem{
		What: fmt.Sprintf("%s %q not found in namespace %q", kind, d.Name, c.Namespace),
		Hint: "list what exists", Fix: plan.Kubectl("get", kind), Err: err,
	}
}

// deploymentsNamed returns which of the names belong to existing Deployments.
func (c *Reader) deploymentsNamed(ctx context.Context, names []string) (map[string]bool, error) {
	there := make([]bool, len(names))
	reads := make([]func() error, len(names))
	for i, name := range names {
		reads[i] = func() error {
			_, err := c.Dynamic.Resource(cluster.Deployments()).Namespace(c.Namespace).Get(ctx, name, metav1.GetOptions{})
			there[i] = err == nil
			if apierrors.IsNotFound(err) {
				return nil
			}
			return err
		}
	}
	err := cluster.InParallel(reads...)
	taken := map[string]bool{}
	for i, name := range names {
		taken[name] = taken[name] || there[i]
	}
	return taken, err
}

// everyWorkload reads the Deployments, StatefulSets and DaemonSets of a namespace.
func (c *Reader) everyWorkload(ctx context.Context, namespace string) ([]*plan.Workload, error) {
	byKind := make([][]*plan.Workload, 3)
	var calls []func() error
	for i, resource := range []string{"deployments", "statefulsets", "daemonsets"} {
		gvr := appsv1.SchemeGroupVersion.WithResource(resource)
		calls = append(calls, func() error {
			list, err := c.Dynamic.Resource(gvr).
				Namespace(namespace).
				List(ctx, metav1.ListOptions{LabelSelector: sandbox.LabelRole + "!=" + sandbox.RoleFork})
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
	err := cluster.InParallel(calls...)
	return slices.Concat(byKind...), cluster.Explain(err)
}

// customBaselines reads the routed workloads of custom kinds, which are found through their pods. It skips what the
// caller may not read.
func (c *Reader) customBaselines(ctx context.Context, v *sandboxes.Inventory) ([]*plan.Workload, error) {
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
			return out, cluster.Explain(err)
		default:
			out = append(out, sandboxes.RoutedWorkloads([]*plan.Workload{{Object: u, Resource: mapping.Resource.GroupResource()}})...)
		}
	}
	return out, nil
}
