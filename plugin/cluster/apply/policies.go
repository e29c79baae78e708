package apply

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
)

func networkPolicies() schema.GroupVersionResource {
	return networkingv1.SchemeGroupVersion.WithResource("networkpolicies")
}

// applyPolicies writes the policies of a fork that differ from the plan, and deletes those that are no longer needed.
// It runs before the fork is written, so that the fork's first pods find their policies.
func (c *Writer) applyPolicies(
	ctx context.Context,
	p *forks.Plan,
	f *forks.Fork,
	applied *Applied,
	dryRun bool,
) error {
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
			return cluster.Explain(err)
		}
		objects = append(objects, got)
	}
	for _, old := range f.Obsolete {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.deletePolicy(context.WithoutCancel(ctx), old.Name, old.UID, dryRun); err != nil {
			return cluster.Explain(err)
		}
	}
	applied.Policies = append(applied.Policies, objects)
	return nil
}

// deletePolicy deletes the policy by its uid. It is no error if the policy is gone.
func (c *Writer) deletePolicy(ctx context.Context, name string, uid types.UID, dryRun bool) error {
	err := c.Kube.NetworkingV1().NetworkPolicies(c.Namespace).Delete(ctx, name, DeleteOptions(uid, dryRun))
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// undoPolicies deletes the policies that were added to an existing sandbox. Changed policies stay.
func (c *Writer) undoPolicies(ctx context.Context, applied *Applied) (left []string) {
	for _, p := range applied.policies {
		name := "networkpolicy.networking.k8s.io/" + p.Name
		if p.Before != nil {
			left = append(left, name)
			continue
		}
		got, err := c.Kube.NetworkingV1().NetworkPolicies(p.Namespace).Get(ctx, p.Name, metav1.GetOptions{})
		if err == nil && OwnedBy(got.OwnerReferences, applied.ConfigMap.UID) {
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
