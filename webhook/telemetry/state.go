package telemetry

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A State is what the lease's holder knows about sandboxes and routers at one moment.
type State struct {
	Sandboxes, Forks     int
	RoutersConnected     int
	RoutersDisconnected  int           // of existing pods
	TablesStale          int           // of routers that are disconnected for longer than a table may be used
	RoutesUnacknowledged int           // by some connected router
	Unacknowledged       time.Duration // the longest time that a connected router has lacked the newest table
	PodsWithoutRouter    int           // of routed workloads
}

// Report registers metrics that read computes on each scrape. read returns false in a process that does not hold the
// lease: replicas that report the same state would be counted twice.
func (s *Set) Report(read func() (State, bool)) {
	if s == nil {
		return
	}
	s.state.mu.Lock()
	defer s.state.mu.Unlock()
	s.state.read = read
}

// state collects a State.
type state struct {
	leading *prometheus.Desc
	gauges  []stateGauge
	mu      sync.Mutex
	read    func() (State, bool)
}

type stateGauge struct {
	desc *prometheus.Desc
	of   func(State) float64
}

func newState() *state {
	s := &state{leading: prometheus.NewDesc(NameLeading, "Whether this replica holds the lease and serves routes. The metrics of sandboxes, forks, routes and routers are the holder's alone.", nil, nil)}
	add := func(name, help string, of func(State) float64) {
		s.gauges = append(s.gauges, stateGauge{prometheus.NewDesc(name, help, nil, nil), of})
	}
	count := func(name, help string, of func(State) int) {
		add(name, help, func(s State) float64 { return float64(of(s)) })
	}
	count(NameSandboxes, "Sandboxes in the cluster.", func(s State) int { return s.Sandboxes })
	count(NameForks, "Forks in the cluster.", func(s State) int { return s.Forks })
	count(NameRoutersConnected, "Routers with an open route stream.", func(s State) int { return s.RoutersConnected })
	count(NameRoutersDisconnected, "Routers of running baseline pods without an open route stream: they route by the last table they have.",
		func(s State) int { return s.RoutersDisconnected })
	count(NameTablesStale, "Routers without a route stream for longer than router.staleAfter: they answer requests with a key with 503.",
		func(s State) int { return s.TablesStale })
	count(NameRoutesUnacknowledged, "Routes to fork pods that some connected router has not acknowledged.",
		func(s State) int { return s.RoutesUnacknowledged })
	add(NameUnacknowledgedSeconds, "For how long a connected router has not acknowledged the newest table, at most.",
		func(s State) float64 { return s.Unacknowledged.Seconds() })
	count(NamePodsWithoutRouter, "Running pods of routed workloads that have no router: requests with a key that reach them stay on the baseline.",
		func(s State) int { return s.PodsWithoutRouter })
	return s
}

// Describe implements prometheus.Collector.
func (s *state) Describe(descs chan<- *prometheus.Desc) {
	descs <- s.leading
	for _, g := range s.gauges {
		descs <- g.desc
	}
}

// Collect implements prometheus.Collector.
func (s *state) Collect(metrics chan<- prometheus.Metric) {
	s.mu.Lock()
	read := s.read
	s.mu.Unlock()
	var now State
	leading := false
	if read != nil {
		now, leading = read()
	}
	if !leading {
		metrics <- prometheus.MustNewConstMetric(s.leading, prometheus.GaugeValue, 0)
		return
	}
	metrics <- prometheus.MustNewConstMetric(s.leading, prometheus.GaugeValue, 1)
	for _, g := range s.gauges {
		metrics <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, g.of(now))
	}
}
