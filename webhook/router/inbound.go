package router

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// inbound decides for one connection to a captured port: requests with a key of the table go to its fork, all others to
// the app.
type inbound struct {
	routes  *routes
	metrics *metrics
	capture string
	finder  route.Finder
	own     []engine.Field // served-by this pod
	app     [1]engine.Backend
	keyed   [1]engine.Backend // the app, for requests that carry a key
}

// newInbound decides for a connection that arrived at local on a captured port. It dials the app at the address that
// the client dialed, which may be the pod's or loopback: an app may listen on either only, and a port-forward uses
// loopback.
func newInbound(r *routes, m *metrics, c *Config, capture sandbox.Capture, local net.Addr) *inbound {
	host := "127.0.0.1"
	if a, ok := local.(*net.TCPAddr); ok {
		host = a.AddrPort().Addr().Unmap().String()
	}
	addr := net.JoinHostPort(host, strconv.Itoa(int(capture.Number)))
	app := engine.Backend{ID: "app", Addr: addr, Anchor: true}
	i := &inbound{
		routes: r, metrics: m, capture: capture.Name, finder: route.Finder{Carriers: c.Carriers},
		own: []engine.Field{{Name: []byte(sandbox.HeaderServedBy), Value: []byte(c.PodName)}},
	}
	i.app[0], i.keyed[0] = app, app
	i.keyed[0].Answer = i.own
	return i
}

// Default is the app.
func (i *inbound) Default() (engine.Backend, bool) { return i.app[0], true }

// Decide looks up the request's key in the current table.
func (i *inbound) Decide(h *engine.Head) engine.Decision {
	i.finder.Reset()
	for _, f := range h.Fields {
		i.finder.Header(f.Name, f.Value)
	}
	key, ok := i.finder.Key()
	seen := i.metrics.seen(h.HTTP2)
	switch {
	case !ok:
		return i.refuse(seen.refused(nil), 400, "request carries two different routing keys in "+i.finder.Carriers.Header)
	case len(key) == 0:
		return engine.Decision{Backends: i.app[:], Observer: seen.app()}
	}
	force := i.routes.force.Load()
	if force == nil {
		return i.refuse(seen.refused(nil), 503, "this pod's router has not received its routes yet, so it can't know where "+
			"requests with a routing key go")
	}
	fr := force.routes[string(key)]
	if fr == nil || len(fr.fork.Only) > 0 && !slices.Contains(fr.fork.Only, i.capture) {
		return i.passOn(h, key, engine.Decision{Backends: i.keyed[:], Observer: seen.passing(force.observed[string(key)])})
	}
	if i.routes.stale() {
		return i.refuse(seen.refused(fr), 503, fmt.Sprintf("this pod's router has not heard from its control plane for %s, so the "+
			"addresses of sandbox %q may be somebody else's by now", i.routes.age().Round(time.Second), fr.fork.Sandbox))
	}
	return i.passOn(h, key, i.toFork(fr, seen))
}

// passOn makes a request carry its key in all carriers, because its receiver may forward only one of them. It also
// keeps shared caches from storing the response.
func (i *inbound) passOn(h *engine.Head, key []byte, d engine.Decision) engine.Decision {
	if d.Refusal != nil {
		return d
	}
	carriers := i.finder.Carriers
	d.Edits = carry(carriers, key, true, h)
	if !bytes.HasPrefix(h.Get("content-type"), []byte("application/grpc")) { // which no cache stores
		from := i.finder.Carrier()
		d.Rewrite = func(r *engine.Reply) (e engine.Edits) {
			if r.Status != 101 {
				carriers.Private(from, r.All(), &e)
			}
			return e
		}
	}
	d.Failure.Fields = i.uncached()
	return d
}

// uncached are the fields of the router's own responses to keyed requests.
func (i *inbound) uncached() []engine.Field {
	e := engine.Edits{Set: slices.Clone(i.own)}
	i.finder.Uncached(&e)
	return e.Set
}

func (i *inbound) toFork(fr *forkRoute, seen seen) engine.Decision {
	pods := fr.pods(i.capture)
	switch {
	case len(pods) == 0 && fr.fork.FallBack:
		return engine.Decision{Backends: i.keyed[:], Observer: seen.fork(fr)}
	case len(pods) == 0:
		reason := fr.what + " is not ready"
		if fr.fork.Reason != "" {
			reason += ": " + fr.fork.Reason
		}
		return i.refuse(seen.refused(fr), 503, reason)
	case fr.fork.FallBack:
		pods = append(pods, i.keyed[0])
	}
	return engine.Decision{
		Backends: pods, Observer: seen.fork(fr),
		Failure: engine.Refusal{Status: 503, Reason: fr.what + " failed: "},
	}
}

func (i *inbound) refuse(o engine.Observer, status int, reason string) engine.Decision {
	return engine.Decision{Observer: o, Refusal: &engine.Refusal{Status: status, Reason: reason, Fields: i.uncached()}}
}
