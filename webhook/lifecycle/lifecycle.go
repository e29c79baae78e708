// Package lifecycle holds the controllers of sandboxes: they set the readiness gate of forks' pods, guard the Services
// that `route` switched, retry forks whose pods admission could not review, rebase forks that follow their baselines,
// delete expired sandboxes, adopt those that came from Git, and publish the truth about forks. Each is a pure decision,
// with I/O around it.
package lifecycle

import (
	"context"
	"fmt"
	"slices"
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
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/telemetry"
)

// Options are the dependencies and settings of the controllers.
type Options struct {
	Hub    *routes.Hub
	Cache  cache.Cache // with CacheOptions, routes.CacheOptions and routes.Index
	Client client.Client
	API    client.Reader // not cached
	// FollowKinds are the kinds of baselines, beside BuiltInKinds, that forks may follow. Client and API must know their
	// resources.
	FollowKinds []schema.GroupVersionKind
	// PodCache creates a cache of one namespace for the guard.
	PodCache func(cache.Options) (cache.Cache, error)
	Events   events.EventRecorder
	Clock    clock.WithTicker
	Log      logr.Logger
	// StaleAfter is the age at which routers stop using their tables.
	StaleAfter time.Duration
	// WarnBefore is how long before its expiry a sandbox gets an Event; at most a quarter of its life.
	WarnBefore time.Duration
	Metrics    *telemetry.Set // may be nil
}

// CacheOptions returns what the controllers read beside routes.CacheOptions.
func CacheOptions() map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{
		// Services without our label too: one that lost it still bypasses the routers, and only all Services together tell
		// which workloads share one.
		&corev1.Service{}: {Transform: stripService},
		&networkingv1.NetworkPolicy{}: {
			Label:     labels.SelectorFromSet(labels.Set{sandbox.LabelRole: sandbox.RoleFork}),
			Transform: stripPolicy,
		},
	}
}

// Index adds the field indices of the controllers. Call it once, before the cache starts.
func Index(ctx context.Context, c cache.Cache) error {
	return c.IndexField(ctx, &corev1.Pod{}, indexWaiting, waits)
}

