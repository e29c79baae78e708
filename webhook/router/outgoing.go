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

// outgoingDialTimeout bounds how long the stamping proxy tries to reach a host.
const outgoingDialTimeout = 30 * time.Second

var errLoop = errors.New("that is this proxy itself")

// outgoing decides for a connection to the stamping proxy: an HTTP forward proxy (RFC 9110, section 7.6) that an app in
// a fork or check uses through HTTP_PROXY. Requests through it carry the sandbox's key, unless they carry one already.
type outgoing struct {
	metrics *metrics
	self    netip.AddrPort
	stamp   stamp
}

// Default is none: a client of the proxy must name a destination.
func (*outgoing) Default() (engine.Backend, bool) { return engine.Backend{}, false }

// Decide sends a request to the host of its target.
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
		if !ok { // which some clients request from a proxy for a WebSocket
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
	if !bytes.EqualFold(h.Authority, authority) { // RFC 9112, section 3.2.2: the target wins
		d.Edits.Set = append(d.Edits.Set, engine.Field{Name: []byte("host"), Value: slices.Clone(authority)})
	}
	return d
}

// loops reports whether addr is visibly the proxy's own. dial detects what only the resolved address shows.
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

// tunnelled decides for a connection through a CONNECT: HTTP without TLS is stamped too, and TLS is forwarded
// unchanged.
type tunnelled struct {
	metrics *metrics
	stamp   stamp
	backend engine.Backend
}

// Default is the tunnel's destination.
func (t *tunnelled) Default() (engine.Backend, bool) {
	b := t.backend
	b.Anchor = true
	return b, true
}

// Decide sends every request to the tunnel's destination.
func (t *tunnelled) Decide(h *engine.Head) engine.Decision {
	b, _ := t.Default()
	seen := t.metrics.seen(h.HTTP2)
	return engine.Decision{Backends: []engine.Backend{b}, Edits: t.stamp.edits(h), Observer: seen.outgoing()}
}

// stamp adds a sandbox's key to requests.
type stamp struct {
	route.Carriers
	key     string
	metrics *metrics
}

// edits returns the edits that make a request carry the key in all carriers, or the key that it already carries.
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

// carry returns the edits that make a forwarded request carry its key in all carriers. It does not propagate a value
// that cannot be a sandbox's key.
func carry(c route.Carriers, key []byte, ok bool, h *engine.Head) (e engine.Edits) {
	if ok && sandbox.ValidateKey(string(key)) == nil {
		c.Carry(key, h.All(), &e)
	}
	return e
}

// hostPort parses HOST[:PORT]. port is the default port; if it is empty, the port is required.
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
