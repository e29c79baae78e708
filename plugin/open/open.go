// Package open serves sandboxes on this machine, each at its own host name. Requests to it get the sandbox's key and
// go to a Service of the cluster.
package open

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/preview"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// Baseline is the host name label for requests without a key.
const Baseline = "baseline"

// domain is the top-level domain whose names resolve to this machine: RFC 6761, section 6.3. Browsers need no DNS for
// it.
const domain = "localhost"

// dialTimeout is how long a request waits for a pod that accepts it: about as long as replacing a pod takes.
const dialTimeout = 10 * time.Second

// A View is the current state of the cluster. Only Dial may block.
type View interface {
	// Key returns the key of a sandbox; false if there is no such sandbox.
	Key(sandbox string) (string, bool)
	// Service returns a Service; false if there is none, or its namespace is not opened.
	Service(namespace, name string) (*corev1.Service, bool)
	// Waiting returns what keeps requests from a fork of a sandbox; nil if nothing is known.
	Waiting(sandbox string) *health.Block
	// Dial connects to a pod behind a Service's port, by the port's name.
	Dial(ctx context.Context, namespace, service, port string) (net.Conn, error)
}

// A Proxy serves the sandboxes of a namespace, at
//
//	NAME.localhost                        the entry, with the key of sandbox NAME
//	SERVICE.NAME.localhost                another Service of the namespace
//	SERVICE.NAMESPACE.NAME.localhost      one of another namespace
//
// where "baseline" for NAME means no key, and at this machine's addresses and "localhost" the entry with the key of Sandbox.
type Proxy struct {
	View
	Sandbox   string
	Namespace string // the sandboxes'
	Entry     plan.ServiceRef
	// Hosts maps host names under which the cluster serves to the Services that answer there.
	Hosts    map[string]plan.ServiceRef
	Carriers route.Carriers
	// Origins are the origins of web pages, besides those on this machine, that may send requests, as
	// "https://HOST[:PORT]".
	Origins []string
	// Port is the port that the proxy listens on.
	Port uint16
	// Notice is called with each notice for the user once, by one goroutine at a time. It may be nil.
	Notice func(string)

	renderer preview.Renderer
	mu       sync.Mutex
	noticed  map[string]bool
}

// notice reports what was not reported before, up to a limit.
func (p *Proxy) notice(format string, args ...any) {
	const most = 100
	s := fmt.Sprintf(format, args...)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.Notice == nil || p.noticed[s] || len(p.noticed) == most {
		return
	}
	if p.noticed == nil {
		p.noticed = map[string]bool{}
	}
	p.noticed[s] = true
	p.Notice(s)
}

// URL returns the address of the entry in a sandbox, or in Baseline.
func (p *Proxy) URL(sandbox string) string { return p.origin(sandbox + "." + domain) }

func (p *Proxy) origin(host string) string {
	if p.Port == 80 {
		return "http://" + host
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(int(p.Port)))
}

// Default returns no backend: a connection that is not HTTP names no host.
func (*Proxy) Default() (engine.Backend, bool) { return engine.Backend{}, false }

// Decide sends a request to the Service that its host names, with the key of the sandbox that its host names. It is safe for
// concurrent use, so one Proxy decides for all connections.
func (p *Proxy) Decide(h *engine.Head) engine.Decision {
	html := preview.WantsHTML(h)
	refuse := func(g *preview.Page) engine.Decision { return engine.Decision{Refusal: p.renderer.Refusal(g, html)} }
	host, refusal := preview.Stamp{Carriers: p.Carriers}.Admit(h)
	if refusal != nil {
		return refuse(p.page(refusal.Status, "Bad request", refusal.Reason))
	}
	t, g := p.find(host.Name)
	if g == nil {
		g = p.foreign(h, host, t)
	}
	if g != nil {
		return refuse(g)
	}
	if preview.IsReport(h) {
		return engine.Decision{Backends: []engine.Backend{p.reports()}, Failure: engine.Refusal{Status: 503, Reason: "reports: "}}
	}
	if t.sandbox != "" {
		if w := p.Waiting(t.sandbox); w != nil {
			return refuse(preview.NotReached(t.about(p.Namespace), w.Fork, string(w.Code), w.Message, w.Final(), w.Path, w.LogCommand(p.Namespace)))
		}
	}
	stamp := preview.Stamp{Carriers: p.Carriers, Key: t.key}
	d := engine.Decision{
		Backends: []engine.Backend{p.backend(t)},
		Failure:  p.renderer.Failure(p.unreachable(t), html),
		Edits:    stamp.Edits(h),
	}
	authority := string(h.Authority)
	d.Rewrite = func(r *engine.Reply) engine.Edits {
		edits := p.rewrite(r, t, authority)
		stamp.Answered(&edits, r)
		return edits
	}
	return d
}

