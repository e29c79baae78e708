package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// An adopter gives the forks of a sandbox that came from Git, and their policies, where no uid can be known, their owner: the sandbox's ConfigMap.
type adopter struct {
	cache  client.Reader
	client client.Client
}

// Reconcile looks at the sandbox that a ConfigMap name stands for.
func (a *adopter) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var cm corev1.ConfigMap
	if err := a.cache.Get(ctx, req.NamespacedName, &cm); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	name := cm.Labels[sandbox.LabelSandbox]
	if cm.Name != sandbox.ConfigMapName(name) || cm.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	forks, err := routes.Deployments(ctx, a.cache, cm.Namespace, name)
	if err != nil {
		return reconcile.Result{}, err
	}
	var policies networkingv1.NetworkPolicyList
	err = a.cache.List(ctx, &policies, client.InNamespace(cm.Namespace), client.MatchingLabels{
		sandbox.LabelSandbox: name, sandbox.LabelRole: sandbox.RoleFork,
	})
	if err != nil {
		return reconcile.Result{}, err
	}
	var all []client.Object
	for i := range forks {
		all = append(all, &forks[i])
	}
	for i := range policies.Items {
		all = append(all, &policies.Items[i])
	}
	for _, o := range all {
		if !orphan(o) {
			continue
		}
		if err := a.adopt(ctx, o, &cm); err != nil {
			if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
				continue // it changed: an event tells
			}
			return reconcile.Result{}, fmt.Errorf("adopt %T %s/%s: %w", o, o.GetNamespace(), o.GetName(), err)
		}
	}
	return reconcile.Result{}, nil
}

// orphan says whether an object, of which the caller knows that it carries our labels, may be adopted: it has no owner.
func orphan(o client.Object) bool {
	return len(o.GetOwnerReferences()) == 0 && o.GetDeletionTimestamp() == nil
}

func (a *adopter) adopt(ctx context.Context, o client.Object, cm *corev1.ConfigMap) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":             o.GetUID(),
		"resourceVersion": o.GetResourceVersion(), // no owner may have come meanwhile
		"ownerReferences": []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: cm.Name, UID: cm.UID}},
	}})
	if err != nil {
		return err
	}
	// The answer is written into what is patched, which must not be the cache's own.
	return a.client.Patch(ctx, o.DeepCopyObject().(client.Object), client.RawPatch(types.MergePatchType, patch))
}

// adopts names the ConfigMap of the sandbox that a fork, or a policy of one, belongs to if it has no owner.
func adopts[T client.Object](_ context.Context, o T) []reconcile.Request {
	name := o.GetLabels()[sandbox.LabelSandbox]
	if name == "" || !orphan(o) {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: sandbox.ConfigMapName(name)}}}
}

// stripPolicy leaves of a policy what adoption needs of it: who owns it.
func stripPolicy(o any) (any, error) {
	if p, ok := o.(*networkingv1.NetworkPolicy); ok {
		p.Spec, p.ManagedFields, p.Annotations = networkingv1.NetworkPolicySpec{}, nil, nil
	}
	return o, nil
}
