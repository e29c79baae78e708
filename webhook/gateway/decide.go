// Package gateway lets people and tests outside of the cluster into sandboxes. The host name of a request names a
// Service and a sandbox. The gateway admits whom somebody shared the preview with, removes any routing key from
// outside, and sets the sandbox's. It dials only Services that select pods, in the sandbox's namespace and in those
// that a label opens to others.
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

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/preview"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/share"
)

// dialTimeout bounds how long the gateway tries to reach a Service.
const dialTimeout = 10 * time.Second

// A handler decides on the requests of all connections.
type handler struct {
	directory *directory
	synced    *atomic.Bool // the directory is synced: before that, lookups would block
	renderer  *preview.Renderer
	metrics   *metrics
	log       *slog.Logger
	now       func() time.Time
	dial      func(context.Context, string) (net.Conn, error)

	domain   string // in lower case
	carriers route.Carriers
	behind   bool   // a trusted proxy is in front
	ribbon   bool   // pages get one
	password string // of the proxy that signs people in; empty: people sign in by shares
	logLimit logLimit
}

// connection decides on the requests of one client connection.
type connection struct {
	*handler
	client netip.Addr
	tls    bool
}

// Default is none: what is not HTTP names no sandbox.
func (*connection) Default() (engine.Backend, bool) { return engine.Backend{}, false }

// Decide admits a request, or refuses it with a reason.
func (c *connection) Decide(h *engine.Head) engine.Decision {
	if !c.synced.Load() {
		g := &preview.Page{Status: 503, Title: "The gateway is starting", Reason: "it reads the cluster's state", Retry: true}
		c.metrics.count(g.Status)
		return engine.Decision{Refusal: c.renderer.Refusal(g, preview.WantsHTML(h))}
	}
	ctx := context.Background() // lookups in memory, which do not block
	d, g := c.decide(ctx, h)
	if g != nil {
		c.metrics.count(g.Status)
		return engine.Decision{Refusal: c.renderer.Refusal(g, preview.WantsHTML(h))}
	}
	if d.Refusal != nil {
		c.metrics.count(d.Refusal.Status)
	}
	return d
}

// decide returns a decision, or the page to respond with.
func (c *connection) decide(ctx context.Context, h *engine.Head) (engine.Decision, *preview.Page) {
	none := engine.Decision{}
	host, refusal := (preview.Stamp{Carriers: c.carriers}).Admit(h)
	if refusal != nil {
		return none, &preview.Page{Status: refusal.Status, Title: "Bad request", Reason: refusal.Reason}
	}
	e, cm, g := c.find(ctx, host)
	if g != nil {
		return none, g
	}
	brought := readCredentials(h)
	if welcome, g := c.signIn(ctx, h, e, cm, &brought); welcome != nil || g != nil {
		return engine.Decision{Refusal: welcome}, g
	}
	if preview.IsReport(h) {
		return engine.Decision{Backends: []engine.Backend{c.reports(e)}, Failure: engine.Refusal{Status: 503, Reason: "reports: "}}, nil
	}
	service, err := c.directory.service(ctx, e)
	switch {
	case err != nil:
		return none, c.failed(e, err)
	case service == nil:
		return none, &preview.Page{Status: 404, Title: "No such Service", About: e.about(), Reason: "there is no Service " + e.Service + " in namespace " + e.ServiceNamespace + " by which the sandbox can be entered",
			Next: "Services of the namespace:", Command: []string{"kubectl", "get", "services", "-n", e.ServiceNamespace}}
	}
	addr, why := target(service, h.HTTP2)
	if why != "" {
		return none, &preview.Page{Status: 403, Title: "Service is not served", About: e.about(), Reason: "the gateway does not dial Service " + e.name() + ": " + why}
	}
	forks, pods, err := c.directory.forks(ctx, e)
	if err != nil {
		return none, c.failed(e, err)
	}
	if len(forks) == 0 {
		return none, preview.NotForked(e.about())
	}
	if b := health.Blocked(health.OfSandbox(forks, pods, cm.Data[sandbox.DataHealth], c.now())); b != nil {
		return none, preview.NotReached(e.about(), b.Fork, string(b.Code), b.Message, b.Final(), b.Path, b.LogCommand(e.Namespace))
	}
	return c.pass(h, host, e, cm, &brought, addr), nil
}

