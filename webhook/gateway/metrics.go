package gateway

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
)

// metrics are the gateway's Prometheus metrics. None has the sandbox as a label: the number of series would be
// unbounded.
type metrics struct {
	registry  *prometheus.Registry
	requests  *prometheus.CounterVec
	redirects *prometheus.CounterVec
	pages     prometheus.Counter
}

func newMetrics(version string, stats *engine.Stats) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), requests: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sandbox_gateway_requests_total",
		Help: "Requests by what became of them: answered by a Service, unreachable, unfinished, or refused with a status of the gateway's own.",
	}, []string{"outcome"}), redirects: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sandbox_gateway_redirects_total",
		Help: "Redirects by Services to other hosts than previews: rewritten to a preview, or escaped.",
	}, []string{"outcome"}), pages: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "sandbox_gateway_page_escapes_total",
		Help: "Reports by browsers that a page of a preview used another host than a preview's.",
	})}
	m.registry.MustRegister(m.requests, m.redirects, m.pages, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sandbox_gateway_build_info", Help: "The gateway's version.",
			ConstLabels: prometheus.Labels{"version": version}}, func() float64 { return 1 }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sandbox_gateway_connections", Help: "Client connections open."},
			func() float64 { return float64(stats.Open.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "sandbox_gateway_malformed_total", Help: "Messages refused as malformed or ambiguous."},
			func() float64 { return float64(stats.Malformed.Load()) }))
	return m
}

// count counts a request to which the gateway responded itself.
func (m *metrics) count(status int) { m.requests.WithLabelValues(strconv.Itoa(status)).Inc() }

// observer counts a forwarded request.
type observer struct{ *metrics }

// Observe counts the outcome.
func (o observer) Observe(e engine.Event, _ *engine.Backend) {
	if e == engine.Failed {
		return // counted by Answered
	}
	outcome := map[engine.Event]string{engine.Answered: "answered", engine.Refused: "unreachable", engine.Broken: "unfinished", engine.Abandoned: "unfinished"}[e]
	o.requests.WithLabelValues(outcome).Inc()
}
