package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// An adopter gives the forks of a sandbox that came from Git, where no uid can be known, their owner: the sandbox's ConfigMap.
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
	for i := range forks {
		if !orphan(&forks[i]) {
			continue
		}
		if err := a.adopt(ctx, &forks[i], &cm); err != nil {
			if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
				continue // it changed: an event tells
			}
			return reconcile.Result{}, fmt.Errorf("adopt fork %s/%s: %w", forks[i].Namespace, forks[i].Name, err)
		}
	}
	return reconcile.Result{}, nil
}

// orphan says whether a Deployment, of which the caller knows that it carries our labels, may be adopted: it has no owner.
func orphan(d *appsv1.Deployment) bool {
	return len(d.OwnerReferences) == 0 && d.DeletionTimestamp == nil
}

func (a *adopter) adopt(ctx context.Context, d *appsv1.Deployment, cm *corev1.ConfigMap) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":             d.UID,
		"resourceVersion": d.ResourceVersion, // no owner may have come meanwhile
		"ownerReferences": []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: cm.Name, UID: cm.UID}},
	}})
	if err != nil {
		return err
	}
	target := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: d.Name}}
	return a.client.Patch(ctx, target, client.RawPatch(types.MergePatchType, patch))
}

// adopts names the ConfigMap of the sandbox that a fork without an owner belongs to.
func adopts(_ context.Context, d *appsv1.Deployment) []reconcile.Request {
	name := d.Labels[sandbox.LabelSandbox]
	if name == "" || !orphan(d) {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: d.Namespace, Name: sandbox.ConfigMapName(name)}}}
}
