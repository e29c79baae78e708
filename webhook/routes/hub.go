// Package routes turns fork Deployments and pods into route tables and streams them to the routers.
//
// Every replica serves the stream's address, but only the holder of the lease has tables: the others send routers to it. A
// Hub holds, per baseline, the one current table, which is immutable, and what each router last acknowledged. Events
// rebuild the table of the baseline they concern and of no other; streams send what changed between the table they sent
// last and the current one, so a slow reader costs nothing but its own freshness.
package routes

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

var errNotServing = errors.New("this replica does not hold the lease")

// A Hub holds the tables of all baselines and the state of their routers.
type Hub struct {
	state state

	// serving is closed once the tables may be read: the lease is held, and the caches are as new as it.
	serving chan struct{}
	// stopped is closed when the lease is lost: all streams end.
	stopped chan struct{}

	mu        sync.Mutex
	term      int64  // of all versions; set before serving is closed
	counter   uint64 // of the last version
	baselines map[Baseline]*baseline
	watchers  []func(Baseline)
	counted   func(namespace, sandbox string) // called when a count of the sandbox rose
	trust     trust
	asks      map[string]*collection // by nonce
	nonce     uint64
}

// A baseline is what a Hub knows of one. All but build is guarded by Hub.mu.
type baseline struct {
	name Baseline
	// build is held while a table is read from the state and published, so that tables appear in the order of the states they
	// were made from.
	build    sync.Mutex
	current  *published // nil until first asked for
	problems map[string]Problem
	routers  map[types.UID]*router
	reports  map[string]*report // by router and its start: see routerID
}

// published is a table with all that is derived from it. Immutable.
type published struct {
	table *route.Table
	// serving holds, for every pod in the table (by UID), the first version of the unbroken run of versions up to this one that
	// have it. A route's pods are all of one revision, so whoever routes by that version or a later one up to this sends
	// the key to this pod's revision and to no older one.
	serving map[string]route.Version
	// entered holds the same for every key: since when it has been its sandbox's.
	entered map[string]route.Version

	// snapshot and delta are the frames that carry the table, encoded when first needed and once for all streams; delta
	// builds on previous.
	previous        *route.Table
	snapshot, delta func() ([]byte, error)
}

// A router is what a Hub knows of the router of one baseline pod, by the pod's UID.
type router struct {
	pod    string
	uid    types.UID
	id     string        // routerID
	acked  route.Version // it routes by this version or a later one, connected or not
	stream *stream       // nil while it is not connected
	trusts string        // SHA-256 of the bundle it said it trusts
}

func newHub(s state) *Hub {
	return &Hub{
		state: s, serving: make(chan struct{}), stopped: make(chan struct{}),
		baselines: map[Baseline]*baseline{}, asks: map[string]*collection{},
		counted: func(string, string) {},
	}
}

// serve begins a term: from now on there are tables.
func (h *Hub) serve(term int64) {
	h.mu.Lock()
	h.term = term
	h.mu.Unlock()
	close(h.serving)
}

// Serving returns a channel that is closed once this replica holds the lease and its tables are built from a state at least
// as new as the lease.
func (h *Hub) Serving() <-chan struct{} { return h.serving }

// Watch has f called, from many goroutines, whenever View of a baseline may have changed. f must be quick.
func (h *Hub) Watch(f func(Baseline)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watchers = append(h.watchers, f)
}

func (h *Hub) changed(b Baseline) {
	h.mu.Lock()
	watchers := h.watchers
	h.mu.Unlock()
	for _, f := range watchers {
		f(b)
	}
}

// A View is the state of a baseline's routes and routers at one moment. It must not be changed.
type View struct {
	// Serving holds, for each pod that serves its key (by UID), the version a router must have acknowledged (or a later one) to
	// send the key's requests to this pod's revision, and to no older one.
	Serving map[string]route.Version
	// Problems holds why a fork has no route, by its sandbox.
	Problems map[string]Problem
	// Routers holds every router that was connected since this replica took the lease and whose pod lives, by the pod's UID.
	Routers map[types.UID]Router
}

// A Router is the state of the router of one baseline pod.
type Router struct {
	Acked     route.Version
	Connected bool
}

