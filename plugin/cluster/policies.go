package cluster

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/policies"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// maxElsewhere is the largest number of NetworkPolicies of the cluster that are read to find those of other
// namespaces which name a baseline: about a megabyte.
const maxElsewhere = 500

// policies reads what a fork's NetworkPolicies are planned from: by one call, or by two if the caller may not read
// the policies of all namespaces or there are too many, and one for each custom kind of policy.
func (c *Client) policies(ctx context.Context, into *policies.View) error {
	// Policies of forks do not concern other forks, and there are as many as sandboxes.
	notForks := metav1.ListOptions{LabelSelector: sandbox.LabelRole + "!=" + sandbox.RoleFork}
	return inParallel(
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
		func() (err error) { into.Unreadable, err = c.foreignPolicies(ctx); return err },
	)
}

// furtherPolicies reads what is needed because of other objects: the policies of an existing sandbox's forks, and the
// labels of the namespace if policies select namespaces by other labels than the name.
func (c *Client) furtherPolicies(ctx context.Context, state *forks.State, name string) error {
	view := &state.Policies
	return inParallel(
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

// forkPolicies returns the policies of forks that the label selector selects, if the caller may read them.
func (c *Client) forkPolicies(ctx context.Context, selector string) (*networkingv1.NetworkPolicyList, error) {
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
	return metav1.ListOptions{LabelSelector: sandbox.LabelSandbox + "=" + name + "," + sandbox.LabelRole + "=" + sandbox.RoleFork}
}

// foreignPolicies names the kinds, besides NetworkPolicy, that admit or refuse connections and that the namespace has
// objects of, or may have as far as the caller can know.
func (c *Client) foreignPolicies(ctx context.Context) ([]string, error) {
	groups, err := c.discovery.ServerGroups()
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
		served, err := c.discovery.ServerResourcesForGroupVersion(g.PreferredVersion.GroupVersion)
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
	err = inParallel(calls...)
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

func networkPolicies() schema.GroupVersionResource {
	return networkingv1.SchemeGroupVersion.WithResource("networkpolicies")
}

// applyPolicies writes the policies of a fork that differ from the plan, and deletes those that are no longer needed.
// It runs before the fork is written, so that the fork's first pods find their policies.
func (c *Client) applyPolicies(ctx context.Context, p *forks.Plan, f *forks.Fork, applied *Applied, dryRun bool) error {
	var objects []*unstructured.Unstructured
	for i := range f.Policies {
		if err := ctx.Err(); err != nil {
			return err
		}
		policy := &f.Policies[i]
		object := policy.Object()
		if !policy.Changed() {
			objects = append(objects, object)
			continue
		}
		object.SetOwnerReferences(owner(applied.ConfigMap))
		applied.policies = append(applied.policies, policy)
		got, err := c.Apply(context.WithoutCancel(ctx), networkPolicies(), object, f.Force, dryRun)
		if err != nil {
			if !uncertain(err) {
				applied.policies = applied.policies[:len(applied.policies)-1]
			}
			if apierrors.IsConflict(err) {
				return p.PolicyProblem(policy, err)
			}
			return Explain(err)
		}
		objects = append(objects, got)
	}
	for _, old := range f.Obsolete {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.deletePolicy(context.WithoutCancel(ctx), old.Name, old.UID, dryRun); err != nil {
			return Explain(err)
		}
	}
	applied.Policies = append(applied.Policies, objects)
	return nil
}

// deletePolicy deletes the policy by its uid. It is no error if the policy is gone.
func (c *Client) deletePolicy(ctx context.Context, name string, uid types.UID, dryRun bool) error {
	err := c.Kube.NetworkingV1().NetworkPolicies(c.Namespace).Delete(ctx, name, deleteOptions(uid, dryRun))
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// undoPolicies deletes the policies that were added to an existing sandbox. Changed policies stay.
func (c *Client) undoPolicies(ctx context.Context, applied *Applied) (left []string) {
	for _, p := range applied.policies {
		name := "networkpolicy.networking.k8s.io/" + p.Name
		if p.Before != nil {
			left = append(left, name)
			continue
		}
		got, err := c.Kube.NetworkingV1().NetworkPolicies(p.Namespace).Get(ctx, p.Name, metav1.GetOptions{})
		if err == nil && ownedBy(got.OwnerReferences, applied.ConfigMap.UID) {
			err = c.deletePolicy(ctx, got.Name, got.UID, false)
		}
		if err != nil && !apierrors.IsNotFound(err) {
			left = append(left, name)
		}
	}
	return left
}

func owner(cm *corev1.ConfigMap) []metav1.OwnerReference {
	return []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: cm.Name, UID: cm.UID}}
}
