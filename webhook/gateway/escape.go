package gateway

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/proxy"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/preview"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A visit is an admitted request, as its client made it.
type visit struct {
	Entry
	scheme    string // "http" or "https"
	host      preview.Host
	authority string // host as the client wrote it
	http2     bool
}

// visited returns the visit of a request with head h for a host. forwarded is what the app is told about it, direct the
// scheme by which it reached the gateway.
func visited(e Entry, h *engine.Head, requested preview.Host, forwarded preview.Seen, direct string) visit {
	v := visit{Entry: e, scheme: strings.ToLower(string(forwarded.Proto)), host: requested, authority: string(h.Authority), http2: h.HTTP2}
	if v.scheme != "http" && v.scheme != "https" {
		v.scheme = direct
	}
	// A proxy in front may omit the port from Host.
	if seen, ok := preview.ParseHost(string(forwarded.Host)); ok && seen.Name == requested.Name {
		v.host, v.authority = seen, string(forwarded.Host)
	}
	return v
}

// answered returns the edits of the head of a Service's response. A redirect to another address of the cluster is
// rewritten to its preview, and one that leaves the previews is reported. Browsers are asked to report where a page
// sends requests.
func (d *handler) answered(r *engine.Reply, v visit) engine.Edits {
	edits := engine.Edits{Remove: []string{sandbox.HeaderEscaped}}
	to, ok := preview.ReadRedirect(r)
	if !ok {
		if f, ok := preview.AskForReports(r, "http://*."+d.domain+":*", "ws://*."+d.domain+":*"); ok {
			edits.Set = append(edits.Set, f)
		}
		return edits
	}
	if name := to.Host.Name; name == d.domain || strings.HasSuffix(name, "."+d.domain) {
		return edits
	}
	if origin, ok := d.previewOf(context.Background(), to, v); ok { // by lookups in memory, which do not block
		d.metrics.redirects.WithLabelValues("rewritten").Inc()
		edits.Set = append(edits.Set, field("location", origin+to.Rest))
		return edits
	}
	d.metrics.redirects.WithLabelValues("escaped").Inc()
	name := to.Origin()
	edits.Set = append(edits.Set, field(sandbox.HeaderEscaped, name))
	d.logEscape("a redirect leaves the preview: requests there do not carry the key", v.Entry, name)
	return edits
}

// previewOf returns the origin of the preview of an address of the cluster, as seen from the origin of v, if the
// gateway would serve it.
func (d *handler) previewOf(ctx context.Context, to preview.Redirect, v visit) (string, bool) {
	there := Entry{Sandbox: v.Sandbox, Namespace: v.Namespace}
	var ok bool
	if there.Service, there.ServiceNamespace, ok = preview.ClusterName(to.Host.Name, v.ServiceNamespace); !ok {
		return "", false
	}
	port := to.Host.Port
	switch {
	case port != 0:
	case to.Scheme == "https":
		return "", false
	default:
		port = 80
	}
	service, err := d.directory.service(ctx, there)
	if err != nil || service == nil {
		return "", false
	}
	addr, why := target(service, v.http2)
	if _, served, err := net.SplitHostPort(addr); why != "" || err != nil || served != strconv.Itoa(int(port)) {
		return "", false // a preview's host cannot name another port
	}
	if there == v.Entry {
		return v.scheme + "://" + v.authority, true
	}
	host := preview.Host{Name: preview.Label(there.name(), there.Sandbox, there.Namespace) + "." + d.domain, Port: v.host.Port}
	return v.scheme + "://" + host.String(), true
}

// reports returns a backend in this process that receives browsers' reports of what a preview's page uses elsewhere.
func (d *handler) reports(e Entry) engine.Backend {
	return proxy.Local("reports of "+preview.Label(e.name(), e.Sandbox, e.Namespace), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin, err := preview.ReadReport(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusNoContent)
		if origin != "" {
			d.metrics.pages.Inc()
			d.logEscape("a page uses what is no preview: requests there do not carry the key", e, origin)
		}
	}))
}

// logEscape logs a destination outside the preview.
func (d *handler) logEscape(what string, e Entry, to string) {
	if d.logLimit.first(d.now(), e.Service+"/"+e.ServiceNamespace+"/"+e.Sandbox+"/"+e.Namespace+" "+to) {
		d.log.Warn(what, "to", to, "sandbox", e.Sandbox, "namespace", e.Namespace, "service", e.name())
	}
}

// logLimit bounds what apps can cause to be logged: each message once a minute, and a limited number of messages.
type logLimit struct {
	mu    sync.Mutex
	since time.Time
	what  map[string]struct{}
}

// first reports whether to log a message: it is new in this minute, and the limit is not reached.
func (t *logLimit) first(now time.Time, what string) bool {
	const most = 100
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.what == nil || now.Sub(t.since) >= time.Minute {
		t.since, t.what = now, map[string]struct{}{}
	}
	if _, ok := t.what[what]; ok || len(t.what) == most {
		return false
	}
	t.what[what] = struct{}{}
	return true
}
