// Package preview is what the ways into a sandbox share: which preview a request's host names, and what is changed in
// the request's head, so that it carries the sandbox's key and no other. It is pure, and imports nothing of Kubernetes.
package preview

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// A Stamp puts a sandbox's key on requests that enter.
type Stamp struct {
	route.Carriers
	// Key is the sandbox's. Empty: the baseline, and any key that comes in is taken out.
	Key string
}

// Edits returns what makes a request carry the sandbox's key, by every carrier, and no other.
func (s Stamp) Edits(h *engine.Head) engine.Edits {
	var e engine.Edits
	s.Carry([]byte(s.Key), h.All(), &e)
	return e
}

// Answered changes the head of an answer so that no cache serves it to anybody but who asked.
func (s Stamp) Answered(e *engine.Edits, r *engine.Reply) {
	if s.Key != "" && r.Status != 101 {
		s.Private(route.FromHeader, r.All(), e)
	}
}

// Forwarded is what a preview tells the app of the request as the client made it: in Forwarded (RFC 7239), and in the
// fields that were customary before it, X-Forwarded-For, X-Forwarded-Host and X-Forwarded-Proto.
type Forwarded struct {
	Client netip.Addr // whom the request came from: the client, or the proxy in front
	Proto  string     // "http" or "https", as the client sees it
	// Behind says that requests come from a proxy of one's own, which has set the X-Forwarded fields: they are kept,
	// and Client is appended. Else what the client says of itself is dropped. A Forwarded that comes in is dropped in
	// any case: proxies that know of X-Forwarded alone pass the client's own on. What the app gets as Forwarded says
	// the same as the other fields.
	Behind bool
}

// Seen is the request as the client made it, so far as that is known.
type Seen struct{ Host, Proto []byte }

// Add adds the fields to e, and returns what they say.
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

// forwarded returns the value of a Forwarded field (RFC 7239, section 4) that says what the X-Forwarded fields do: an
// element for each hop, of which the first, the client's, has host and proto.
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
		if _, ok := ParseHost(string(host)); ok { // so it has nothing that would have to be escaped
			out = append(append(append(out, `;host="`...), host...), '"')
		}
		if p := bytes.ToLower(proto); string(p) == "http" || string(p) == "https" {
			out = append(append(out, ";proto="...), p...)
		}
	}
	return out
}

// address reads an IP address, with or without a port.
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
