package routes

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/telemetry"
)

// A lag knows since when routers are behind the tables of their baselines. It is guarded by Hub.mu; its zero value measures
// nothing and remembers all the same.
type lag struct {
	metrics *telemetry.Set
	behind  map[*router]time.Time // connected routers that have not acknowledged the newest table
	lost    map[*router]time.Time // routers whose stream ended
}

// opened notes that a router connected, with what it has; current is the newest table, nil where there is none yet.
func (l *lag) opened(r *router, current *published) {
	delete(l.lost, r)
	delete(l.behind, r)
	if current == nil || r.acked.Compare(current.table.Version) < 0 {
		l.lags(r)
	}
}

// closed notes that a router's stream ended.
func (l *lag) closed(r *router) {
	delete(l.behind, r)
	if l.lost == nil {
		l.lost = map[*router]time.Time{}
	}
	l.lost[r] = time.Now()
}

// forgot drops the router of a pod that is gone.
func (l *lag) forgot(r *router) {
	delete(l.behind, r)
	delete(l.lost, r)
}

// published notes that a baseline has a new table.
func (l *lag) published(b *baseline) {
	for _, r := range b.routers {
		if r.stream != nil {
			l.lags(r)
		}
	}
}

func (l *lag) lags(r *router) {
	if _, known := l.behind[r]; known {
		return
	}
	if l.behind == nil {
		l.behind = map[*router]time.Time{}
	}
	l.behind[r] = time.Now()
}

// acked notes that a router acknowledged something; current is the newest table.
func (l *lag) acked(r *router, current *published) {
	since, behind := l.behind[r]
	if !behind || current == nil || r.acked.Compare(current.table.Version) < 0 {
		return
	}
	delete(l.behind, r)
	l.metrics.Acknowledged(time.Since(since))
}

// unacknowledged counts the baseline's routes to pods that some connected router has not acknowledged. The caller holds Hub.mu.
func (b *baseline) unacknowledged() int {
	if b.current == nil {
		return 0
	}
	oldest, connected := route.Version{}, false
	for _, r := range b.routers {
		if r.stream != nil && (!connected || r.acked.Compare(oldest) < 0) {
			oldest, connected = r.acked, true
		}
	}
	if !connected || oldest.Compare(b.current.table.Version) >= 0 {
		return 0
	}
	n := 0
	for _, f := range b.current.table.Routes {
		for _, pod := range f.Pods {
			if b.serving[types.UID(pod.UID)].Compare(oldest) > 0 {
				n++
				break
			}
		}
	}
	return n
}
