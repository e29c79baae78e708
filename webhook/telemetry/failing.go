package telemetry

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Watch returns a reconciler that calls r and records the objects whose last reconcile failed. If the process creates
// the controller again, as after the loss of its lease, the new one replaces the old.
func Watch[T comparable](s *Set, controller string, r reconcile.TypedReconciler[T]) reconcile.TypedReconciler[T] {
	if s == nil {
		return r
	}
	w := &watched[T]{TypedReconciler: r, now: s.failing.now, since: map[T]time.Time{}}
	s.failing.set(controller, w)
	return w
}

// watched holds since when each failing object has failed.
type watched[T comparable] struct {
	reconcile.TypedReconciler[T]
	now   func() time.Time
	mu    sync.Mutex
	since map[T]time.Time
}

// Reconcile implements reconcile.TypedReconciler.
func (w *watched[T]) Reconcile(ctx context.Context, request T) (reconcile.Result, error) {
	result, err := w.TypedReconciler.Reconcile(ctx, request)
	if err != nil && ctx.Err() != nil {
		// It was cancelled, which says nothing about the object: the next controller reconciles it. Returned as an error, it
		// would be logged as a failure.
		return reconcile.Result{}, nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, failing := w.since[request]
	switch {
	case err == nil:
		delete(w.since, request)
	case !failing:
		w.since[request] = w.now()
	}
	return result, err
}

// failing returns how many objects fail, and for how long the first of them has.
func (w *watched[T]) failing() (n int, longest time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	for _, since := range w.since {
		longest = max(longest, now.Sub(since))
	}
	return len(w.since), longest
}

// failing collects the failures of all controllers.
type failing struct {
	now            func() time.Time
	count, longest *prometheus.Desc
	mu             sync.Mutex
	controllers    map[string]interface{ failing() (int, time.Duration) }
}

func newFailing(now func() time.Time) *failing {
	return &failing{
		now: now,
		count: prometheus.NewDesc(NameReconcileFailing,
			"Objects whose last reconcile by the controller failed.", []string{"controller"}, nil),
		longest: prometheus.NewDesc(NameReconcileFailingSeconds,
			"For how long the controller has failed at one object without a success, at most.", []string{"controller"}, nil),
		controllers: map[string]interface{ failing() (int, time.Duration) }{},
	}
}

func (f *failing) set(controller string, w interface{ failing() (int, time.Duration) }) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.controllers[controller] = w
}

// Describe implements prometheus.Collector.
func (f *failing) Describe(descs chan<- *prometheus.Desc) { descs <- f.count; descs <- f.longest }

// Collect implements prometheus.Collector.
func (f *failing) Collect(metrics chan<- prometheus.Metric) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for controller, w := range f.controllers {
		n, longest := w.failing()
		metrics <- prometheus.MustNewConstMetric(f.count, prometheus.GaugeValue, float64(n), controller)
		metrics <- prometheus.MustNewConstMetric(f.longest, prometheus.GaugeValue, longest.Seconds(), controller)
	}
}
