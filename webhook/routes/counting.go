package routes

import (
	"context"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/counts"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// collectTimeout bounds the wait for routers' reports when counts are requested immediately.
const collectTimeout = time.Second

// onCount registers f, to be called whenever a count changed that belongs in a ConfigMap.
func (h *Hub) onCount(f func(configMap types.NamespacedName, now bool)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counted = f
}

// count stores a router's totals. It ignores those of forks that no longer have the key, and of keys that nobody
// observes.
func (h *Hub) count(s *stream, c *route.Counts) {
	var changed []string
	h.mu.Lock()
	b, r := s.baseline, s.router
	for key, total := range c.Keys {
		f, ok := b.current.table.Routes[key]
		if !ok || f.UID != total.Of {
			continue
		}
		if counts.Put(b.report(r).Forks, key, total) {
			changed = append(changed, sandbox.ConfigMapName(f.Sandbox))
		}
	}
	changed = append(changed, h.countObserved(b, r, c.Observed)...)
	dialed := b.takeDialed(r, c.Dialed)
	if c.Final && r.stream == s {
		r.final = true
		changed = append(changed, b.unwritten(r)...)
		h.settle(b)
	}
	if ask := h.asks[c.Nonce]; ask != nil && ask.waiting[r.uid] {
		delete(ask.waiting, r.uid)
		ask.answered[r.uid] = true
		if len(ask.waiting) == 0 {
			close(ask.done)
		}
	}
	counted := h.counted
	h.mu.Unlock()
	if dialed {
		h.changed(b.name)
	}
	for _, name := range changed {
		counted(types.NamespacedName{Namespace: b.name.Namespace, Name: name}, c.Final)
	}
}

// report returns the report of a router, and creates it if there is none. The caller holds Hub.mu.
func (b *baseline) report(r *router) *counts.Report {
	rep := b.reports[r.id]
	if rep == nil {
		rep = counts.NewReport(r.uid)
		b.reports[r.id] = rep
	}
	return rep
}

// forgetKey drops the counts of a key that left the table or now routes to another fork. The caller holds Hub.mu.
func (b *baseline) forgetKey(key string) {
	for id, rep := range b.reports {
		delete(rep.Forks, key)
		if len(rep.Forks)+len(rep.Observed) == 0 {
			delete(b.reports, id)
		}
	}
}

// sweep drops reports of routers that are gone once everything in them is written, and then the baseline if it is
// empty. The caller holds Hub.mu.
func (h *Hub) sweep(b *baseline) {
	for id, rep := range b.reports {
		if r := b.routers[rep.UID]; !rep.Unwritten() && (r == nil || r.id != id) {
			delete(b.reports, id)
		}
	}
	h.trim(b)
}

// A collection waits for the routers' responses to one Report.
type collection struct {
	waiting  map[types.UID]bool
	answered map[types.UID]bool
	done     chan struct{}
}

// collect requests the counts of all connected routers of the baselines, and waits at most collectTimeout. It returns
// the pods whose routers responded.
func (h *Hub) collect(ctx context.Context, names []Baseline) map[types.UID]bool {
	ask := &collection{waiting: map[types.UID]bool{}, answered: map[types.UID]bool{}, done: make(chan struct{})}
	h.mu.Lock()
	h.nonce++
	nonce := strconv.FormatUint(h.nonce, 10)
	for _, name := range names {
		if b := h.baselines[name]; b != nil {
			for uid, r := range b.routers {
				if r.stream != nil {
					ask.waiting[uid] = true
					r.stream.asks = append(r.stream.asks, nonce)
					r.stream.poke()
				}
			}
		}
	}
	waiting := len(ask.waiting) > 0
	if waiting {
		h.asks[nonce] = ask
	}
	h.mu.Unlock()
	if waiting {
		ctx, cancel := context.WithTimeout(ctx, collectTimeout)
		defer cancel()
		select {
		case <-ask.done:
		case <-ctx.Done():
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.asks, nonce)
	return ask.answered
}

// routerIDs returns the routerID of each router of the baselines that is or was connected, by its pod's UID.
func (h *Hub) routerIDs(names ...Baseline) map[types.UID]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids := map[types.UID]string{}
	for _, name := range names {
		if b := h.baselines[name]; b != nil {
			for uid, r := range b.routers {
				ids[uid] = r.id
			}
		}
	}
	return ids
}

// reports returns what the routers of a baseline counted for a sandbox's fork, by routerID. It also returns the fork's
// UID, empty if it has no route. It omits written counts of routers that are gone: their marks were dropped, so these
// counts would be added twice.
func (h *Hub) reports(
	name Baseline, sandboxName string, gone func(routerID string) bool,
) (fork string, counts map[string]route.Count) {
	counts = map[string]route.Count{}
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.baselines[name]
	if b == nil || b.current == nil {
		return "", counts
	}
	c := b.claims.bySandbox[sandboxName]
	if c == nil || b.current.table.Routes[c.key].UID != c.route.UID {
		return "", counts
	}
	for _, n := range h.counting(b) {
		if n.current.table.Routes[c.key].UID != c.route.UID {
			continue // a neighbour's own fork has the key
		}
		for id, rep := range n.reports {
			if t, ok := rep.Forks[c.key]; ok && !(t.Written && gone(id)) {
				counts[id] = t.Total
			}
		}
	}
	return c.route.UID, counts
}

// written records that the counts are in the sandbox's ConfigMap.
func (h *Hub) written(name Baseline, sandboxName string, totals map[string]route.Count) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.baselines[name]
	if b == nil {
		return
	}
	for _, n := range h.counting(b) {
		for id, rep := range n.reports {
			for key := range rep.Forks {
				if n.current.table.Routes[key].Sandbox == sandboxName {
					counts.MarkWritten(rep.Forks, key, totals[id])
				}
			}
		}
		h.settle(n)
		h.sweep(n)
	}
}
