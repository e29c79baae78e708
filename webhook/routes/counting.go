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

// collectTimeout bounds the wait for the routers' reports when counts are asked for at once.
const collectTimeout = time.Second

// onCount has f called whenever a count changed that belongs into a ConfigMap.
func (h *Hub) onCount(f func(configMap types.NamespacedName, now bool)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counted = f
}

// count takes a router's totals in. Those of forks that do not have the key any more, and of keys that nobody observes,
// are of no interest.
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

// report returns the report of a router, made where there is none. The caller holds Hub.mu.
func (b *baseline) report(r *router) *counts.Report {
	rep := b.reports[r.id]
	if rep == nil {
		rep = counts.NewReport(r.uid)
		b.reports[r.id] = rep
	}
	return rep
}

// forgetKey drops what was counted for a key that left the table or goes to another fork. The caller holds Hub.mu.
func (b *baseline) forgetKey(key string) {
	for id, rep := range b.reports {
		delete(rep.Forks, key)
		if len(rep.Forks)+len(rep.Observed) == 0 {
			delete(b.reports, id)
		}
	}
}

// sweep drops the reports of routers that are gone and of which nothing is left to write, and the baseline where
// nothing is left of it. The caller holds Hub.mu.
func (h *Hub) sweep(b *baseline) {
	for id, rep := range b.reports {
		if r := b.routers[rep.UID]; !rep.Unwritten() && (r == nil || r.id != id) {
			delete(b.reports, id)
		}
	}
	h.trim(b)
}

// A collection waits for the routers' answers to one Report.
type collection struct {
	waiting  map[types.UID]bool
	answered map[types.UID]bool
	done     chan struct{}
}

// collect asks all connected routers of the baselines for their counts and waits for the answers, at most
// collectTimeout. It returns the pods whose routers answered.
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

// routerIDs returns the routerID of every connected or once connected router of the baselines by its pod's UID.
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

// reports returns what the routers of a baseline counted for a sandbox's fork, by routerID, and the fork's UID, ""
// where it has no route. What is written of routers that are gone is left out: it has no mark any more that would tell
// it from what is not.
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

// written notes that the counts are in the sandbox's ConfigMap.
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
