package routes

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

const relistAfter = time.Second

// catchUp returns once the caches are at least as new as a list read now.
//
// A watch may lag without bound, so the caches of a new lease holder can be older than the tables of the previous one.
// It would then route, and set gates, by an outdated state. So it lists metadata from the API server (without a
// resource version, which is a consistent read), and compares it with the caches until they have all of it. A failover
// costs one list, and a wait only if a watch lags. It cannot wait for the caches' own resource version: with a
// selector, that moves only when a matching object changes.
func (s *Server) catchUp(ctx context.Context) error {
	for _, k := range []struct {
		gvk    schema.GroupVersionKind
		cached client.ObjectList
		roles  []string
	}{
		{appsv1.SchemeGroupVersion.WithKind("Deployment"), &appsv1.DeploymentList{}, []string{sandbox.RoleFork}},
		{appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), replicaSetList(), []string{sandbox.RoleFork}},
		{corev1.SchemeGroupVersion.WithKind("Pod"), &corev1.PodList{}, []string{sandbox.RoleFork, sandbox.RoleBaseline}},
		{corev1.SchemeGroupVersion.WithKind("ConfigMap"), &corev1.ConfigMapList{}, []string{sandbox.RoleSandbox, sandbox.RoleRun}},
	} {
		for done := false; !done; {
			now := &metav1.PartialObjectMetadataList{}
			now.SetGroupVersionKind(k.gvk.GroupVersion().WithKind(k.gvk.Kind + "List"))
			if err := s.opts.API.List(ctx, now, client.MatchingLabelsSelector{Selector: roles(k.roles...)}); err != nil {
				return fmt.Errorf("list %s: %w", k.gvk.Kind, err)
			}
			err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, relistAfter, true, func(ctx context.Context) (bool, error) {
				if err := s.opts.Cache.List(ctx, k.cached, client.UnsafeDisableDeepCopy); err != nil {
					return false, err
				}
				cached, err := versions(k.cached)
				if err != nil {
					return false, err
				}
				done, err = caughtUp(now, cached)
				return done, err
			})
			if err != nil && (ctx.Err() != nil || !wait.Interrupted(err)) {
				return fmt.Errorf("%s: %w", k.gvk.Kind, err)
			}
		}
	}
	return nil
}

func versions(list client.ObjectList) (map[types.NamespacedName]string, error) {
	found := map[types.NamespacedName]string{}
	err := meta.EachListItem(list, func(o runtime.Object) error {
		m, err := meta.Accessor(o)
		if err == nil {
			found[types.NamespacedName{Namespace: m.GetNamespace(), Name: m.GetName()}] = m.GetResourceVersion()
		}
		return err
	})
	return found, err
}

// caughtUp reports whether a cache, given by its objects' resource versions, is at least as new as the list. It must
// have each listed object as listed or newer. An object deleted since the list looks the same as one that the cache has
// not received yet, so a list is valid for relistAfter only.
func caughtUp(list *metav1.PartialObjectMetadataList, cached map[types.NamespacedName]string) (bool, error) {
	listed := make(map[types.NamespacedName]bool, len(list.Items))
	for i := range list.Items {
		name := types.NamespacedName{Namespace: list.Items[i].Namespace, Name: list.Items[i].Name}
		listed[name] = true
		have, ok := cached[name]
		if !ok {
			return false, nil
		}
		if c, err := resourceversion.CompareResourceVersion(have, list.Items[i].ResourceVersion); err != nil || c < 0 {
			return false, err
		}
	}
	for name, have := range cached {
		if listed[name] {
			continue
		}
		if c, err := resourceversion.CompareResourceVersion(have, list.ResourceVersion); err != nil || c <= 0 {
			return false, err
		}
	}
	return true, nil
}
