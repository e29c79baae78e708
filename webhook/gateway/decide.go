// Package gateway is the way into sandboxes for people and tests outside of the cluster: by its host name, a request says which
// Service and which sandbox it is for; the gateway lets in whom somebody shared that with, takes out any routing key that came
// from outside, and puts in the sandbox's. It dials Services that select pods, of the sandbox's namespace and of those that a label
// opens to others, and nothing else.
package gateway

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/preview"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/router/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/share"
)

// dialTimeout is how long the gateway tries to reach a Service.
const dialTimeout = 10 * time.Second

// A desk decides about the requests of all connections.
type desk struct {
	directory *directory
	synced    *atomic.Bool // the directory knows the cluster: before, lookups would wait for it
	press     *pressman
	metrics   *metrics
	log       *slog.Logger
	now       func() time.Time
	dial      func(context.Context, string) (net.Conn, error)

	domain   string // in lower case
	carriers route.Carriers
	behind   bool   // a proxy of one's own is in front
	password string // of the proxy that signs people in; empty: people sign in by shares
}

// connection decides for one client connection.
type connection struct {
	*desk
	client netip.Addr
	tls    bool
}

// Default is nowhere: what is no HTTP names no sandbox.
func (*connection) Default() (engine.Backend, bool) { return engine.Backend{}, false }

// Decide lets a request in, or says why not.
func (c *connection) Decide(h *engine.Head) engine.Decision {
	if !c.synced.Load() {
		g := &page{status: 503, title: "The gateway is starting", reason: "it reads the cluster's state", retry: true}
		c.metrics.count(g.status)
		return engine.Decision{Refusal: c.press.print(g, wantsHTML(h))}
	}
	ctx := context.Background() // lookups in memory, which wait for nothing
	d, g := c.decide(ctx, h)
	if g != nil {
		c.metrics.count(g.status)
		return engine.Decision{Refusal: c.press.print(g, wantsHTML(h))}
	}
	if d.Refusal != nil {
		c.metrics.count(d.Refusal.Status)
	}
	return d
}

// decide returns a decision, or the page to answer with.
func (c *connection) decide(ctx context.Context, h *engine.Head) (engine.Decision, *page) {
	none := engine.Decision{}
	host, refusal := (preview.Stamp{Carriers: c.carriers}).Admit(h)
	if refusal != nil {
		return none, &page{status: refusal.Status, title: "Bad request", reason: refusal.Reason}
	}
	e, cm, g := c.find(ctx, host)
	if g != nil {
		return none, g
	}
	brought := readCredentials(h)
	if welcome, g := c.signIn(ctx, h, e, cm, &brought); welcome != nil || g != nil {
		return engine.Decision{Refusal: welcome}, g
	}
	service, err := c.directory.service(ctx, e)
	switch {
	case err != nil:
		return none, c.failed(e, err)
	case service == nil:
		return none, &page{status: 404, title: "No such Service", entry: e, reason: "there is no Service " + e.Service + " in namespace " + e.ServiceNamespace + " by which the sandbox can be entered",
			next: "Services of the namespace:", command: []string{"kubectl", "get", "services", "-n", e.ServiceNamespace}}
	}
	addr, why := target(service, h.HTTP2)
	if why != "" {
		return none, &page{status: 403, title: "Service is not served", entry: e, reason: "the gateway does not dial Service " + e.name() + ": " + why}
	}
	forks, pods, err := c.directory.forks(ctx, e)
	if err != nil {
		return none, c.failed(e, err)
	}
	if len(forks) == 0 {
		return none, notReady(e, &wait{Reason: "its first fork"})
	}
	if w := waiting(forks, pods); w != nil {
		return none, notReady(e, w)
	}
	return c.pass(h, e, cm, &brought, addr), nil
}

// find returns the preview that a host stands for, with its sandbox.
func (c *connection) find(ctx context.Context, host preview.Host) (Entry, *corev1.ConfigMap, *page) {
	label, ok := strings.CutSuffix(host.Name, "."+c.domain)
	if !ok || strings.Contains(label, ".") {
		return Entry{}, nil, &page{status: 404, title: "No preview here", reason: "this gateway serves previews at SERVICE--SANDBOX--NAMESPACE." + c.domain}
	}
	e, ok, err := c.directory.entry(ctx, label)
	switch {
	case err != nil:
		return e, nil, c.failed(e, err)
	case !ok:
		return e, nil, &page{status: 404, title: "No preview here", reason: "no preview has the host " + host.Name,
			next: "Sandboxes there are:", command: []string{"kubectl", "sandbox", "list", "-A"}}
	}
	cm, err := c.directory.sandbox(ctx, e)
	if err != nil {
		return e, nil, c.failed(e, err)
	}
	list := []string{"kubectl", "sandbox", "list", "-n", e.Namespace}
	if cm == nil {
		if why, ok := c.directory.whyGone(e.Namespace, e.Sandbox); ok {
			return e, nil, &page{status: 410, title: "This sandbox is gone", entry: e, reason: why, next: "Sandboxes there are:", command: list}
		}
		return e, nil, &page{status: 404, title: "No such sandbox", entry: e, reason: "there is no sandbox " + e.Sandbox + " in namespace " + e.Namespace,
			next: "Sandboxes there are:", command: list}
	}
	gone := func(why string) (Entry, *corev1.ConfigMap, *page) {
		return e, nil, &page{status: 410, title: "This sandbox is gone", entry: e, reason: why, next: "Sandboxes there are:", command: list}
	}
	if cm.DeletionTimestamp != nil {
		return gone("it is being deleted")
	}
	if at, err := time.Parse(time.RFC3339, cm.Data[sandbox.DataExpires]); err == nil && !c.now().Before(at) {
		return gone(expiredAt(at))
	}
	if sandbox.ValidateKey(cm.Data[sandbox.DataKey]) != nil {
		return e, nil, &page{status: 410, title: "This sandbox has no key", entry: e, reason: "its ConfigMap holds no routing key, so nothing can be routed to it",
			next: "Look at it:", command: []string{"kubectl", "get", "configmap", cm.Name, "-o", "yaml", "-n", e.Namespace}}
	}
	return e, cm, nil
}

