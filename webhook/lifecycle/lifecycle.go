// Package lifecycle keeps what the cluster shows of sandboxes true: it turns the routed gate of forks' pods, guards the Services
// that `route` switched, has pods tried again after admission was away, lays forks that follow their baselines on these,
// deletes expired sandboxes and adopts those that came from Git. Each controller is a decision, which is pure, and the reading and writing around it.
package lifecycle

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Options are what the controllers stand on.
type Options struct {
	Hub    *routes.Hub
	Cache  cache.Cache // with CacheOptions, routes.CacheOptions and routes.Index
	Client client.Client
	API    client.Reader // not cached
	// FollowKinds are the kinds of baselines, beside BuiltInKinds, that forks may follow: Client and API know their resources.
	FollowKinds []schema.GroupVersionKind
	// PodCache makes a cache of the pods of one namespace for the guard, with PodCacheOptions.
	PodCache func(cache.Options) (cache.Cache, error)
	Events   events.EventRecorder
	Clock    clock.WithTicker
	Log      logr.Logger
	// WarnBefore is how long before its expiry a sandbox gets an Event, of at most a quarter of its life.
	WarnBefore time.Duration
}

// CacheOptions says what the controllers read beside routes.CacheOptions.
func CacheOptions() map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{
		// Unlabelled ones as well: they say which workloads stand behind one Service.
		&corev1.Service{}: {Transform: stripService},
		&networkingv1.NetworkPolicy{}: {
			Label:     labels.SelectorFromSet(labels.Set{sandbox.LabelRole: sandbox.RoleFork}),
			Transform: stripPolicy,
		},
	}
}

// Index adds the indices that the controllers look things up by. Call it once, before the cache starts.
func Index(ctx context.Context, c cache.Cache) error {
	return c.IndexField(ctx, &corev1.Pod{}, indexWaiting, waits)
}

// Runnables returns the controllers, to be added to a manager.
func Runnables(o Options) ([]manager.Runnable, error) {
	gate, err := newGate(o)
	if err != nil {
		return nil, fmt.Errorf("gate: %w", err)
	}
	guard, err := newGuard(o)
	if err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	expiry, err := newExpiry(o)
	if err != nil {
		return nil, fmt.Errorf("expiry: %w", err)
	}
	adopter, err := newAdopter(o)
	if err != nil {
		return nil, fmt.Errorf("adoption: %w", err)
	}
	follower, err := newFollower(o)
	if err != nil {
		return nil, fmt.Errorf("follow: %w", err)
	}
	retrier := &retrier{cache: o.Cache, client: o.Client, clock: o.Clock, log: o.Log.WithName("retry")}
	return []manager.Runnable{gate, guard, expiry, adopter, follower, retrier}, nil
}

func newGate(o Options) (manager.Runnable, error) {
	c, err := controller.NewTypedUnmanaged("gate", controller.TypedOptions[routes.Baseline]{
		Logger:                  o.Log,
		SkipNameValidation:      ptr.To(true), // a process that loses the lease stands for it again, with new controllers
		MaxConcurrentReconciles: 8,
		Reconciler: &gate{
			hub: o.Hub, cache: o.Cache, client: o.Client, clock: o.Clock, pods: map[routes.Baseline]map[types.UID]*gated{},
		},
	})
	if err != nil {
		return nil, err
	}
	err = c.Watch(source.TypedFunc[routes.Baseline](func(_ context.Context, q workqueue.TypedRateLimitingInterface[routes.Baseline]) error {
		o.Hub.Watch(q.Add)
		return nil
	}))
	if err != nil {
		return nil, err
	}
	ofBaseline := handler.TypedEnqueueRequestsFromMapFunc(func(_ context.Context, pod *corev1.Pod) []routes.Baseline {
		b, _ := routes.BaselineOf(pod)
		return []routes.Baseline{b}
	})
	return c, c.Watch(source.TypedKind(o.Cache, &corev1.Pod{}, ofBaseline))
}

func newGuard(o Options) (manager.Runnable, error) {
	g := &guard{
		services: o.Cache, client: o.Client, events: o.Events, clock: o.Clock, log: o.Log.WithName("guard"),
		namespaces: map[string]*podCache{},
		newCache: func(namespace string) (cache.Cache, error) {
			return o.PodCache(cache.Options{
				DefaultNamespaces: map[string]cache.Config{namespace: {}},
				ByObject:          map[client.Object]cache.ByObject{&corev1.Pod{}: {Transform: stripGuarded}},
			})
		},
	}
	c, err := controller.NewUnmanaged("guard", controller.Options{
		Logger: o.Log, SkipNameValidation: ptr.To(true), MaxConcurrentReconciles: 8, Reconciler: g, NeedLeaderElection: ptr.To(false),
	})
	if err != nil {
		return nil, err
	}
	g.controller = c
	switched := predicate.TypedFuncs[*corev1.Service]{
		CreateFunc: func(e event.TypedCreateEvent[*corev1.Service]) bool { return isSwitched(e.Object) },
		UpdateFunc: func(e event.TypedUpdateEvent[*corev1.Service]) bool {
			return isSwitched(e.ObjectOld) || isSwitched(e.ObjectNew)
		},
		DeleteFunc: func(e event.TypedDeleteEvent[*corev1.Service]) bool { return isSwitched(e.Object) },
	}
	return g, c.Watch(source.Kind(o.Cache, &corev1.Service{}, &handler.TypedEnqueueRequestForObject[*corev1.Service]{}, switched))
}

func newExpiry(o Options) (manager.Runnable, error) {
	c, err := controller.NewUnmanaged("expiry", controller.Options{
		Logger:             o.Log,
		SkipNameValidation: ptr.To(true),
		Reconciler: &expiry{
			cache: o.Cache, client: o.Client, events: o.Events, clock: o.Clock, warnBefore: o.WarnBefore, warned: map[types.NamespacedName]string{},
		},
	})
	if err != nil {
		return nil, err
	}
	return c, c.Watch(source.Kind(o.Cache, &corev1.ConfigMap{}, &handler.TypedEnqueueRequestForObject[*corev1.ConfigMap]{}))
}

func newAdopter(o Options) (manager.Runnable, error) {
	c, err := controller.NewUnmanaged("adoption", controller.Options{
		Logger: o.Log, SkipNameValidation: ptr.To(true), Reconciler: &adopter{cache: o.Cache, client: o.Client},
	})
	if err != nil {
		return nil, err
	}
	err = c.Watch(source.Kind(o.Cache, &appsv1.Deployment{}, handler.TypedEnqueueRequestsFromMapFunc(adopts[*appsv1.Deployment])))
	if err != nil {
		return nil, err
	}
	err = c.Watch(source.Kind(o.Cache, &networkingv1.NetworkPolicy{}, handler.TypedEnqueueRequestsFromMapFunc(adopts[*networkingv1.NetworkPolicy])))
	if err != nil {
		return nil, err
	}
	// A fork may come before its ConfigMap.
	made := handler.TypedFuncs[*corev1.ConfigMap, reconcile.Request]{
		CreateFunc: func(_ context.Context, e event.TypedCreateEvent[*corev1.ConfigMap], q requests) {
			q.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(e.Object)})
		},
	}
	return c, c.Watch(source.Kind(o.Cache, &corev1.ConfigMap{}, made))
}
