package router

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// forkDialTimeout bounds connecting to a fork's pod: packets to the address of a deleted pod get no response, and the
// fork may have another pod.
const forkDialTimeout = 3 * time.Second

// routes is the current table, and the counts of its routes. Requests read it without a lock.
type routes struct {
	captures   []sandbox.Capture
	staleAfter time.Duration
	doubt      func(*forkRoute)      // called when a request reached none of the fork's pods
	doubtPod   func(uid string) bool // called when a request did not reach a pod. False: nothing will detect when it is reachable again

	force atomic.Pointer[inForce] // nil: there was no table yet
	fresh atomic.Pointer[time.Time]

	mu       sync.Mutex // serialises replace, guards counters and turns
	counters map[counted]*counter
	out      map[string]*atomic.Bool // by UID: pods that accept no connection, as far as known
	turns    uint64                  // keys whose observation started
	changed  atomic.Bool             // a counter has changed since counts were read
}

// inForce is a table prepared for lookup. It is immutable.
type inForce struct {
	table    *route.Table
	routes   map[string]*forkRoute
	observed map[string]*observation
	ids      map[string]struct{} // of all backends
}

// forkRoute is the destination of one key's requests.
type forkRoute struct {
	fork    route.Fork
	what    string // the fork, for people
	counter *counter
	turn    *atomic.Uint32
	// backends holds, for each capture, the fork's pods twice, so that any rotation of them is a slice of it.
	backends map[string][]engine.Backend
	out      []*atomic.Bool // of each of its pods
}

// counted identifies a counter: a fork, and its key.
type counted struct{ key, uid string }

// counter counts one key's requests.
type counter struct {
	fork, fellBack, refused, unfinished atomic.Uint64
}

// observation counts the requests of one key that go to the app, since the table names the key.
type observation struct {
	turn             uint64
	requests, failed atomic.Uint64
	last             atomic.Int64
}

func newRoutes(captures []sandbox.Capture, staleAfter time.Duration) *routes {
	return &routes{
		captures: captures, staleAfter: staleAfter, counters: make(map[counted]*counter), out: make(map[string]*atomic.Bool),
		doubt: func(*forkRoute) {}, doubtPod: func(string) bool { return false },
	}
}

// replace puts t in use: it routes every request whose head is read from now on. It returns the backends that t no
// longer has, whose idle connections can be closed.
func (r *routes) replace(t *route.Table, fresh time.Time) (gone map[string]struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := &inForce{table: t, routes: make(map[string]*forkRoute, len(t.Routes)), ids: make(map[string]struct{})}
	old := r.force.Load()
	out := make(map[string]*atomic.Bool)
	for key, fork := range t.Routes {
		of := counted{key, fork.UID}
		c := r.counters[of]
		if c == nil {
			c = new(counter)
			r.counters[of] = c
		}
		fr := &forkRoute{
			fork: fork, what: fmt.Sprintf("fork %q of sandbox %q", fork.Name, fork.Sandbox), counter: c, turn: new(atomic.Uint32),
			backends: make(map[string][]engine.Backend),
		}
		for _, pod := range fork.Pods {
			if out[pod.UID] = r.out[pod.UID]; out[pod.UID] == nil {
				out[pod.UID] = new(atomic.Bool)
			}
			fr.out = append(fr.out, out[pod.UID])
		}
		for _, capture := range r.captures {
			fr.backends[capture.Name] = r.podBackends(fork.Pods, fr.out, capture, next.ids)
		}
		next.routes[key] = fr
	}
	r.out = out
	// Counts are totals since the start. So those of forks that left stay, in case they return, unless they are zero.
	maps.DeleteFunc(r.counters, func(of counted, c *counter) bool {
		fr, routed := next.routes[of.key]
		return (!routed || fr.fork.UID != of.uid) && c.count() == route.Count{}
	})
	r.observe(next, old)
	r.force.Store(next)
	r.confirm(fresh)
	gone = make(map[string]struct{})
	if old != nil {
		for id := range old.ids {
			if _, ok := next.ids[id]; !ok {
				gone[id] = struct{}{}
			}
		}
	}
	return gone
}

