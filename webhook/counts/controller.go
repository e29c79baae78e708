package counts

import (
	"context"
	"slices"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/telemetry"
)

// ControllerOptions are the dependencies of a controller of counts.
type ControllerOptions struct {
	Cache   cache.Cache
	Client  client.Client
	Routers Routers
	Objects Objects
	Metrics *telemetry.Set // may be nil
	Log     logr.Logger
}

// NewController returns the controller that writes counts countsInterval after they changed, or at once on request by
// annotation. It also tracks which keys experiments observe.
func NewController(o ControllerOptions) (controller.Controller, error) {
	c, err := controller.NewUnmanaged("counts", controller.Options{
		Logger:                  o.Log,
		SkipNameValidation:      ptr.To(true),
		MaxConcurrentReconciles: 8,
		RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](
			50*time.Millisecond, 30*time.Second),
		Reconciler: telemetry.Watch(o.Metrics, "counts", NewCounter(o.Routers, o.Objects, o.Cache, o.Client)),
	})
	if err != nil {
		return nil, err
	}
	err = c.Watch(source.Func(func(_ context.Context, q workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		o.Routers.Notify(func(configMap types.NamespacedName, now bool) {
			if now {
				q.Add(reconcile.Request{NamespacedName: configMap})
				return
			}
			q.AddAfter(reconcile.Request{NamespacedName: configMap}, countsInterval)
		})
		return nil
	}))
	if err != nil {
		return nil, err
	}
	// Other changes of an experiment do not matter, and reacting to them would write counts more often than intended.
	concerned := predicate.TypedFuncs[*corev1.ConfigMap]{
		CreateFunc: func(e event.TypedCreateEvent[*corev1.ConfigMap]) bool {
			return flushRequested(e.Object) || isRun(e.Object)
		},
		UpdateFunc: func(e event.TypedUpdateEvent[*corev1.ConfigMap]) bool {
			return flushRequested(e.ObjectNew) || isRun(e.ObjectNew) && !slices.Equal(RunOf(e.ObjectOld).Keys, RunOf(e.ObjectNew).Keys)
		},
		DeleteFunc: func(e event.TypedDeleteEvent[*corev1.ConfigMap]) bool { return isRun(e.Object) },
	}
	enqueue := &handler.TypedEnqueueRequestForObject[*corev1.ConfigMap]{}
	return c, c.Watch(source.Kind(o.Cache, &corev1.ConfigMap{}, enqueue, concerned))
}