// signIn lets a request in, or returns how it is answered: by a redirect that makes a cookie of a link, or by a page.
func (c *connection) signIn(ctx context.Context, h *engine.Head, e Entry, cm *corev1.ConfigMap, brought *credentials) (*engine.Refusal, *page) {
	refuse := func(reason string) *page {
		return &page{status: 401, title: "Sign in to see this preview", entry: e, reason: reason, next: "Whoever may write to the namespace gets a link by:",
			command: []string{"kubectl", "sandbox", "share", e.Sandbox, "svc/" + e.name(), "-n", e.Namespace},
			fields:  []engine.Field{field("WWW-Authenticate", share.Scheme+` realm="sandbox `+e.Sandbox+`"`)}}
	}
	if c.password != "" {
		if brought.fromProxy(c.password) {
			return nil, nil
		}
		g := refuse("requests come through the proxy that signs people in, and this one did not")
		g.next, g.command = "", nil
		return nil, g
	}
	shares, err := c.directory.shares(ctx, cm)
	if err != nil {
		return nil, c.failed(e, err)
	}
	now := c.now()
	if brought.linked {
		if m := string(h.Method); m != "GET" && m != "HEAD" {
			return nil, refuse("a link is opened by GET; programs send the token in the header Authorization")
		}
		s, err := share.Find(shares, brought.link, e.name(), now)
		if err != nil {
			return nil, refuse(err.Error())
		}
		c.log.Info("signed in", "sandbox", e.Sandbox, "namespace", e.Namespace, "service", e.name(), "share", s.Hash[:8], "sharedBy", s.CreatedBy, "client", c.client)
		return brought.welcome(s, now), nil
	}
	if len(brought.tokens) == 0 {
		return nil, refuse("previews are closed to whom they were not shared with")
	}
	if _, err := brought.find(shares, e.name(), now); err != nil {
		return nil, refuse(err.Error())
	}
	return nil, nil
}

// notReady says what a sandbox waits for.
func notReady(e Entry, w *wait) *page {
	g := &page{status: 503, title: "The sandbox is starting", entry: e, reason: w.Reason, retry: true, next: "See for yourself:",
		command: []string{"kubectl", "sandbox", "status", e.Sandbox, "-n", e.Namespace}}
	if w.Fork != "" {
		g.reason = "fork " + w.Fork + " waits for: " + w.Reason
	} else {
		g.reason = "it waits for " + w.Reason
	}
	if w.Crashed {
		g.title, g.reason = "The fork does not run", "fork "+w.Fork+": "+w.Reason
	}
	if w.Log {
		g.next, g.command = "Read its log:", []string{"kubectl", "logs", "deploy/" + w.Fork, "--all-containers", "-n", e.Namespace}
		if w.Earlier {
			g.command = append(g.command, "--previous")
		}
	}
	return g
}

// failed answers a request that could not be looked up.
func (c *connection) failed(e Entry, err error) *page {
	c.log.Error("look up a preview", "sandbox", e.Sandbox, "namespace", e.Namespace, "error", err)
	return &page{status: 503, title: "The gateway can't tell", entry: e, reason: "it does not know the cluster's state", retry: true}
}

// pass sends a request on to the Service at addr.
func (c *connection) pass(h *engine.Head, e Entry, cm *corev1.ConfigMap, brought *credentials, addr string) engine.Decision {
	stamp := preview.Stamp{Carriers: c.carriers, Key: cm.Data[sandbox.DataKey]}
	edits := stamp.Edits(h)
	proto := "http"
	if c.tls {
		proto = "https"
	}
	preview.Forwarded{Client: c.client, Proto: proto, Behind: c.behind}.Add(&edits, h)
	brought.strip(&edits, c.password != "")
	b := engine.Backend{ID: addr, Addr: addr, Timeout: dialTimeout, Answer: []engine.Field{field("X-Robots-Tag", "noindex, nofollow")}}
	b.Dial = func(ctx context.Context) (net.Conn, error) { return c.dial(ctx, addr) }
	d := engine.Decision{
		Backends: []engine.Backend{b}, Edits: edits, Observer: observer{c.metrics},
		Failure: engine.Refusal{Status: 502, Reason: "Service " + e.name() + " does not answer: "},
	}
	if wantsHTML(h) {
		g := &page{status: 502, title: "The Service does not answer", entry: e, reason: "Service " + e.name() + " accepted no connection, or broke off before it answered",
			next: "See for yourself:", command: []string{"kubectl", "sandbox", "status", e.Sandbox, "-n", e.Namespace}}
		printed := c.press.print(g, true)
		d.Failure.Body, d.Failure.Type, d.Failure.Fields = printed.Body, printed.Type, printed.Fields
	}
	return d
}