// observe sets the observations of next, and continues those of old.
func (r *routes) observe(next, old *inForce) {
	if len(next.table.Observe) == 0 {
		return
	}
	next.observed = make(map[string]*observation, len(next.table.Observe))
	for _, key := range next.table.Observe {
		var o *observation
		if old != nil {
			o = old.observed[key]
		}
		if o == nil {
			r.turns++
			o = &observation{turn: r.turns}
		}
		next.observed[key] = o
	}
}

// podBackends returns the backends of pods at a captured port, twice, and records their IDs.
func (r *routes) podBackends(
	pods []route.Pod, out []*atomic.Bool, capture sandbox.Capture, ids map[string]struct{},
) []engine.Backend {
	backends := make([]engine.Backend, 0, 2*len(pods))
	for i, pod := range pods {
		port := capture.Number
		if p, ok := pod.Ports[capture.Name]; ok {
			port = p
		}
		addr := net.JoinHostPort(pod.IP, strconv.Itoa(int(port)))
		id := pod.UID + "@" + addr // addresses are reused, uids are not
		ids[id] = struct{}{}
		backends = append(backends, engine.Backend{
			ID: id, Addr: addr, Timeout: forkDialTimeout, Dialed: func(err error) { r.dialed(pod.UID, out[i], err) },
			Answer: []engine.Field{{Name: []byte(sandbox.HeaderServedBy), Value: []byte(pod.Name)}},
		})
	}
	return append(backends, backends...)
}

// dialed records the result of connecting to a pod. An unreachable one is avoided until it is reachable: see dials,
// which retries it and reports to the control plane.
func (r *routes) dialed(uid string, out *atomic.Bool, err error) {
	out.Store(err != nil)
	if err != nil && !r.doubtPod(uid) {
		out.Store(false)
	}
}

// reached records whether a pod accepts connections.
func (r *routes) reached(uid string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if out := r.out[uid]; out != nil {
		out.Store(!ok)
	}
}

// confirm records that the current table was right at that time.
func (r *routes) confirm(at time.Time) { r.fresh.Store(&at) }

// age is the time since the current table was known to be right; 0 if there is none.
func (r *routes) age() time.Duration {
	if at := r.fresh.Load(); at != nil {
		return time.Since(*at)
	}
	return 0
}

func (r *routes) stale() bool { return r.age() > r.staleAfter }

// have is the version of the current table; false if there is none.
func (r *routes) have() (route.Version, bool) {
	if f := r.force.Load(); f != nil {
		return f.table.Version, true
	}
	return route.Version{}, false
}

// pods returns the fork's pods at a captured port, in the order in which to try them for the next request.
func (f *forkRoute) pods(capture string) []engine.Backend {
	all := f.backends[capture]
	n := uint32(len(all) / 2) //nolint:gosec // a fork's pods are few
	if n == 0 {
		return nil
	}
	from := f.turn.Add(1) % n
	pods := all[from : from+n : from+n]
	if !slices.ContainsFunc(f.out, (*atomic.Bool).Load) {
		return pods
	}
	in, out := make([]engine.Backend, 0, n+1), []engine.Backend(nil)
	for i := range pods {
		if f.out[(int(from)+i)%int(n)].Load() {
			out = append(out, pods[i])
		} else {
			in = append(in, pods[i])
		}
	}
	if len(in) == 0 && len(out) > 0 {
		return pods
	}
	return append(in, out...) // which are tried last
}

// counts returns the nonzero totals of the keys in the current table.
func (r *routes) counts() *route.Counts {
	r.changed.Store(false)
	all := &route.Counts{Keys: make(map[string]route.Count)}
	if f := r.force.Load(); f != nil {
		for key, fr := range f.routes {
			if c := fr.counter.count(); c != (route.Count{}) {
				c.Of = fr.fork.UID
				all.Keys[key] = c
			}
		}
		for key, o := range f.observed {
			failed := o.failed.Load() // first: so that no more failed than started
			if n := o.requests.Load(); n > 0 {
				if all.Observed == nil {
					all.Observed = make(map[string]route.Observation)
				}
				all.Observed[key] = route.Observation{Requests: n, Failed: failed, Last: o.last.Load(), Turn: o.turn}
			}
		}
	}
	return all
}

func (c *counter) count() route.Count {
	return route.Count{
		Fork: c.fork.Load(), FellBack: c.fellBack.Load(), Refused: c.refused.Load(), Unfinished: c.unfinished.Load(),
	}
}
