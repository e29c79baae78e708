package read

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/policies"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// maxElsewhere is the largest number of NetworkPolicies of the cluster that are read to find those of other
// namespaces which name a baseline: about a megabyte.
const maxElsewhere = 500

// policies reads what a fork's NetworkPolicies are planned from: by one call, or by two if the caller may not read
// the policies of all namespaces or there are too many, and one for each custom kind of policy.
func (c *Reader) policies(ctx context.Context, into *policies.View) error {
	// Policies of forks do not concern other forks, and there are as many as sandboxes.
	notForks := metav1.ListOptions{LabelSelector: sandbox.LabelRole + "!=" + sandbox.RoleFork}
	return cluster.InParallel(
		func() error {
			everywhere := notForks
			everywhere.Limit = maxElsewhere
			list, err := c.Kube.NetworkingV1().NetworkPolicies("").List(ctx, everywhere)
			if err != nil && !apierrors.IsForbidden(err) {
				return err
			}
			whole := err == nil && list.Continue == ""
			if err == nil {
				into.ElsewhereCut = !whole
				for _, p := range list.Items {
					if p.Namespace != c.Namespace {
						into.Elsewhere = append(into.Elsewhere, p)
					} else if whole {
						into.Policies = append(into.Policies, p)
					}
				}
			}
			if whole {
				return nil
			}
			list, err = c.Kube.NetworkingV1().NetworkPolicies(c.Namespace).List(ctx, notForks)
			if err == nil {
				into.Policies = list.Items
			}
			return err
		},
		func() (err error) { into.Unreadable, err = c.ForeignPolicies(ctx); return err },
	)
}

// furtherPolicies reads what is needed because of other objects: the policies of an existing sandbox's forks, and the
// labels of the namespace if policies select namespaces by other labels than the name.
func (c *Reader) furtherPolicies(ctx context.Context, state *forks.State, name string) error {
	view := &state.Policies
	return cluster.InParallel(
		func() error {
			if state.Sandbox == nil && len(state.Forks) == 0 {
				return nil
			}
			list, err := c.Kube.NetworkingV1().NetworkPolicies(c.Namespace).List(ctx, ofForks(name))
			if err == nil {
				view.Forks = list.Items
			}
			return err
		},
		func() error {
			view.NamespaceLabels = map[string]string{corev1.LabelMetadataName: c.Namespace}
			if !view.AsksForNamespaces() {
				return nil
			}
			ns, err := c.Kube.CoreV1().Namespaces().Get(ctx, c.Namespace, metav1.GetOptions{})
			switch {
			case err == nil:
				view.NamespaceLabels = ns.Labels
			case apierrors.IsForbidden(err):
				view.NamespaceUnread = true
				return nil
			}
			return err
		},
	)
}

// ForkPolicies returns the policies of forks that the label selector selects, if the caller may read them.
func (c *Reader) ForkPolicies(ctx context.Context, selector string) (*networkingv1.NetworkPolicyList, error) {
	only := sandbox.LabelSandbox + "," + sandbox.LabelRole + "=" + sandbox.RoleFork
	if selector != "" {
		only += "," + selector
	}
	list, err := c.Kube.NetworkingV1().NetworkPolicies(c.Namespace).List(ctx, metav1.ListOptions{LabelSelector: only})
	if apierrors.IsForbidden(err) {
		return &networkingv1.NetworkPolicyList{}, nil
	}
	return list, err
}

// ofForks selects the objects of a sandbox's forks.
func ofForks(name string) metav1.ListOptions {
	return metav1.ListOptions{
		LabelSelector: sandbox.LabelSandbox + "=" + name + "," + sandbox.LabelRole + "=" + sandbox.RoleFork,
	}
}

// ForeignPolicies names the kinds, besides NetworkPolicy, that admit or refuse connections and that the namespace has
// objects of, or may have as far as the caller can know.
func (c *Reader) ForeignPolicies(ctx context.Context) ([]string, error) {
	groups, err := c.Discovery.ServerGroups()
	if err != nil {
		return nil, err
	}
	kinds := foreignKinds()
	var calls []func() error
	var found []string
	for _, g := range groups.Groups {
		wanted := kinds[g.Name]
		if len(wanted) == 0 {
			continue
		}
		served, err := c.Discovery.ServerResourcesForGroupVersion(g.PreferredVersion.GroupVersion)
		if err != nil {
			return nil, err
		}
		for _, r := range served.APIResources {
			if !slices.Contains(wanted, r.Kind) || !slices.Contains(r.Verbs, "list") {
				continue
			}
			gvr := schema.GroupVersionResource{Group: g.Name, Version: g.PreferredVersion.Version, Resource: r.Name}
			at := len(found)
			found = append(found, "")
			calls = append(calls, func() error {
				var list *unstructured.UnstructuredList
				var err error
				if r.Namespaced {
					list, err = c.Dynamic.Resource(gvr).Namespace(c.Namespace).List(ctx, metav1.ListOptions{Limit: 1})
				} else {
					list, err = c.Dynamic.Resource(gvr).List(ctx, metav1.ListOptions{Limit: 1})
				}
				// Discovery may be out of date.
				if apierrors.IsForbidden(err) || err == nil && len(list.Items) > 0 {
					found[at] = gvr.GroupResource().String()
				}
				if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
					return nil
				}
				return err
			})
		}
	}
	err = cluster.InParallel(calls...)
	return slices.DeleteFunc(found, func(s string) bool { return s == "" }), err
}

// foreignKinds returns the kinds, besides NetworkPolicy, that admit or refuse connections, by group.
func foreignKinds() map[string][]string {
	return map[string][]string{
		"cilium.io":                {"CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"},
		"crd.projectcalico.org":    {"NetworkPolicy", "GlobalNetworkPolicy"},
		"projectcalico.org":        {"NetworkPolicy", "GlobalNetworkPolicy"},
		"crd.antrea.io":            {"NetworkPolicy", "ClusterNetworkPolicy"},
		"policy.networking.k8s.io": {"AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy"},
		"security.istio.io":        {"AuthorizationPolicy"},
		"policy.linkerd.io":        {"Server"},
	}
}
