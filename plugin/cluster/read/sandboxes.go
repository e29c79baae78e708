package read

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Sandboxes reads the sandboxes of the namespace, or of all if it is empty, whose ConfigMaps the label selector
// selects. An empty selector selects all.
func (c *Reader) Sandboxes(ctx context.Context, namespace, selector string) ([]sandboxes.Sandbox, error) {
	if selector == "" {
		return c.selected(ctx, namespace, "")
	}
	configMaps, err := c.sandboxes(ctx, namespace, selector)
	if err != nil || len(configMaps) == 0 {
		return nil, cluster.Explain(err)
	}
	// Forks do not have the labels that the caller put on the ConfigMap.
	forks, err := c.forks(ctx, namespace, "")
	if err != nil {
		return nil, cluster.Explain(err)
	}
	return slices.DeleteFunc(
		sandboxes.Group(configMaps, forks),
		func(s sandboxes.Sandbox) bool { return s.ConfigMap == nil },
	), nil
}

// SandboxesNamed reads sandboxes of the client's namespace by name, and returns the names that do not exist.
func (c *Reader) SandboxesNamed(
	ctx context.Context,
	names []string,
) (found []sandboxes.Sandbox, missing []string, err error) {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	var all []sandboxes.Sandbox
	var policies *networkingv1.NetworkPolicyList
	err = cluster.InParallel(
		func() (err error) { all, err = c.selected(ctx, c.Namespace, AnyOf(names)); return err },
		func() (err error) { policies, err = c.ForkPolicies(ctx, AnyOf(names)); return cluster.Explain(err) },
	)
	if err != nil {
		return nil, nil, err
	}
	all = sandboxes.AddPolicies(all, policies.Items)
	for _, name := range names {
		if i := slices.IndexFunc(all, func(s sandboxes.Sandbox) bool { return s.Name == name }); i >= 0 {
			found = append(found, all[i])
		} else {
			missing = append(missing, name)
		}
	}
	return found, missing, nil
}

// SandboxNames returns the names of the sandboxes of the client's namespace.
func (c *Reader) SandboxNames(ctx context.Context) ([]string, error) {
	list, err := c.sandboxes(ctx, c.Namespace, "")
	if err != nil {
		return nil, err
	}
	names := make([]string, len(list))
	for i := range list {
		names[i] = list[i].Labels[sandbox.LabelSandbox]
	}
	return names, nil
}

// selected reads the sandboxes whose ConfigMaps and forks the selector selects.
func (c *Reader) selected(ctx context.Context, namespace, selector string) ([]sandboxes.Sandbox, error) {
	var configMaps []corev1.ConfigMap
	var forks []appsv1.Deployment
	err := cluster.InParallel(
		func() (err error) { configMaps, err = c.sandboxes(ctx, namespace, selector); return err },
		func() (err error) { forks, err = c.forks(ctx, namespace, selector); return err },
	)
	if err != nil {
		return nil, cluster.Explain(err)
	}
	return sandboxes.Group(configMaps, forks), nil
}

// SandboxConfigMap returns the ConfigMap of that sandbox name; nil if there is none.
func (c *Reader) SandboxConfigMap(ctx context.Context, name string) (*corev1.ConfigMap, error) {
	cm, err := c.Kube.CoreV1().ConfigMaps(c.Namespace).Get(ctx, sandbox.ConfigMapName(name), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return cm, err
}

// sandboxes returns the ConfigMaps of the namespace's sandboxes that the label selector selects; of all namespaces if
// namespace is empty.
func (c *Reader) sandboxes(ctx context.Context, namespace, selector string) ([]corev1.ConfigMap, error) {
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

// forks returns the forks of all sandboxes that the label selector selects.
func (c *Reader) forks(ctx context.Context, namespace, selector string) ([]appsv1.Deployment, error) {
	only := sandbox.LabelSandbox + "," + sandbox.LabelRole + "=" + sandbox.RoleFork
	if selector != "" {
		only += "," + selector
	}
	list, err := c.Kube.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{LabelSelector: only})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// WithPolicies adds the forks' policies to sandboxes of the client's namespace, and adds sandboxes of which only
// policies are left.
func (c *Reader) WithPolicies(ctx context.Context, found []sandboxes.Sandbox) ([]sandboxes.Sandbox, error) {
	policies, err := c.ForkPolicies(ctx, "")
	if err != nil {
		return nil, cluster.Explain(err)
	}
	return sandboxes.AddPolicies(found, policies.Items), nil
}

// IsSandbox reports whether a ConfigMap is that of the sandbox.
func IsSandbox(cm *corev1.ConfigMap, name string) bool {
	return cm != nil && cm.Labels[sandbox.LabelRole] == sandbox.RoleSandbox && cm.Labels[sandbox.LabelSandbox] == name
}

// AnyOf selects what belongs to one of the sandboxes.
func AnyOf(names []string) string {
	return fmt.Sprintf("%s in (%s)", sandbox.LabelSandbox, strings.Join(names, ","))
}
