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

// An adopter sets the owner of forks that came from Git, and of their NetworkPolicies: the sandbox's ConfigMap. A
// manifest cannot name the owner, since its uid is not known in advance.
type adopter struct {
	cache  client.Reader
	client client.Client
}

// Reconcile adopts what belongs to the sandbox whose ConfigMap has the requested name.
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
				continue // the object changed: its event enqueues the sandbox again
			}
			return reconcile.Result{}, fmt.Errorf("adopt %T %s/%s: %w", o, o.GetNamespace(), o.GetName(), err)
		}
	}
	return reconcile.Result{}, nil
}

// orphan reports whether an object may be adopted, that is, has no owner. The caller has checked our labels.
func orphan(o client.Object) bool {
	return len(o.GetOwnerReferences()) == 0 && o.GetDeletionTimestamp() == nil
}

func (a *adopter) adopt(ctx context.Context, o client.Object, cm *corev1.ConfigMap) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":             o.GetUID(),
		"resourceVersion": o.GetResourceVersion(), // fails if somebody else set an owner meanwhile
		"ownerReferences": []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: cm.Name, UID: cm.UID}},
	}})
	if err != nil {
		return err
	}
	// Patch writes the response into its argument, which must not be the cache's object.
	return a.client.Patch(ctx, o.DeepCopyObject().(client.Object), client.RawPatch(types.MergePatchType, patch))
}

// adopts maps a fork without an owner, or the NetworkPolicy of one, to the ConfigMap of its sandbox.
func adopts[T client.Object](_ context.Context, o T) []reconcile.Request {
	name := o.GetLabels()[sandbox.LabelSandbox]
	if name == "" || !orphan(o) {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: o.GetNamespace(), Name: sandbox.ConfigMapName(name)}}}
}

// stripPolicy keeps only the metadata of a NetworkPolicy, which is all that adoption reads.
func stripPolicy(o any) (any, error) {
	if p, ok := o.(*networkingv1.NetworkPolicy); ok {
		p.Spec, p.ManagedFields, p.Annotations = networkingv1.NetworkPolicySpec{}, nil, nil
	}
	return o, nil
}
