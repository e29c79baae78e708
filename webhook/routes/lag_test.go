package routes

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/telemetry"
)

// acknowledged returns how many acknowledgements were measured.
func acknowledged(t *testing.T, r *prometheus.Registry) (n uint64) {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == telemetry.NameAcknowledgeSeconds {
			n = f.GetMetric()[0].GetHistogram().GetSampleCount()
		}
	}
	return n
}

func TestLag_IsOfRoutersThatHaveNotAcknowledged(t *testing.T) {
	registry := prometheus.NewRegistry()
	set, err := telemetry.New(registry)
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{}
	h := newHub(c, clock.RealClock{})
	h.lag.metrics = set
	h.serve(1)
	b := api
	want := func(when string, unacknowledged, connected, lost int, behind bool, measured uint64) {
		t.Helper()
		state, known := h.lags()
		gone := 0
		for _, at := range known {
			if !at.IsZero() {
				gone++
			}
		}
		if state.RoutesUnacknowledged != unacknowledged || state.RoutersConnected != connected || gone != lost || (state.Unacknowledged > 0) != behind {
			t.Errorf("%s: %+v and %d lost, want %d routes unacknowledged, %d connected, %d lost, behind %t", when, state, gone, unacknowledged, connected, lost, behind)
		}
		if n := acknowledged(t, registry); n != measured {
			t.Errorf("%s: %d acknowledgements were measured, want %d", when, n, measured)
		}
	}
	connect := func(pod string, have route.Version) *stream {
		t.Helper()
		s := h.open(peer{Baseline: b, pod: pod, uid: types.UID(pod)}, &route.Hello{Start: "1", Have: have})
		if err := h.ensure(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		return s
	}
	newest := func() route.Version { return h.baselines[b].current.table.Version }
	ack := func(s *stream) {
		t.Helper()
		if _, err := h.next(s); err != nil {
			t.Fatal(err)
		}
		if err := h.ack(s, newest()); err != nil {
			t.Fatal(err)
		}
	}

	one, two := connect("one", route.Version{}), connect("two", route.Version{})
	time.Sleep(time.Millisecond) // so that a lag is more than nothing
	want("both connected", 0, 2, 0, true, 0)
	ack(one)
	ack(two)
	want("both have the empty table", 0, 2, 0, false, 2)

	rebuild := func(forks ...Fork) {
		t.Helper()
		c.set(b, forks...)
		for _, f := range forks {
			if err := h.rebuild(t.Context(), b, f.Deployment.Labels["kubectl-sandbox.dev/sandbox"]); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Millisecond)
	}
	first, second := fork("pr-1", "fork-1"), fork("pr-2", "fork-2")
	rebuild(first)
	want("a route is new", 1, 2, 0, true, 2)
	ack(one)
	want("one has it", 1, 2, 0, true, 3)
	ack(two)
	want("both have it", 0, 2, 0, false, 4)
	rebuild(first, second)
	want("another is new", 1, 2, 0, true, 4)

	h.closeStream(two)
	ack(one)
	want("who left counts as lost, and not as behind", 0, 1, 1, false, 5)
	connect("two", newest())
	want("it comes back with the newest table", 0, 2, 0, false, 5)
	h.forget(b, "two")
	h.forget(b, "one")
	want("their pods are gone", 0, 0, 0, false, 5)
	if len(h.lag.behind)+len(h.lag.lost) > 0 {
		t.Errorf("of pods that are gone it remembers %v and %v", h.lag.behind, h.lag.lost)
	}
}
