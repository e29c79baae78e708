// Package telemetry holds the webhook's own metrics: their names, meaning, and computation. Labels have few values,
// known in advance, so the number of series does not grow with sandboxes, routers or users.
package telemetry

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Names of the metrics. Packages certs and admission have those of certificates and admission.
const (
	NameReconcileFailing        = "sandbox_webhook_reconcile_failing"
	NameReconcileFailingSeconds = "sandbox_webhook_reconcile_failing_seconds"
	NameLeading                 = "sandbox_webhook_leading"
	NameSandboxes               = "sandbox_webhook_sandboxes"
	NameForks                   = "sandbox_webhook_forks"
	NameRoutersConnected        = "sandbox_webhook_routers_connected"
	NameRoutersDisconnected     = "sandbox_webhook_routers_disconnected"
	NameTablesStale             = "sandbox_webhook_tables_stale"
	NameRoutesUnacknowledged    = "sandbox_webhook_routes_unacknowledged"
	NameUnacknowledgedSeconds   = "sandbox_webhook_unacknowledged_seconds"
	NameAcknowledgeSeconds      = "sandbox_webhook_acknowledge_seconds"
	NamePodsWithoutRouter       = "sandbox_webhook_pods_without_router"
	NamePutBacks                = "sandbox_webhook_put_backs_total"
)

// A Set is the metrics of one process. A nil Set measures nothing.
type Set struct {
	failing      *failing
	state        *state
	acknowledged prometheus.Histogram
	putBacks     prometheus.Counter
}

// New returns a registered Set.
func New(registry prometheus.Registerer) (*Set, error) {
	s := &Set{
		failing: newFailing(time.Now),
		state:   newState(),
		acknowledged: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    NameAcknowledgeSeconds,
			Help:    "Time from the moment when a connected router's table was out of date until it acknowledged the newest one.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}),
		putBacks: prometheus.NewCounter(prometheus.CounterOpts{
			Name: NamePutBacks,
			Help: "Services whose numeric targetPorts this replica put back, because a pod lacked the port's name.",
		}),
	}
	var errs []error
	for _, c := range []prometheus.Collector{s.failing, s.state, s.acknowledged, s.putBacks} {
		errs = append(errs, registry.Register(c))
	}
	return s, errors.Join(errs...)
}

// Acknowledged records how long a router took to acknowledge the newest table.
func (s *Set) Acknowledged(took time.Duration) {
	if s != nil {
		s.acknowledged.Observe(took.Seconds())
	}
}

// Restored counts a Service on which the guard restored numeric targetPorts.
func (s *Set) Restored() {
	if s != nil {
		s.putBacks.Inc()
	}
}
