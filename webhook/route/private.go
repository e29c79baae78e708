package route

import (
	"bytes"
	"iter"
	"strings"
)

// Private keeps the response to a keyed request from being served to requests without the key. It sets Cache-Control:
// private, so that no shared cache stores it, and removes vendors' headers that override this. Vary lists the carriers,
// so that a client's own cache, and a shared one that ignores Cache-Control, serve it only to requests with the same
// key. How long a client may keep it does not change.
//
// carrier is where the key came from: see Finder.Carrier. Requests without a key, and their responses, are not changed.
// So a cache in front of a router that holds the baseline's response also serves it to keyed requests, unless it is
// configured to pass them.
func (c Carriers) Private(carrier Carrier, fields iter.Seq2[[]byte, []byte], edit Editor) {
	var directives, vary [][]byte
	private := false
	for name, value := range fields {
		switch {
		case is(name, "cache-control"):
			for d := range elements(value) {
				switch strings.ToLower(string(directive(d))) {
				case "", "public", "s-maxage", "proxy-revalidate", "private":
				case "no-store":
					private = true
					fallthrough
				default:
					directives = append(directives, d)
				}
			}
		case is(name, "vary"):
			for v := range bytes.SplitSeq(value, []byte{','}) {
				if v = bytes.Trim(v, " \t"); len(v) > 0 {
					vary = append(vary, v)
				}
			}
		case sharedCaching(name):
			edit.Drop(strings.ToLower(string(name)))
		}
	}
	if !private {
		directives = append(directives, []byte("private"))
	}
	edit.Put("cache-control", bytes.Join(directives, []byte(", ")))
	edit.Put("vary", c.vary(carrier, vary))
}

// Uncached sets the fields that keep a router's own response to a keyed request from being cached.
func (c Carriers) Uncached(edit Editor) {
	edit.Put("cache-control", []byte("no-store"))
	edit.Put("vary", c.vary(FromTracestate, nil))
}

// vary adds to the names in a Vary header the carriers that the response depends on: the one the key came from, and
// those that take precedence over it.
func (c Carriers) vary(carrier Carrier, names [][]byte) []byte {
	for _, n := range names {
		if string(n) == "*" {
			return []byte("*")
		}
	}
	for i, name := range []string{c.Header, "baggage", "tracestate"} {
		known := false
		for _, n := range names {
			known = known || is(n, name)
		}
		if !known && i < int(carrier) {
			names = append(names, []byte(name))
		}
	}
	return bytes.Join(names, []byte(", "))
}

// elements yields the elements of a list, of which some may be quoted strings (RFC 9110, section 5.6.1).
func elements(value []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		quoted, from := false, 0
		for i := 0; i <= len(value); i++ {
			switch {
			case i == len(value), value[i] == ',' && !quoted:
				if !yield(bytes.Trim(value[from:i], " \t")) {
					return
				}
				from = i + 1
			case value[i] == '"':
				quoted = !quoted
			case value[i] == '\\' && quoted:
				i++
			}
		}
	}
}

// directive returns a directive's name.
func directive(d []byte) []byte {
	name, _, _ := bytes.Cut(d, []byte{'='})
	return bytes.Trim(name, " \t")
}

// sharedCaching reports whether a field makes shared caches ignore Cache-Control: those of nginx, RFC 9213, Edge
// Architecture and Akamai.
func sharedCaching(name []byte) bool {
	switch n := strings.ToLower(string(name)); n {
	case "x-accel-expires", "surrogate-control", "edge-control":
		return true
	default:
		return strings.HasSuffix(n, "-cache-control")
	}
}
