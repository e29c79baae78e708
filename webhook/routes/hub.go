// Package routes builds route tables from fork Deployments and pods, and streams them to the routers.
//
// Every replica serves the stream's address, but only the holder of the lease has tables: the others redirect routers
// to it. A Hub holds, for each baseline, the current table, which is immutable, and each router's last acknowledgement.
// An event rebuilds only the table of its baseline. A stream sends the difference between the table it sent last and
// the current one, so a slow reader only delays itself.
package routes

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/counts"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

var errNotServing = errors.New("this replica does not hold the lease")

// A Hub holds the tables of all baselines and the state of their routers.
type Hub struct {
	state state
	clock clock.PassiveClock

	// serving is closed once the tables may be read: this replica holds the lease, and the caches have caught up.
	serving chan struct{}
	// stopped is closed when the lease is lost: all streams end.
	stopped chan struct{}

	mu        sync.Mutex
	term      int64  // of all versions; set before serving is closed
	counter   uint64 // of the last version
	baselines map[Baseline]*baseline
	watchers  []func(Baseline)
	counted   func(configMap types.NamespacedName, now bool) // called when a count rose that belongs in this ConfigMap
	runs      map[string]map[string]counts.Run               // experiments that observe keys, by namespace and ConfigMap
	observed  map[string][]string                            // the keys of all experiments of a namespace, sorted
	trust     trust
	asks      map[string]*collection // by nonce
	nonce     uint64
	lag       lag
}

// A baseline is a Hub's state of one baseline. Hub.mu guards all of it but build.
type baseline struct {
	name Baseline
	// build is held from reading the state until the resulting table is published, so that tables are published in the
	// order of the states they were built from.
	build   sync.Mutex
	claims  *claims
	near    neighbours
	current *published // nil until first requested
	// serving holds, for every pod in the current table (by UID), the version since which all tables have contained it. A
	// route's pods all have one revision. So a router that routes by that version or a later one sends the key to this
	// pod's revision and to no older one.
	serving map[types.UID]route.Version
	// dialed holds the result of connecting to each pod in the current table, by UID: see View.Dialed.
	dialed  map[types.UID]string
	routers map[types.UID]*router
	reports map[string]*counts.Report // by router and its start: see routerID
	ended   []string                  // pods that are gone, whose routers reported all their counts before
}

// published is a table and its encoded frames, which are created when first needed and shared by all streams.
// Immutable.
type published struct {
	table           *route.Table
	previous        *route.Table // the base of delta; nil for a baseline's first table
	snapshot, delta func() ([]byte, error)
}

// A router is a Hub's state of the router of one baseline pod.
type router struct {
	pod    string
	uid    types.UID
	id     string        // routerID
	acked  route.Version // it routes by this version or a later one, connected or not
	stream *stream       // nil while it is not connected
	trusts string        // SHA-256 of the bundle it said it trusts
	lost   time.Time     // when its stream ended; zero while it is connected
	dials  bool          // it reports the results of connecting to pods
	// reached are the pods that it could connect to at its last attempts, by UID.
	reached map[types.UID]struct{}
	final   bool // it serves no more requests, and its report is complete
}

func newHub(s state, c clock.PassiveClock) *Hub {
	return &Hub{
		state: s, clock: c, serving: make(chan struct{}), stopped: make(chan struct{}),
		baselines: map[Baseline]*baseline{}, asks: map[string]*collection{},
		counted: func(types.NamespacedName, bool) {}, runs: map[string]map[string]counts.Run{}, observed: map[string][]string{},
	}
}

// serve begins a term: from now on there are tables.
func (h *Hub) serve(term int64) {
	h.mu.Lock()
	h.term = term
	h.mu.Unlock()
	close(h.serving)
}

// Serving returns a channel that is closed once this replica holds the lease, and its tables are built from a state at
// least as new as the lease.
func (h *Hub) Serving() <-chan struct{} { return h.serving }

// Watch registers f, to be called concurrently whenever the View of a baseline may have changed. f must return quickly.
func (h *Hub) Watch(f func(Baseline)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watchers = append(h.watchers, f)
}

func (h *Hub) changed(b Baseline) {
	h.mu.Lock()
	watchers, concerned := h.watchers, []Baseline{b}
	if known := h.baselines[b]; known != nil {
		concerned = slices.AppendSeq(concerned, maps.Keys(known.near))
	}
	h.mu.Unlock()
	for _, f := range watchers {
		for _, name := range concerned {
			f(name)
		}
	}
}

