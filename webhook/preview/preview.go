// Package preview is what the gateway and `open` share: which preview a request's host names, and how the request's
// head is edited so that it carries the sandbox's key and no other. It is pure, and imports nothing of Kubernetes.
package preview

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// A Stamp sets a sandbox's key on requests that enter.
type Stamp struct {
	route.Carriers
	// Key is the sandbox's. Empty: the baseline, and any key in the request is removed.
	Key string
}

// Edits returns the edits that make a request carry the sandbox's key in all carriers, and no other key.
func (s Stamp) Edits(h *engine.Head) engine.Edits {
	var e engine.Edits
	s.Carry([]byte(s.Key), h.All(), &e)
	return e
}

// Answered edits the head of a response so that no cache serves it to other clients.
func (s Stamp) Answered(e *engine.Edits, r *engine.Reply) {
	if s.Key != "" && r.Status != 101 {
		s.Private(route.FromHeader, r.All(), e)
	}
}

// Forwarded describes the client's original request to the app: in Forwarded (RFC 7239), and in the older fields
// X-Forwarded-For, X-Forwarded-Host and X-Forwarded-Proto.
type Forwarded struct {
	Client netip.Addr // the sender of the request: the client, or the proxy in front
	Proto  string     // "http" or "https", as the client sees it
	// Behind means that requests come from a trusted proxy, which has set the X-Forwarded fields: they are kept, and
	// Client is appended. Otherwise what the client says is dropped. A Forwarded field is dropped in any case, because
	// proxies that know only X-Forwarded pass on the client's. The app gets a Forwarded field that agrees with the others.
	Behind bool
}

// Seen is the client's original request, as far as known.
type Seen struct{ Host, Proto []byte }

// Add adds the fields to e, and returns their content.
func (f Forwarded) Add(e *engine.Edits, h *engine.Head) Seen {
	var hops [][]byte
	host, proto := slices.Clone(h.Authority), []byte(f.Proto)
	if f.Behind {
		for i := range h.Fields {
			if isNamed(h.Fields[i].Name, "x-forwarded-for") && len(h.Fields[i].Value) > 0 {
				hops = append(hops, h.Fields[i].Value)
			}
		}
		if v := h.Get("x-forwarded-host"); len(v) > 0 {
			host = slices.Clone(v)
		}
		if v := h.Get("x-forwarded-proto"); len(v) > 0 {
			proto = slices.Clone(v)
		}
	} else {
		e.Remove = append(e.Remove, "x-forwarded-port", "x-real-ip")
	}
	hops = append(hops, []byte(f.Client.Unmap().WithZone("").String()))
	all := bytes.Join(hops, []byte(", "))
	e.Set = append(e.Set,
		engine.Field{Name: []byte("x-forwarded-for"), Value: all},
		engine.Field{Name: []byte("x-forwarded-host"), Value: host},
		engine.Field{Name: []byte("x-forwarded-proto"), Value: proto},
		engine.Field{Name: []byte("forwarded"), Value: forwarded(all, host, proto)},
	)
	return Seen{Host: host, Proto: proto}
}

// forwarded returns the value of a Forwarded field (RFC 7239, section 4) that agrees with the X-Forwarded fields. It
// has one element for each hop; the first, the client's, has host and proto.
func forwarded(hops, host, proto []byte) []byte {
	var out []byte
	for i, hop := range bytes.Split(hops, []byte{','}) {
		if i > 0 {
			out = append(out, ", "...)
		}
		out = append(out, "for="...)
		switch addr, ok := address(string(bytes.TrimSpace(hop))); {
		case !ok:
			out = append(out, "unknown"...)
		case addr.Is6():
			out = append(append(append(out, `"[`...), addr.String()...), `]"`...)
		default:
			out = append(out, addr.String()...)
		}
		if i > 0 {
			continue
		}
		if _, ok := ParseHost(string(host)); ok { // so nothing in it needs escaping
			out = append(append(append(out, `;host="`...), host...), '"')
		}
		if p := bytes.ToLower(proto); string(p) == "http" || string(p) == "https" {
			out = append(append(out, ";proto="...), p...)
		}
	}
	return out
}

// address parses an IP address, with or without a port.
func address(s string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		var ap netip.AddrPort
		ap, err = netip.ParseAddrPort(s)
		addr = ap.Addr()
	}
	return addr.Unmap().WithZone(""), err == nil
}

// isNamed compares a field's name with one in lower case.
func isNamed(name []byte, lower string) bool {
	return len(name) == len(lower) && bytes.EqualFold(name, []byte(lower))
}
