package routes

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/telemetry"
)

// A lag records since when routers are behind the tables of their baselines. Hub.mu guards it. Its zero value records
// but measures nothing.
type lag struct {
	metrics *telemetry.Set
	behind  map[*router]time.Time // connected routers that have not acknowledged the newest table
	lost    map[*router]time.Time // routers whose stream ended
}

// opened records that a router connected with the table it has; current is the newest table, nil if there is none yet.
func (l *lag) opened(r *router, current *published) {
	delete(l.lost, r)
	delete(l.behind, r)
	if current == nil || r.acked.Compare(current.table.Version) < 0 {
		l.lags(r)
	}
}

// closed records that a router's stream ended.
func (l *lag) closed(r *router) {
	delete(l.behind, r)
	if l.lost == nil {
		l.lost = map[*router]time.Time{}
	}
	l.lost[r] = time.Now()
}

// forgot drops the router of a deleted pod.
func (l *lag) forgot(r *router) {
	delete(l.behind, r)
	delete(l.lost, r)
}

// published records that a baseline has a new table.
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

// acked records an acknowledgement; current is the newest table.
func (l *lag) acked(r *router, current *published) {
	since, behind := l.behind[r]
	if !behind || current == nil || r.acked.Compare(current.table.Version) < 0 {
		return
	}
	delete(l.behind, r)
	l.metrics.Acknowledged(time.Since(since))
}

// unacknowledged counts the baseline's routes to pods that some connected router has not acknowledged. The caller holds
// Hub.mu.
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