// find returns the preview that a host names, with its sandbox.
func (c *connection) find(ctx context.Context, host preview.Host) (Entry, *corev1.ConfigMap, *preview.Page) {
	label, ok := strings.CutSuffix(host.Name, "."+c.domain)
	if !ok || strings.Contains(label, ".") {
		return Entry{}, nil, &preview.Page{Status: 404, Title: "No preview here", Reason: "this gateway serves previews at SERVICE--SANDBOX--NAMESPACE." + c.domain,
			Next: "Sandboxes there are:", Command: []string{"kubectl", "sandbox", "list", "-A"}}
	}
	e, ok, err := c.directory.entry(ctx, label)
	switch {
	case err != nil:
		return e, nil, c.failed(e, err)
	case !ok:
		return e, nil, &preview.Page{Status: 404, Title: "No preview here", Reason: "no preview has the host " + host.Name,
			Next: "Sandboxes there are:", Command: []string{"kubectl", "sandbox", "list", "-A"}}
	}
	cm, err := c.directory.sandbox(ctx, e)
	if err != nil {
		return e, nil, c.failed(e, err)
	}
	list := []string{"kubectl", "sandbox", "list", "-n", e.Namespace}
	if cm == nil {
		if why, ok := c.directory.whyGone(e.Namespace, e.Sandbox); ok {
			return e, nil, &preview.Page{Status: 410, Title: "This sandbox is gone", About: e.about(), Reason: why, Next: "Sandboxes there are:", Command: list}
		}
		return e, nil, &preview.Page{Status: 404, Title: "No such sandbox", About: e.about(), Reason: "there is no sandbox " + e.Sandbox + " in namespace " + e.Namespace,
			Next: "Sandboxes there are:", Command: list}
	}
	gone := func(why string) (Entry, *corev1.ConfigMap, *preview.Page) {
		return e, nil, &preview.Page{Status: 410, Title: "This sandbox is gone", About: e.about(), Reason: why, Next: "Sandboxes there are:", Command: list}
	}
	if cm.DeletionTimestamp != nil {
		return gone("it is being deleted")
	}
	if at, err := time.Parse(time.RFC3339, cm.Data[sandbox.DataExpires]); err == nil && !c.now().Before(at) {
		return gone(expiredAt(at))
	}
	if sandbox.ValidateKey(cm.Data[sandbox.DataKey]) != nil {
		return e, nil, &preview.Page{Status: 410, Title: "This sandbox has no key", About: e.about(), Reason: "its ConfigMap holds no routing key, so nothing can be routed to it",
			Next: "Look at it:", Command: []string{"kubectl", "get", "configmap", cm.Name, "-o", "yaml", "-n", e.Namespace}}
	}
	return e, cm, nil
}

// signIn admits a request, or returns the response: a redirect that turns a link into a cookie, or a page.
func (c *connection) signIn(ctx context.Context, h *engine.Head, e Entry, cm *corev1.ConfigMap, brought *credentials) (*engine.Refusal, *preview.Page) {
	refuse := func(reason string) *preview.Page {
		return &preview.Page{Status: 401, Title: "Sign in to see this preview", About: e.about(), Reason: reason, Next: "Whoever may write to the namespace gets a link by:",
			Command: []string{"kubectl", "sandbox", "share", e.Sandbox, "svc/" + e.name(), "-n", e.Namespace},
			Fields:  []engine.Field{field("WWW-Authenticate", share.Scheme+` realm="sandbox `+e.Sandbox+`"`)}}
	}
	if c.password != "" {
		if brought.fromProxy(c.password) {
			return nil, nil
		}
		g := refuse("requests come through the proxy that signs people in, and this one did not")
		g.Next, g.Command = "", nil
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

// failed returns the page for a request whose lookup failed.
func (c *connection) failed(e Entry, err error) *preview.Page {
	c.log.Error("look up a preview", "sandbox", e.Sandbox, "namespace", e.Namespace, "error", err)
	return &preview.Page{Status: 503, Title: "The gateway can't tell", About: e.about(), Reason: "it does not know the cluster's state", Retry: true}
}

func field(name, value string) engine.Field {
	return engine.Field{Name: []byte(name), Value: []byte(value)}
}

// pass forwards a request to the Service at addr.
func (c *connection) pass(h *engine.Head, asked preview.Host, e Entry, cm *corev1.ConfigMap, brought *credentials, addr string) engine.Decision {
	stamp := preview.Stamp{Carriers: c.carriers, Key: cm.Data[sandbox.DataKey]}
	edits := stamp.Edits(h)
	proto := "http"
	if c.tls {
		proto = "https"
	}
	v := visited(e, h, asked, preview.Forwarded{Client: c.client, Proto: proto, Behind: c.behind}.Add(&edits, h), proto)
	brought.strip(&edits, c.password != "")
	b := engine.Backend{ID: addr, Addr: addr, Timeout: dialTimeout, Answer: []engine.Field{field("X-Robots-Tag", "noindex, nofollow")}}
	b.Dial = func(ctx context.Context) (net.Conn, error) { return c.dial(ctx, addr) }
	d := engine.Decision{
		Backends: []engine.Backend{b}, Edits: edits, Observer: observer{c.metrics},
		Failure: c.renderer.Failure(&preview.Page{Status: 502, Title: "The Service does not answer", About: e.about(), Reason: "Service " + e.name() + " does not answer",
			Next: "See for yourself:", Command: []string{"kubectl", "sandbox", "status", e.Sandbox, "-n", e.Namespace}}, preview.WantsHTML(h)),
	}
	answered := func(r *engine.Reply) engine.Edits {
		edits := c.answered(r, v)
		stamp.Answered(&edits, r)
		return edits
	}
	d.Rewrite = answered
	if c.ribbon && preview.OpensPage(h) {
		ribbon := preview.Ribbon{About: e.about()}
		ribbon.Ask(&d.Edits)
		d.Rewrite = func(r *engine.Reply) engine.Edits {
			edits := answered(r)
			ribbon.InsertInto(&edits, r)
			return edits
		}
	}
	return d
}
