package router

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/proxy"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// Outcomes of a request, as values of the metric's label.
const (
	outcomeApp        = "app"        // answered by the app: it carries no key, or none of the table
	outcomeFork       = "fork"       // answered by a fork
	outcomeFellBack   = "fell_back"  // answered by the app, because the fork was not ready
	outcomeRefused    = "refused"    // answered by the router
	outcomeUnfinished = "unfinished" // its backend failed before the response was complete
	outcomeOutgoing   = "outgoing"   // of an app in a fork or check, forwarded with the sandbox's key
)

// metrics are the router's Prometheus metrics. None has the key as a label: the number of series would be unbounded.
type metrics struct {
	registry *prometheus.Registry
	requests [2]map[string]prometheus.Counter // of HTTP/1 and HTTP/2, by outcome
	routes   *routes

	started   atomic.Uint64    // requests that a test or an app in a fork sent
	stamping  [3]atomic.Uint64 // those of them that ended, by engine.Event
	otherKeys atomic.Uint64    // those of them that carried another key
}

func newMetrics(version string, r *routes, engines []*proxy.Engine, connected func() bool) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), routes: r}
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sandbox_router_requests_total",
		Help: "Requests by what became of them. One that broke off after its answer had begun is in unfinished as well.",
	}, []string{"outcome", "protocol"})
	for i, protocol := range []string{"http1", "http2"} {
		m.requests[i] = make(map[string]prometheus.Counter)
		for _, o := range []string{
			outcomeApp, outcomeFork, outcomeFellBack, outcomeRefused, outcomeUnfinished, outcomeOutgoing,
		} {
			m.requests[i][o] = requests.WithLabelValues(o, protocol)
		}
	}
	sum := func(of func(*engine.Stats) float64) func() float64 {
		return func() float64 {
			var n float64
			for _, e := range engines {
				n += of(&e.Stats)
			}
			return n
		}
	}
	version0 := func(of func(term int64, counter uint64) float64) func() float64 {
		return func() float64 { v, _ := r.have(); return of(v.Term, v.Counter) }
	}
	m.registry.MustRegister(requests, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		gauge("build_info", "The router's version.", prometheus.Labels{"version": version}, func() float64 { return 1 }),
		gauge("connections", "Client connections open.", nil, sum(func(s *engine.Stats) float64 { return float64(s.Open.Load()) })),
		counterOf("passed_through_connections_total", "Connections passed to the app as bytes: TLS, or no HTTP.",
			sum(func(s *engine.Stats) float64 { return float64(s.Raw.Load()) })),
		counterOf("malformed_total", "Messages refused as malformed or ambiguous.",
			sum(func(s *engine.Stats) float64 { return float64(s.Malformed.Load()) })),
		gauge("table_age_seconds", "Time since the table in force was known to be right.", nil,
			func() float64 { return r.age().Seconds() }),
		gauge("table_routes", "Routes in force.", nil, func() float64 {
			if f := r.force.Load(); f != nil {
				return float64(len(f.routes))
			}
			return 0
		}),
		gauge("table_term", "Term of the table in force: lease transitions when it was made.", nil,
			version0(func(t int64, _ uint64) float64 { return float64(t) })),
		gauge("table_version", "Version of the table in force, within its term.", nil,
			version0(func(_ int64, c uint64) float64 { return float64(c) })),
		gauge("connected", "Whether the route stream is open.", nil, func() float64 {
			if connected() {
				return 1
			}
			return 0
		}),
	)
	return m
}

func gauge(name, help string, labels prometheus.Labels, f func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sandbox_router_" + name, Help: help, ConstLabels: labels}, f)
}

func counterOf(name, help string, f func() float64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "sandbox_router_" + name, Help: help}, f)
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// sent returns the outcomes of the requests that the router stamps.
func (m *metrics) sent() route.Sent {
	return route.Sent{
		Begun: m.started.Load(), Answered: m.stamping[engine.Answered].Load(), Refused: m.stamping[engine.Refused].Load(),
		Unfinished: m.stamping[engine.Broken].Load(), OtherKeys: m.otherKeys.Load(),
	}
}

// seen counts one request. It is created when the request is read, and observes it.
type seen struct {
	m        *metrics
	protocol uint8
	stamps   bool         // it is sent with the sandbox's key
	failed   bool         // counted in observed
	route    *forkRoute   // nil: not to a fork
	observed *observation // nil: its key is not observed
	outcome  string       // when it is answered
}

func (m *metrics) seen(http2 bool) seen {
	s := seen{m: m, outcome: outcomeApp}
	if http2 {
		s.protocol = 1
	}
	return s
}

func (s seen) app() *seen { return &s }
func (s seen) passing(o *observation) *seen {
	if o != nil {
		o.last.Store(time.Now().UnixMilli())
		o.requests.Add(1)
		s.m.routes.changed.Store(true)
	}
	s.observed = o
	return &s
}
func (s seen) outgoing() *seen {
	s.outcome, s.stamps = outcomeOutgoing, true
	s.m.started.Add(1)
	return &s
}
func (s seen) fork(f *forkRoute) *seen    { s.route, s.outcome = f, outcomeFork; return &s }
func (s seen) refused(f *forkRoute) *seen { s.route = f; return &s }
func (s *seen) count(outcome string)      { s.m.requests[s.protocol][outcome].Inc() }
func (s *seen) counter() (c *counter)     { s.m.routes.changed.Store(true); return s.route.counter }

// Observe counts before the response is forwarded, so that whoever has a response finds it counted.
func (s *seen) Observe(e engine.Event, b *engine.Backend) {
	if s.observed != nil && e != engine.Answered && e != engine.Abandoned && !s.failed {
		s.failed = true
		s.observed.failed.Add(1)
		s.m.routes.changed.Store(true)
	}
	switch e {
	case engine.Failed:
		return // reported by Answered as well
	case engine.Abandoned:
		e = engine.Broken // the cause is not known
	}
	if s.stamps {
		s.m.stamping[e].Add(1)
	}
	switch {
	case e == engine.Refused:
		s.count(outcomeRefused)
		if s.route != nil {
			s.counter().refused.Add(1)
			s.m.routes.doubt(s.route)
		}
	case s.route == nil && e == engine.Answered:
		s.count(s.outcome)
	case e == engine.Broken:
		s.count(outcomeUnfinished)
		if s.route != nil && !b.Anchor {
			s.counter().unfinished.Add(1)
		}
	case b.Anchor:
		s.count(outcomeFellBack)
		s.counter().fellBack.Add(1)
	default:
		s.count(outcomeFork)
		s.counter().fork.Add(1)
	}
}
