package apply

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
)

// Delete starts the deletion of a sandbox of the client's namespace: by uid, so that a recreated one of the same name
// stays. The garbage collector deletes what the ConfigMap owns; Delete deletes the rest. With dryRun the API server
// does everything but delete.
func (c *Writer) Delete(ctx context.Context, s *sandboxes.Sandbox, dryRun bool) error {
	if s.ConfigMap != nil {
		if err := c.DeleteSandbox(ctx, s.ConfigMap, dryRun); err != nil {
			return cluster.Explain(err)
		}
	}
	for i := range s.Forks {
		f := &s.Forks[i]
		if s.ConfigMap != nil && OwnedBy(f.OwnerReferences, s.ConfigMap.UID) {
			continue
		}
		err := c.Kube.AppsV1().Deployments(f.Namespace).Delete(ctx, f.Name, DeleteOptions(f.UID, dryRun))
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return cluster.Explain(err)
		}
	}
	for i := range s.Policies {
		p := &s.Policies[i]
		if s.ConfigMap != nil && OwnedBy(p.OwnerReferences, s.ConfigMap.UID) {
			continue
		}
		if err := c.deletePolicy(ctx, p.Name, p.UID, dryRun); err != nil {
			return cluster.Explain(err)
		}
	}
	return nil
}

// DeleteOptions returns options that delete only the object with that uid: another object of its name is a conflict.
func DeleteOptions(uid types.UID, dryRun bool) metav1.DeleteOptions {
	background := metav1.DeletePropagationBackground
	o := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}, PropagationPolicy: &background}
	if dryRun {
		o.DryRun = []string{metav1.DryRunAll}
	}
	return o
}