// A View is the state of a baseline's routers, and of some pods of its forks, at one moment.
type View struct {
	// Serving holds, for each pod that serves its key (by UID), the version that a router must have acknowledged, or a
	// later one, to send the key's requests to this pod's revision and to no older one.
	Serving map[types.UID]route.Version
	// Problems holds why a fork has no route of its own, by its sandbox.
	Problems map[string]health.Claim
	// Routers holds, by pod UID, every router that has connected since this replica took the lease and whose pod exists.
	Routers map[types.UID]Router
	// Dials reports whether some connected router tries to connect to the forks' pods. Dialed holds the result for each
	// given pod: empty if a router connected, otherwise the error. It lacks pods that no router has tried yet.
	Dials  bool
	Dialed map[types.UID]string
}

// A Router is the state of the router of one baseline pod.
type Router struct {
	Acked     route.Version
	Connected bool
	Lost      time.Time // when its stream ended; zero while it is connected
}

// View returns the state of a baseline's routers and of the given pods of its forks.
func (h *Hub) View(ctx context.Context, name Baseline, pods []*corev1.Pod) (View, error) {
	v := View{Serving: map[types.UID]route.Version{}, Problems: map[string]health.Claim{}, Routers: map[types.UID]Router{}, Dialed: map[types.UID]string{}}
	if err := h.ensure(ctx, name); err != nil {
		return v, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.baselines[name]
	if b == nil {
		return v, nil // dropped meanwhile: it has neither routes nor routers
	}
	for _, pod := range pods {
		if since, ok := b.serving[pod.UID]; ok {
			v.Serving[pod.UID] = since
		}
		if why, ok := b.dialed[pod.UID]; ok {
			v.Dialed[pod.UID] = why
		}
		name := pod.Labels[sandbox.LabelSandbox]
		if problem, ok := b.claims.problem(name); ok {
			v.Problems[name] = problem
		}
	}
	for uid, r := range b.routers {
		v.Routers[uid] = Router{Acked: r.acked, Connected: r.stream != nil, Lost: r.lost}
		v.Dials = v.Dials || r.dials && r.stream != nil
	}
	h.viewNeighbours(&v, b, pods)
	return v, nil
}

// TrustedBundles counts existing routers by the SHA-256 (hexadecimal) of the CA bundle they last said they trust.
func (h *Hub) TrustedBundles() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := map[string]int{}
	for _, b := range h.baselines {
		for _, r := range b.routers {
			n[r.trusts]++
		}
	}
	return n
}

// ensure builds the table of a baseline if it has none yet.
func (h *Hub) ensure(ctx context.Context, name Baseline) error {
	h.mu.Lock()
	b := h.baselines[name]
	built := b != nil && b.current != nil
	h.mu.Unlock()
	if built {
		return nil
	}
	return h.rebuild(ctx, name, all)
}

// rebuild builds the routes of one sandbox's fork from the state, or of all forks if the baseline has no table yet. If
// that changes the table, it publishes it to the baseline's routers.
func (h *Hub) rebuild(ctx context.Context, name Baseline, sandboxName string) error {
	for {
		h.mu.Lock()
		b := h.get(name)
		h.mu.Unlock()
		if ok, err := h.rebuildOnce(ctx, b, sandboxName); ok || err != nil {
			return err
		}
	}
}

// rebuildOnce returns false if the baseline was dropped while it was built.
func (h *Hub) rebuildOnce(ctx context.Context, b *baseline, sandboxName string) (ok bool, err error) {
	b.build.Lock()
	defer b.build.Unlock()
	if b.current == nil { // written only with both locks held
		sandboxName = all
	}
	near := b.near // written with both locks held
	if sandboxName == all {
		if near, err = h.state.Neighbours(ctx, b.name); err != nil {
			return false, err
		}
	}
	forks, err := h.claimedBy(ctx, b.name, near, sandboxName)
	if err != nil {
		return false, err
	}
	h.mu.Lock()
	if h.term == 0 {
		h.mu.Unlock()
		return false, errNotServing
	}
	if h.baselines[b.name] != b {
		h.mu.Unlock()
		return false, nil
	}
	b.near = near
	h.update(b, sandboxName, forks)
	h.trim(b)
	h.mu.Unlock()
	h.changed(b.name)
	return true, nil
}