// View returns the state of a baseline.
func (h *Hub) View(ctx context.Context, name Baseline) (View, error) {
	if err := h.ensure(ctx, name); err != nil {
		return View{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.baselines[name]
	if b == nil || b.current == nil {
		return View{}, nil // dropped meanwhile: it has neither routes nor routers
	}
	v := View{Serving: b.current.serving, Problems: b.problems, Routers: make(map[types.UID]Router, len(b.routers))}
	for uid, r := range b.routers {
		v.Routers[uid] = Router{Acked: r.acked, Connected: r.stream != nil}
	}
	return v, nil
}

// TrustedBundles counts the living routers by the SHA-256 (hexadecimal) of the CA bundle they last said they trust.
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

// ensure builds the table of a baseline if nothing asked for it before.
func (h *Hub) ensure(ctx context.Context, name Baseline) error {
	h.mu.Lock()
	b := h.baselines[name]
	built := b != nil && b.current != nil
	h.mu.Unlock()
	if built {
		return nil
	}
	_, err := h.rebuild(ctx, name)
	return err
}

// rebuild makes the baseline's table from the state and, where that changes it, publishes it to the baseline's routers. Its
// cost is that of the baseline's own forks.
func (h *Hub) rebuild(ctx context.Context, name Baseline) (*published, error) {
	for {
		h.mu.Lock()
		b := h.get(name)
		h.mu.Unlock()
		if p, ok, err := h.rebuildOnce(ctx, b); ok || err != nil {
			return p, err
		}
	}
}

// rebuildOnce is not ok when the baseline was dropped while it was built.
func (h *Hub) rebuildOnce(ctx context.Context, b *baseline) (p *published, ok bool, err error) {
	b.build.Lock()
	defer b.build.Unlock()
	forks, err := h.state.Forks(ctx, b.name)
	if err != nil {
		return nil, false, err
	}
	routes, problems := Build(forks)

	h.mu.Lock()
	if h.term == 0 {
		h.mu.Unlock()
		return nil, false, errNotServing
	}
	if h.baselines[b.name] != b {
		h.mu.Unlock()
		return nil, false, nil
	}
	fresh := !maps.Equal(b.problems, problems)
	b.problems = problems
	if b.current == nil || !maps.EqualFunc(b.current.table.Routes, routes, equal) {
		h.counter++
		b.publish(&route.Table{Version: route.Version{Term: h.term, Counter: h.counter}, Routes: routes})
		fresh = true
	}
	p = b.current
	h.trim(b)
	h.mu.Unlock()
	if fresh {
		h.changed(b.name)
	}
	return p, true, nil
}

// publish makes t the current table and wakes the streams. The caller holds Hub.mu.
func (b *baseline) publish(t *route.Table) {
	p := &published{table: t, serving: map[string]route.Version{}, entered: make(map[string]route.Version, len(t.Routes))}
	old := b.current
	for key, f := range t.Routes {
		p.entered[key] = t.Version
		if old != nil {
			if was, ok := old.table.Routes[key]; ok && was.Sandbox == f.Sandbox && was.Name == f.Name {
				p.entered[key] = old.entered[key]
			}
		}
		for _, pod := range f.Pods {
			p.serving[pod.UID] = t.Version
			if old != nil {
				if since, ok := old.serving[pod.UID]; ok {
					p.serving[pod.UID] = since
				}
			}
		}
	}
	p.snapshot = sync.OnceValues(func() ([]byte, error) { return encode(route.ToRouter{Snapshot: t}) })
	if old != nil {
		p.previous = old.table
		p.delta = sync.OnceValues(func() ([]byte, error) { return encode(route.ToRouter{Delta: Diff(p.previous, t)}) })
	}
	b.current = p
	b.forgetKeys()
	for _, r := range b.routers {
		if r.stream != nil {
			r.stream.poke()
		}
	}
}

func encode(frame route.ToRouter) ([]byte, error) {
	var buf bytes.Buffer
	err := route.Write(&buf, frame)
	return buf.Bytes(), err
}

// get returns the baseline, made where there is none. The caller holds Hub.mu.
func (h *Hub) get(name Baseline) *baseline {
	b := h.baselines[name]
	if b == nil {
		b = &baseline{name: name, routers: map[types.UID]*router{}, reports: map[string]*report{}}
		h.baselines[name] = b
	}
	return b
}

// trim drops a baseline that nothing is left of. The caller holds Hub.mu.
func (h *Hub) trim(b *baseline) {
	if len(b.routers) == 0 && len(b.reports) == 0 && b.current != nil && len(b.current.table.Routes) == 0 && len(b.problems) == 0 {
		delete(h.baselines, b.name)
	}
}

// forget drops the router of a pod that is gone. What it counted is kept until it is written.
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
	delete(b.routers, uid)
	h.trim(b)
	h.mu.Unlock()
	h.changed(name)
}
