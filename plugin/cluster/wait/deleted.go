package wait

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// WaitDeleted waits until no Deployment, policy or pod of the sandboxes is left. If ctx ends first, left says what
// remains.
func (c *Waiter) WaitDeleted(ctx context.Context, names []string) (left []string, err error) {
	for {
		deployments, policies, pods, err := c.remains(ctx, names)
		if err != nil {
			return left, err
		}
		left = left[:0]
		for _, d := range deployments.Items {
			left = append(left, "deployment.apps/"+d.Name)
		}
		for _, p := range policies.Items {
			left = append(left, "networkpolicy.networking.k8s.io/"+p.Name)
		}
		for _, p := range pods.Items {
			left = append(left, "pod/"+p.Name)
		}
		var w watch.Interface
		switch options := (metav1.ListOptions{LabelSelector: remainsOf(names)}); {
		case len(left) == 0:
			return nil, nil
		case len(pods.Items) > 0:
			options.ResourceVersion = pods.ResourceVersion
			w, err = c.Kube.CoreV1().Pods(c.Namespace).Watch(ctx, options)
		case len(deployments.Items) > 0:
			options.ResourceVersion = deployments.ResourceVersion
			w, err = c.Kube.AppsV1().Deployments(c.Namespace).Watch(ctx, options)
		default:
			options.ResourceVersion = policies.ResourceVersion
			w, err = c.Kube.NetworkingV1().NetworkPolicies(c.Namespace).Watch(ctx, options)
		}
		if err != nil {
			return left, err
		}
		untilDeleted(w, max(len(pods.Items), 1))
		w.Stop()
	}
}

// untilDeleted returns when n objects were deleted, or the watch ends.
func untilDeleted(w watch.Interface, n int) {
	for event := range w.ResultChan() {
		switch event.Type {
		case watch.Error:
			return
		case watch.Deleted:
			if n--; n == 0 {
				return
			}
		}
	}
}

// remains lists what is left of sandboxes.
func (c *Waiter) remains(
	ctx context.Context,
	names []string,
) (*appsv1.DeploymentList, *networkingv1.NetworkPolicyList, *corev1.PodList, error) {
	options := metav1.ListOptions{LabelSelector: remainsOf(names)}
	deployments, err := c.Kube.AppsV1().Deployments(c.Namespace).List(ctx, options)
	if err != nil {
		return nil, nil, nil, err
	}
	policies, err := c.read.ForkPolicies(ctx, read.AnyOf(names))
	if err != nil {
		return nil, nil, nil, err
	}
	pods, err := c.Kube.CoreV1().Pods(c.Namespace).List(ctx, options)
	return deployments, policies, pods, err
}

// remainsOf selects the objects that are deleted with one of the sandboxes. The Jobs and pods of checks are deleted
// with their experiment.
func remainsOf(names []string) string {
	return read.AnyOf(names) + "," + sandbox.LabelRole + "!=" + sandbox.RoleCheck
}