// destination is what a host name stands for.
type destination struct {
	sandbox, key string // empty: the baseline
	service      *corev1.Service
	port         corev1.ServicePort
	entry        bool
}

// find returns what a host name, in lower case, stands for.
func (p *Proxy) find(host string) (destination, *preview.Page) {
	name, service := p.Sandbox, ""
	if _, err := netip.ParseAddr(host); err != nil && host != domain {
		rest, ok := strings.CutSuffix(host, "."+domain)
		if !ok {
			return destination{}, p.page(421, "No preview here", fmt.Sprintf("this is a preview on somebody's machine: it serves NAME.%s, not %s", domain, host))
		}
		name = rest
		if at := strings.LastIndexByte(rest, '.'); at >= 0 {
			service, name = rest[:at], rest[at+1:]
		}
	}
	d := destination{entry: service == ""}
	if name != Baseline {
		key, ok := p.Key(name)
		if !ok {
			g := p.page(404, "No such sandbox", fmt.Sprintf("there is no sandbox %q in namespace %q, or not any more", name, p.Namespace))
			g.Sandbox = name
			return destination{}, g
		}
		d.sandbox, d.key = name, key
	}
	ref := p.Entry
	if service != "" {
		ref = plan.ServiceRef{Name: service, Namespace: p.Namespace}
		if s, ns, ok := strings.Cut(service, "."); ok {
			ref.Name, ref.Namespace = s, ns
		}
	}
	s, ok := p.Service(ref.Namespace, ref.Name)
	if !ok {
		g := p.page(404, "No such Service", fmt.Sprintf("there is no service %q in namespace %q, or it was not opened", ref.Name, ref.Namespace))
		g.Sandbox, g.Next, g.Command = name, "Services of the namespace:", plan.Kubectl("get", "services", "-n", p.Namespace)
		return destination{}, g
	}
	port, err := plan.ServicePort(s, ref.Port)
	if err != nil {
		g := p.page(404, "No such port", err.Error())
		g.Sandbox, g.Next, g.Command = name, "Look at the Service:", plan.Kubectl("get", "service", s.Name, "-n", s.Namespace)
		return destination{}, g
	}
	d.service, d.port = s, port
	return d, nil
}

func (p *Proxy) backend(t destination) engine.Backend {
	ns, name, port := t.service.Namespace, t.service.Name, t.port.Name
	at := fmt.Sprintf("%s.%s:%d", name, ns, t.port.Port)
	return engine.Backend{
		ID: at, Addr: at, Timeout: dialTimeout,
		Dial: func(ctx context.Context) (net.Conn, error) { return p.Dial(ctx, ns, name, port) },
	}
}

// foreign returns a refusal for requests from web pages that are not on this machine. Otherwise any page open in the
// browser could use the preview, without the protection of the app's own address (its network, its sign-in).
func (p *Proxy) foreign(h *engine.Head, host preview.Host, t destination) *preview.Page {
	refuse := func(who string) *preview.Page {
		g := p.page(403, "Not for pages of other sites", who+" may not use this preview, unless its origin is allowed")
		g.About = t.about(p.Namespace)
		g.Next, g.Command = "Allow an origin:", plan.Kubectl("sandbox", "open", p.Sandbox, "-n", p.Namespace, "--allow-origin=https://HOST")
		return g
	}
	if origin := string(h.Get("origin")); origin != "" {
		if p.ours(origin, host) {
			return nil
		}
		if origin == "null" {
			return refuse("a page that has no origin")
		}
		return refuse("a page of " + origin)
	}
	if string(h.Get("sec-fetch-site")) == "cross-site" {
		document := string(h.Get("sec-fetch-mode")) == "navigate" && (string(h.Method) == "GET" || string(h.Method) == "HEAD")
		if !document {
			return refuse("a page of another site")
		}
	}
	return nil
}

// ours reports whether an origin is a page of this machine, of the requested host, or allowed.
func (p *Proxy) ours(origin string, requested preview.Host) bool {
	for _, o := range p.Origins {
		if strings.EqualFold(o, origin) {
			return true
		}
	}
	rest, ok := strings.CutPrefix(strings.ToLower(origin), "http://")
	if !ok {
		if rest, ok = strings.CutPrefix(strings.ToLower(origin), "https://"); !ok {
			return false
		}
	}
	from, ok := preview.ParseHost(rest)
	if !ok {
		return false
	}
	addr, err := netip.ParseAddr(from.Name)
	return from.Name == requested.Name && from.Port == requested.Port || from.Name == domain || strings.HasSuffix(from.Name, "."+domain) || err == nil && addr.IsLoopback()
}