// Runnables returns the controllers, to be added to a manager.
func Runnables(o Options) ([]manager.Runnable, error) {
	gate, err := newGate(o)
	if err != nil {
		return nil, fmt.Errorf("gate: %w", err)
	}
	truth, err := newTruth(o)
	if err != nil {
		return nil, fmt.Errorf("truth: %w", err)
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
	rebaser, err := newRebaser(o)
	if err != nil {
		return nil, fmt.Errorf("follow: %w", err)
	}
	retrier := &retrier{cache: o.Cache, client: o.Client, clock: o.Clock, log: o.Log.WithName("retry")}
	return []manager.Runnable{gate, truth, guard, expiry, adopter, rebaser, retrier}, nil
}

func newGate(o Options) (manager.Runnable, error) {
	c, err := controller.NewTypedUnmanaged("gate", controller.TypedOptions[routes.Baseline]{
		Logger:                  o.Log,
		SkipNameValidation:      ptr.To(true), // a process that lost the lease starts new controllers
		MaxConcurrentReconciles: 8,
		Reconciler: telemetry.Watch(o.Metrics, "gate", &gate{
			hub: o.Hub, cache: o.Cache, client: o.Client, clock: o.Clock, staleAfter: o.StaleAfter,
			pods: map[routes.Baseline]map[types.UID]*gated{},
		}),
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
	if err := c.Watch(source.TypedKind(o.Cache, &corev1.Pod{}, ofBaseline)); err != nil {
		return nil, err
	}
	return c, c.Watch(source.TypedKind(o.Cache, &corev1.Service{}, handler.TypedEnqueueRequestsFromMapFunc(baselinesBehind(o.Cache))))
}

// baselinesBehind maps a Service to the baselines that it may concern: those of its namespace that have forks.
func baselinesBehind(c client.Reader) handler.TypedMapFunc[*corev1.Service, routes.Baseline] {
	return func(ctx context.Context, s *corev1.Service) []routes.Baseline {
		forks, err := routes.ForkedIn(ctx, c, s.Namespace)
		if err != nil {
			return nil // the cache is closed
		}
		return forks
	}
}

// newTruth returns the truth's controller. It delays events, because acknowledgements come in bursts.
func newTruth(o Options) (manager.Runnable, error) {
	c, err := controller.NewTypedUnmanaged("truth", controller.TypedOptions[routes.Baseline]{
		Logger: o.Log, SkipNameValidation: ptr.To(true), MaxConcurrentReconciles: 4,
		Reconciler: &truth{
			hub: o.Hub, cache: o.Cache, api: o.API, client: o.Client, events: o.Events, clock: o.Clock, log: o.Log.WithName("truth"),
			kinds: append(BuiltInKinds(), o.FollowKinds...), staleAfter: o.StaleAfter, waits: map[routes.Baseline]map[types.UID]waitingSince{},
		},
	})
	if err != nil {
		return nil, err
	}
	err = c.Watch(source.TypedFunc[routes.Baseline](func(_ context.Context, q workqueue.TypedRateLimitingInterface[routes.Baseline]) error {
		o.Hub.Watch(func(b routes.Baseline) { q.AddAfter(b, truthDelay) })
		return nil
	}))
	if err != nil {
		return nil, err
	}
	if err := c.Watch(source.TypedKind(o.Cache, &corev1.Pod{}, later[*corev1.Pod](ofObject[*corev1.Pod]))); err != nil {
		return nil, err
	}
	if err := c.Watch(source.TypedKind(o.Cache, &appsv1.Deployment{}, later[*appsv1.Deployment](ofObject[*appsv1.Deployment]))); err != nil {
		return nil, err
	}
	return c, c.Watch(source.TypedKind(o.Cache, &corev1.Service{}, later(baselinesBehind(o.Cache))))
}

func ofObject[T client.Object](_ context.Context, o T) []routes.Baseline {
	b, _ := routes.BaselineOf(o)
	return []routes.Baseline{b}
}

// later enqueues the baselines of an event truthDelay after it.
func later[T client.Object](of handler.TypedMapFunc[T, routes.Baseline]) handler.TypedFuncs[T, routes.Baseline] {
	type queue = workqueue.TypedRateLimitingInterface[routes.Baseline]
	add := func(ctx context.Context, o T, q queue) {
		for _, b := range of(ctx, o) {
			q.AddAfter(b, truthDelay)
		}
	}
	return handler.TypedFuncs[T, routes.Baseline]{
		CreateFunc: func(ctx context.Context, e event.TypedCreateEvent[T], q queue) { add(ctx, e.Object, q) },
		UpdateFunc: func(ctx context.Context, e event.TypedUpdateEvent[T], q queue) { add(ctx, e.ObjectNew, q) },
		DeleteFunc: func(ctx context.Context, e event.TypedDeleteEvent[T], q queue) { add(ctx, e.Object, q) },
	}
}

func newGuard(o Options) (manager.Runnable, error) {
	g := &guard{
		services: o.Cache, api: o.API, client: o.Client, events: o.Events, clock: o.Clock, log: o.Log.WithName("guard"), metrics: o.Metrics,
		namespaces: map[string]*podCache{}, reported: map[types.NamespacedName]string{},
		// A standalone ReplicaSet cannot be routed, since it does not replace its pods.
		kinds: slices.DeleteFunc(append(BuiltInKinds(), o.FollowKinds...), func(k schema.GroupVersionKind) bool { return k.Kind == "ReplicaSet" }),
		newCache: func(namespace string) (cache.Cache, error) {
			return o.PodCache(cache.Options{
				DefaultNamespaces: map[string]cache.Config{namespace: {}},
				DefaultTransform:  stripGuarded,
			})
		},
	}
	c, err := controller.NewUnmanaged("guard", controller.Options{
		Logger: o.Log, SkipNameValidation: ptr.To(true), MaxConcurrentReconciles: 8, NeedLeaderElection: ptr.To(false),
		Reconciler: telemetry.Watch(o.Metrics, "guard", g),
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
		Reconciler: telemetry.Watch(o.Metrics, "expiry", &expiry{
			cache: o.Cache, client: o.Client, events: o.Events, clock: o.Clock, warnBefore: o.WarnBefore, warned: map[types.NamespacedName]string{},
		}),
	})
	if err != nil {
		return nil, err
	}
	return c, c.Watch(source.Kind(o.Cache, &corev1.ConfigMap{}, &handler.TypedEnqueueRequestForObject[*corev1.ConfigMap]{}))
}

func newAdopter(o Options) (manager.Runnable, error) {
	c, err := controller.NewUnmanaged("adoption", controller.Options{
		Logger: o.Log, SkipNameValidation: ptr.To(true),
		Reconciler: telemetry.Watch(o.Metrics, "adoption", &adopter{cache: o.Cache, client: o.Client}),
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
	// A fork may be created before its ConfigMap.
	made := handler.TypedFuncs[*corev1.ConfigMap, reconcile.Request]{
		CreateFunc: func(_ context.Context, e event.TypedCreateEvent[*corev1.ConfigMap], q requests) {
			q.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(e.Object)})
		},
	}
	return c, c.Watch(source.Kind(o.Cache, &corev1.ConfigMap{}, made))
}
