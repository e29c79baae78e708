package router

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// outgoingDialTimeout is how long the stamping proxy tries to reach a host.
const outgoingDialTimeout = 30 * time.Second

var errLoop = errors.New("that is this proxy itself")

// outgoing decides for a connection to the stamping proxy: an HTTP forward proxy (RFC 9110, section 7.6) that an app in
// a fork or check finds by HTTP_PROXY. What goes out by it carries the sandbox's key, unless it carries one already.
type outgoing struct {
	metrics *metrics
	self    netip.AddrPort
	stamp   stamp
}

// Default is nowhere: a client of the proxy must say where it wants to go.
func (*outgoing) Default() (engine.Backend, bool) { return engine.Backend{}, false }

// Decide sends a request to the host that its target names.
func (o *outgoing) Decide(h *engine.Head) engine.Decision {
	seen := o.metrics.seen(h.HTTP2)
	refuse := func(status int, reason string) engine.Decision {
		return engine.Decision{Observer: seen.refused(nil), Refusal: &engine.Refusal{Status: status, Reason: reason}}
	}
	connect := string(h.Method) == "CONNECT"
	authority, path := h.Target, []byte(nil)
	port := ""
	if !connect {
		rest, ok := cutPrefixFold(h.Target, "http://")
		if !ok { // what some clients ask a proxy for a WebSocket by
			rest, ok = cutPrefixFold(h.Target, "ws://")
		}
		if h.HTTP2 || !ok {
			return refuse(400, "this is a proxy: requests to it name their target by a whole http:// or ws:// URL, or use CONNECT")
		}
		authority, path = rest, []byte("/")
		if i := bytes.IndexAny(rest, "/?"); i >= 0 {
			authority, path = rest[:i], rest[i:]
			if path[0] == '?' {
				path = append([]byte("/"), path...)
			}
		} else if string(h.Method) == "OPTIONS" {
			path = []byte("*") // RFC 9112, section 3.2.4
		}
		port = "80"
	}
	addr, err := hostPort(string(authority), port)
	if err != nil {
		return refuse(400, "malformed target: "+err.Error())
	}
	if o.loops(addr) {
		return refuse(403, errLoop.Error())
	}
	b := engine.Backend{ID: addr, Addr: addr, Dial: o.dial(addr), Timeout: outgoingDialTimeout}
	d := engine.Decision{
		Backends: []engine.Backend{b}, Observer: seen.outgoing(),
		Failure: engine.Refusal{Status: 502, Reason: addr + ": "},
	}
	if connect {
		d.Tunnel = &tunnelled{metrics: o.metrics, stamp: o.stamp, backend: b}
		return d
	}
	d.Edits = o.stamp.edits(h)
	d.Edits.Target = slices.Clone(path)
	d.Edits.Remove = append(d.Edits.Remove, "proxy-connection", "proxy-authorization")
	if !bytes.EqualFold(h.Authority, authority) { // RFC 9112, section 3.2.2: the target's counts
		d.Edits.Set = append(d.Edits.Set, engine.Field{Name: []byte("host"), Value: slices.Clone(authority)})
	}
	return d
}

// loops says whether addr is plainly the proxy's own. What only its address shows, dial finds out.
func (o *outgoing) loops(addr string) bool {
	host, port, _ := net.SplitHostPort(addr)
	return port == strconv.Itoa(int(o.self.Port())) && (host == "localhost" || host == o.self.Addr().Unmap().String())
}

// dial connects to a host, unless that is the proxy itself.
func (o *outgoing) dial(addr string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
			if to := a.AddrPort(); to.Port() == o.self.Port() && (to.Addr().Unmap() == o.self.Addr().Unmap()) {
				_ = conn.Close()
				return nil, errLoop
			}
		}
		return conn, nil
	}
}

// tunnelled decides for what comes through a CONNECT: HTTP without TLS is stamped too, and TLS passes untouched.
type tunnelled struct {
	metrics *metrics
	stamp   stamp
	backend engine.Backend
}

// Default is where the tunnel leads.
func (t *tunnelled) Default() (engine.Backend, bool) {
	b := t.backend
	b.Anchor = true
	return b, true
}

// Decide sends every request there.
func (t *tunnelled) Decide(h *engine.Head) engine.Decision {
	b, _ := t.Default()
	seen := t.metrics.seen(h.HTTP2)
	return engine.Decision{Backends: []engine.Backend{b}, Edits: t.stamp.edits(h), Observer: seen.outgoing()}
}

// stamp puts a sandbox's key on requests.
type stamp struct {
	route.Carriers
	key     string
	metrics *metrics
}

// edits returns what makes a request carry the key by every carrier; where it carries another already, by any, that
// one.
func (s stamp) edits(h *engine.Head) engine.Edits {
	finder := route.Finder{Carriers: s.Carriers}
	for _, f := range h.Fields {
		finder.Header(f.Name, f.Value)
	}
	key, ok := finder.Key()
	if !ok || len(key) > 0 && string(key) != s.key {
		s.metrics.otherKeys.Add(1)
	}
	if ok && len(key) == 0 {
		key = []byte(s.key)
	}
	return carry(s.Carriers, key, ok, h)
}

// carry returns what makes a request that is passed on carry its key by every carrier. A value that no sandbox can have
// as its key is not spread.
func carry(c route.Carriers, key []byte, ok bool, h *engine.Head) (e engine.Edits) {
	if ok && sandbox.ValidateKey(string(key)) == nil {
		c.Carry(key, h.All(), &e)
	}
	return e
}

// hostPort reads HOST[:PORT]. port is what stands for a port that is left out; when it is empty, none may be.
func hostPort(s, port string) (string, error) {
	host := s
	if h, p, err := net.SplitHostPort(s); err == nil {
		host, port = h, p
	} else if port == "" {
		return "", err
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if host == "" || strings.ContainsAny(host, "@/[] ") {
		return "", errors.New("it names no host")
	}
	addr := net.JoinHostPort(host, port)
	return addr, validAddress(addr)
}

func cutPrefixFold(b []byte, prefix string) ([]byte, bool) {
	if len(b) < len(prefix) || !strings.EqualFold(string(b[:len(prefix)]), prefix) {
		return nil, false
	}
	return b[len(prefix):], true
}
