package routes

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// How requests are counted.
//
// A router reports, per fork, totals since it started. A sandbox's ConfigMap holds the sum over all routers there ever were
// (data.counts) and, beside it, how much of every living router's totals is in that sum already: its mark (data.counted).
// Both are written at once, on the version of the ConfigMap they were made from. So what is added is always total minus
// mark, and it does not matter who writes, how often, or what the lease holder knew before: a new one starts with the marks
// it finds. A fork is its Deployment's UID, in the table, in the report and in the mark: one that takes the key or the name of
// another begins at zero.
//
// No request is counted twice, and none is counted for another fork. A router that ends gracefully hands over what it has counted, and
// waits until that is written. Of one that does not, what it counted after its last report is lost: it reports every few seconds, and at
// once when asked.

const (
	// countsInterval is how long a changed count may wait to be written, so also how often a ConfigMap is at most.
	countsInterval = 10 * time.Second
	// collectTimeout bounds the wait for the routers' reports when counts are asked for at once.
	collectTimeout = time.Second
	// maxMissing bounds how many routers sandbox.AnnotationFlushMissing names.
	maxMissing = 5
)

// What is observed for experiments is counted the same way, and written to theirs: see observe.go.

// A report is what a router counted in one life of its process.
type report struct {
	uid  types.UID
	keys map[string]tally[route.Count]                  // of forks
	runs map[string]map[string]tally[route.Observation] // by ConfigMap of the experiment and key
}

type tally[T comparable] struct {
	total   T
	written bool // the total is in the ConfigMap
}

// put takes a total in, and says whether it is a new one.
func put[T comparable](tallies map[string]tally[T], key string, total T) bool {
	old, ok := tallies[key]
	if ok && old.total == total {
		return false
	}
	tallies[key] = tally[T]{total: total}
	return true
}

// wrote notes that a total is in the ConfigMap.
func wrote[T comparable](tallies map[string]tally[T], key string, total T) {
	if t, ok := tallies[key]; ok && t.total == total {
		t.written = true
		tallies[key] = t
	}
}

// unwritten says whether anything of the report is still to be written.
func (r *report) unwritten() bool {
	for _, t := range r.keys {
		if !t.written {
			return true
		}
	}
	for _, keys := range r.runs {
		for _, t := range keys {
			if !t.written {
				return true
			}
		}
	}
	return false
}

// marks hold, by workload, how much of each router's total is in the sum.
type marks map[string]mark

type mark struct {
	Of      string                 `json:"of"`      // UID of the fork whose requests these are
	Routers map[string]route.Count `json:"routers"` // by routerID
}

// routerID names one life of one router, in 16 bytes: every sandbox's ConfigMap has one for each router that saw it.
func routerID(uid types.UID, start string) string { return short(string(uid)) + short(start) }

func short(s string) string {
	sum := sha256.Sum256([]byte(s))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:5]))
}

// fold adds to totals what the reports of one workload's routers on the fork have beyond their marks, and moves the marks.
// It then drops the marks of routers that are gone, and says whether anything changed.
func fold(totals route.Totals, m marks, workload, fork string, reports map[string]route.Count, gone func(routerID string) bool) bool {
	marked, changed := m[workload], false
	if marked.Of != fork || marked.Routers == nil {
		marked = mark{fork, map[string]route.Count{}}
	}
	for id, total := range reports {
		total.Of = "" // said once for all
		had := marked.Routers[id]
		if total == had {
			continue
		}
		more, ok := total.Since(had)
		if !ok {
			continue // not a total of this router's life
		}
		totals[workload] = totals[workload].Add(more)
		marked.Routers[id] = total
		changed = true
	}
	for id := range marked.Routers {
		if gone(id) {
			delete(marked.Routers, id)
			changed = true
		}
	}
	if changed {
		m[workload] = marked
	}
	return changed
}

// A collection waits for the routers' answers to one Report.
type collection struct {
	waiting  map[types.UID]bool
	answered map[types.UID]bool
	done     chan struct{}
}

// onCount has f called whenever a count changed that belongs into a ConfigMap.
func (h *Hub) onCount(f func(configMap types.NamespacedName, now bool)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.counted = f
}

// count takes a router's totals in. Those of forks that do not have the key any more, and of keys that nobody observes, are of no
// interest.
func (h *Hub) count(s *stream, c *route.Counts) {
	var changed []string
	h.mu.Lock()
	b, r := s.baseline, s.router
	for key, total := range c.Keys {
		f, ok := b.current.table.Routes[key]
		if !ok || f.UID != total.Of {
			continue
		}
		if put(b.report(r).keys, key, total) {
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
func (b *baseline) report(r *router) *report {
	rep := b.reports[r.id]
	if rep == nil {
		rep = &report{uid: r.uid, keys: map[string]tally[route.Count]{}, runs: map[string]map[string]tally[route.Observation]{}}
		b.reports[r.id] = rep
	}
	return rep
}

// forgetKey drops what was counted for a key that left the table or goes to another fork. The caller holds Hub.mu.
func (b *baseline) forgetKey(key string) {
	for id, rep := range b.reports {
		delete(rep.keys, key)
		if len(rep.keys)+len(rep.runs) == 0 {
			delete(b.reports, id)
		}
	}
}

// sweep drops the reports of routers that are gone and of which nothing is left to write, and the baseline where nothing is left
// of it. The caller holds Hub.mu.
func (h *Hub) sweep(b *baseline) {
	for id, rep := range b.reports {
		if r := b.routers[rep.uid]; !rep.unwritten() && (r == nil || r.id != id) {
			delete(b.reports, id)
		}
	}
	h.trim(b)
}

// collect asks all connected routers of the baselines for their counts and waits for the answers, at most collectTimeout. It
// returns the pods whose routers answered.
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

// reports returns what the routers of a baseline counted for a sandbox's fork, by routerID, and the fork's UID, "" where it has no
// route. What is written of routers that are gone is left out: it has no mark any more that would tell it from what is not.
func (h *Hub) reports(name Baseline, sandboxName string, gone func(routerID string) bool) (fork string, counts map[string]route.Count) {
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
			if t, ok := rep.keys[c.key]; ok && !(t.written && gone(id)) {
				counts[id] = t.total
			}
		}
	}
	return c.route.UID, counts
}

// written notes that the counts are in the sandbox's ConfigMap.
func (h *Hub) written(name Baseline, sandboxName string, counts map[string]route.Count) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.baselines[name]
	if b == nil {
		return
	}
	for _, n := range h.counting(b) {
		for id, rep := range n.reports {
			for key := range rep.keys {
				if n.current.table.Routes[key].Sandbox == sandboxName {
					wrote(rep.keys, key, counts[id])
				}
			}
		}
		h.settle(n)
		h.sweep(n)
	}
}
