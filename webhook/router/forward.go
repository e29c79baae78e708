package router

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// forward decides for a loopback port that stands in for a Service. A test beside the router sends its requests there,
// and they go to the Service with the sandbox's key. Their host is the Service's own name, as for the baseline's
// clients.
type forward struct {
	metrics   *metrics
	stamp     stamp
	backend   engine.Backend
	authority string // as clients of the Service write it
}

func newForward(f sandbox.Forward, m *metrics, s stamp) *forward {
	addr := f.Service.String()
	authority := addr
	if f.Port == 80 {
		authority = f.Host
	}
	return &forward{m, s, engine.Backend{ID: addr, Addr: addr, Timeout: outgoingDialTimeout}, authority}
}

// Default is the Service: what is not HTTP is forwarded unstamped.
func (f *forward) Default() (engine.Backend, bool) { return f.backend, true }

// Decide sends every request to the Service.
func (f *forward) Decide(h *engine.Head) engine.Decision {
	seen := f.metrics.seen(h.HTTP2)
	d := engine.Decision{
		Backends: []engine.Backend{f.backend}, Edits: f.stamp.edits(h), Observer: seen.outgoing(),
		Failure: engine.Refusal{Status: 502, Reason: f.backend.Addr + ": "},
	}
	if h.HTTP2 {
		return d // whose authority is not a field
	}
	d.Edits.Set = append(slices.Clip(d.Edits.Set), engine.Field{Name: []byte("host"), Value: []byte(f.authority)})
	here := string(h.Authority)
	d.Rewrite = func(r *engine.Reply) engine.Edits { return f.redirect(r, here) }
	return d
}

// redirect rewrites a redirect to the Service so that it leads back here, where requests get the key.
func (f *forward) redirect(r *engine.Reply, here string) engine.Edits {
	if r.Status/100 != 3 && r.Status != 201 {
		return engine.Edits{}
	}
	for _, field := range r.Fields {
		if !strings.EqualFold(string(field.Name), "location") {
			continue
		}
		u, err := url.Parse(string(field.Value))
		if err != nil || u.Scheme != "http" && u.Scheme != "" || !f.itself(u) {
			break
		}
		u.Scheme, u.Host = "http", here
		return engine.Edits{Set: []engine.Field{{Name: []byte("location"), Value: []byte(u.String())}}}
	}
	return engine.Edits{}
}

func (f *forward) itself(u *url.URL) bool {
	port := u.Port()
	if port == "" {
		port = strconv.Itoa(80)
	}
	return u.Host != "" && strings.EqualFold(u.Hostname()+":"+port, f.backend.Addr)
}