// update replaces the claims of all forks, or of one sandbox's, and publishes a table if it changed. The caller holds
// Hub.mu.
func (h *Hub) update(b *baseline, sandboxName string, forks map[string]claimed) {
	var changed []string
	for _, id := range slices.Collect(maps.Keys(b.claims.bySandbox)) {
		if _, ok := forks[id]; !ok && isOf(id, sandboxName) {
			changed = append(changed, b.claims.set(id, nil)...)
		}
	}
	for id, c := range forks {
		changed = append(changed, b.claims.claim(id, c.fork, c.only)...)
	}
	slices.Sort(changed)
	changed = slices.Compact(changed)
	if b.current == nil {
		empty := &route.Table{}
		d := b.claims.delta(empty, changed)
		if d == nil {
			d = &route.Delta{}
		}
		d.Version, d.Observe = h.nextVersion(), h.observed[b.name.Namespace]
		b.publish(empty, d)
		h.lag.published(b)
		b.current.previous, b.current.delta = nil, nil
		return
	}
	if d := b.claims.delta(b.current.table, changed); d != nil {
		d.Version = h.nextVersion()
		b.publish(b.current.table, d)
		h.lag.published(b)
	}
}

// nextVersion returns a version newer than all before. The caller holds Hub.mu.
func (h *Hub) nextVersion() route.Version {
	h.counter++
	return route.Version{Term: h.term, Counter: h.counter}
}

// publish publishes the current table with d applied to it, and notifies the streams. The caller holds Hub.mu.
func (b *baseline) publish(from *route.Table, d *route.Delta) {
	t, ok := from.Apply(d)
	if !ok {
		panic("versions do not rise") // they come from one counter, under one lock
	}
	for _, key := range d.Remove {
		b.endRuns(key, from.Routes[key], route.Fork{})
	}
	for key, f := range d.Set {
		b.endRuns(key, from.Routes[key], f)
	}
	for _, f := range d.Set {
		for _, pod := range f.Pods {
			if _, ok := b.serving[types.UID(pod.UID)]; !ok {
				b.serving[types.UID(pod.UID)] = d.Version
			}
		}
	}
	b.current = &published{
		table: t, previous: from,
		snapshot: sync.OnceValues(func() ([]byte, error) { return encode(route.ToRouter{Snapshot: t}) }),
		delta:    sync.OnceValues(func() ([]byte, error) { return encode(route.ToRouter{Delta: d}) }),
	}
	for _, r := range b.routers {
		if r.stream != nil {
			r.stream.poke()
		}
	}
}

// endRuns removes the pods from serving that the key's old route has and its new one lacks.
func (b *baseline) endRuns(key string, old, now route.Fork) {
	for _, pod := range old.Pods {
		if !slices.ContainsFunc(now.Pods, func(p route.Pod) bool { return p.UID == pod.UID }) {
			delete(b.serving, types.UID(pod.UID))
			delete(b.dialed, types.UID(pod.UID))
			for _, r := range b.routers {
				delete(r.reached, types.UID(pod.UID))
			}
		}
	}
	if old.UID != now.UID {
		b.forgetKey(key)
	}
}

func encode(frame route.ToRouter) ([]byte, error) {
	var buf bytes.Buffer
	err := route.Write(&buf, frame)
	return buf.Bytes(), err
}

// get returns the baseline, and creates it if there is none. The caller holds Hub.mu.
func (h *Hub) get(name Baseline) *baseline {
	b := h.baselines[name]
	if b == nil {
		b = &baseline{
			name: name, claims: newClaims(h.clock.Now), serving: map[types.UID]route.Version{}, dialed: map[types.UID]string{},
			routers: map[types.UID]*router{}, reports: map[string]*counts.Report{},
		}
		h.baselines[name] = b
	}
	return b
}

// trim drops a baseline that has nothing left. The caller holds Hub.mu.
func (h *Hub) trim(b *baseline) {
	if len(b.routers) == 0 && len(b.reports) == 0 && b.current != nil && len(b.claims.bySandbox) == 0 {
		delete(h.baselines, b.name)
	}
}

// forget drops the router of a deleted pod. Its counts are kept until they are written.
func (h *Hub) forget(name Baseline, uid types.UID) {
	h.mu.Lock()
	b := h.baselines[name]
	if b == nil || b.routers[uid] == nil {
		h.mu.Unlock()
		return
	}
	if s := b.routers[uid].stream; s != nil {
		s.end()
	}
	h.lag.forgot(b.routers[uid])
	if r := b.routers[uid]; r.final {
		b.ended = append(b.ended, r.pod)
		b.ended = b.ended[max(0, len(b.ended)-maxEnded):]
	}
	delete(b.routers, uid)
	h.sweep(b)
	h.mu.Unlock()
	h.changed(name)
}
