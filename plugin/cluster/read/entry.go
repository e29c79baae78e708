package read

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// Entry finds the Service through which requests enter the client's namespace, as plan.FindEntry does. Ingresses and
// HTTPRoutes that the caller may not read count as absent.
func (c *Reader) Entry(ctx context.Context, command []string) (plan.Entry, error) {
	var services *corev1.ServiceList
	var ingresses *networkingv1.IngressList
	var routes []unstructured.Unstructured
	err := cluster.InParallel(
		func() (err error) {
			services, err = c.Kube.CoreV1().Services(c.Namespace).List(ctx, metav1.ListOptions{})
			return err
		},
		func() (err error) {
			ingresses, err = c.Kube.NetworkingV1().Ingresses(c.Namespace).List(ctx, metav1.ListOptions{})
			return absent(err)
		},
		func() (err error) { routes, err = c.httpRoutes(ctx); return absent(err) },
	)
	if err != nil {
		return plan.Entry{}, cluster.Explain(err)
	}
	if ingresses == nil {
		ingresses = &networkingv1.IngressList{}
	}
	return plan.FindEntry(c.Namespace, services.Items, ingresses.Items, routes, command)
}

// KeyCarriers reads what carries the key in this cluster, from the pods of a sandbox.
func (c *Reader) KeyCarriers(ctx context.Context, name string) (route.Carriers, error) {
	pods, err := c.Kube.CoreV1().Pods(c.Namespace).List(ctx, metav1.ListOptions{LabelSelector: AnyOf([]string{name})})
	if err != nil {
		return route.Carriers{}, cluster.Explain(err)
	}
	return plan.KeyCarriers(pods.Items), nil
}

func (c *Reader) httpRoutes(ctx context.Context) ([]unstructured.Unstructured, error) {
	resource := schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"}
	list, err := c.Dynamic.Resource(resource).Namespace(c.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// absent returns nil for objects that do not exist or that the caller may not read.
func absent(err error) error {
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || meta.IsNoMatchError(err) {
		return nil
	}
	return err
}
