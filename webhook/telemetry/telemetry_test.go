package telemetry

import (
	"context"
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func newSet(t *testing.T) (*Set, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	s, err := New(registry)
	if err != nil {
		t.Fatal(err)
	}
	return s, registry
}

// values returns the registry's gauges by name; a label's value stands behind a slash.
func values(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += "/" + l.GetValue()
			}
			if m.GetGauge() != nil {
				got[name] = m.GetGauge().GetValue()
			}
		}
	}
	return got
}

// fails holds what the guard fails at to what is wanted.
func fails(t *testing.T, registry *prometheus.Registry, objects, seconds float64) {
	t.Helper()
	got := values(t, registry)
	if n, s := got[NameReconcileFailing+"/guard"], got[NameReconcileFailingSeconds+"/guard"]; n != objects || s != seconds {
		t.Errorf("fails at %v objects for %vs, want %v and %vs", n, s, objects, seconds)
	}
}

func TestWatch_TellsWhatFailsAndForHowLong(t *testing.T) {
	s, registry := newSet(t)
	now := time.Now()
	s.failing.now = func() time.Time { return now }
	broken := map[string]bool{"a": true, "b": true}
	inner := reconcile.TypedFunc[string](func(_ context.Context, name string) (reconcile.Result, error) {
		if broken[name] {
			return reconcile.Result{}, errors.New("broken")
		}
		return reconcile.Result{RequeueAfter: time.Second}, nil
	})
	r := Watch(s, "guard", inner)
	fails(t, registry, 0, 0)

	do := func(ctx context.Context, name string) {
		t.Helper()
		result, err := r.Reconcile(ctx, name)
		if (err != nil) != broken[name] || err == nil && result.RequeueAfter != time.Second {
			t.Errorf("%s: %v, %v", name, result, err)
		}
	}
	do(t.Context(), "a")
	now = now.Add(time.Minute)
	do(t.Context(), "a")
	do(t.Context(), "b")
	do(t.Context(), "c")
	now = now.Add(time.Minute)
	fails(t, registry, 2, 120)

	broken["a"] = false
	do(t.Context(), "a")
	fails(t, registry, 1, 60)
	broken["b"] = false
	do(t.Context(), "b")
	fails(t, registry, 0, 0)

	// One that is stopped has not failed.
	broken["a"] = true
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Reconcile(stopped, "a"); err != nil {
		t.Errorf("a reconcile that was stopped returns %v, which is logged as a failure", err)
	}
	fails(t, registry, 0, 0)

	// The controller of a new term starts without failures.
	do(t.Context(), "a")
	fails(t, registry, 1, 0)
	Watch(s, "guard", inner)
	fails(t, registry, 0, 0)
}

func TestReport_IsTheHoldersAlone(t *testing.T) {
	s, registry := newSet(t)
	holds := false
	s.Report(func() (State, bool) {
		return State{Sandboxes: 1, Forks: 2, RoutersConnected: 3, RoutersDisconnected: 4, TablesStale: 5, RoutesUnacknowledged: 6, Unacknowledged: 7 * time.Second, PodsWithoutRouter: 8}, holds
	})
	all := []string{NameSandboxes, NameForks, NameRoutersConnected, NameRoutersDisconnected, NameTablesStale, NameRoutesUnacknowledged, NameUnacknowledgedSeconds, NamePodsWithoutRouter}
	if got := values(t, registry); !maps.Equal(got, map[string]float64{NameLeading: 0}) {
		t.Errorf("a replica that does not hold the lease has %v", got)
	}
	holds = true
	got := values(t, registry)
	if got[NameLeading] != 1 || len(got) != 1+len(all) {
		t.Errorf("the holder has %v", got)
	}
	for i, name := range all {
		if got[name] != float64(i+1) {
			t.Errorf("%s is %v, want %d", name, got[name], i+1)
		}
	}
}

func TestANilSetMeasuresNothing(*testing.T) {
	var s *Set
	s.Restored()
	s.Acknowledged(time.Second)
	s.Report(nil)
	Watch(s, "guard", reconcile.TypedFunc[string](nil))
}
