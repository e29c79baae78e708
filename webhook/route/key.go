package route

import (
	"bytes"
	"encoding/hex"
	"strings"
)

// Carriers names what carries a key in a request. In order of precedence: the header Header, and the member Member of
// the headers "baggage" and "tracestate".
type Carriers struct {
	Header string // in lower case
	Member string
}

// A Finder collects the key of one request from its headers, in any order. Set Carriers before use. Reset prepares it
// for another request.
type Finder struct {
	Carriers
	header, baggage, tracestate []byte
	seen, ambiguous             bool // the key header was seen; it was seen with different values
}

// Reset forgets the request and keeps the carriers.
func (f *Finder) Reset() { *f = Finder{Carriers: f.Carriers} }

// Header records one header field. The name's case does not matter; value is kept, not copied, if it holds a key.
func (f *Finder) Header(name, value []byte) {
	switch {
	case len(name) == len(f.Carriers.Header) && equalFold(name, f.Carriers.Header):
		v := bytes.Trim(value, " \t")
		if f.seen && !bytes.Equal(f.header, v) {
			f.ambiguous = true
		}
		f.seen, f.header = true, v
	case len(name) == len("baggage") && equalFold(name, "baggage"):
		if v := BaggageMember(value, f.Member); v != nil {
			f.baggage = v // of several, the last counts, as in OpenTelemetry's SDKs
		}
	case len(name) == len("tracestate") && equalFold(name, "tracestate"):
		if f.tracestate == nil {
			f.tracestate = TracestateMember(value, f.Member)
		}
	}
}

// Key returns the request's key, empty if it carries none. It fails if the key header has different values, because
// some hop could choose another one.
func (f *Finder) Key() (key []byte, ok bool) {
	switch {
	case f.ambiguous:
		return nil, false
	case len(f.header) > 0:
		return f.header, true
	case len(f.baggage) > 0:
		return f.baggage, true
	}
	return f.tracestate, true
}

// A Carrier is where a request's key came from, in order of precedence.
type Carrier uint8

// Carriers.
const (
	FromHeader Carrier = iota + 1
	FromBaggage
	FromTracestate
)

// Carrier returns where Key found the key.
func (f *Finder) Carrier() Carrier {
	switch {
	case len(f.header) > 0:
		return FromHeader
	case len(f.baggage) > 0:
		return FromBaggage
	}
	return FromTracestate
}

// BaggageMember returns the value of the named member of a W3C Baggage header value, percent-decoded, without its
// properties; nil if there is none. Of members with the same name the last counts, as in OpenTelemetry's SDKs.
func BaggageMember(header []byte, name string) []byte {
	var found []byte
	for len(header) > 0 {
		var member []byte
		member, header, _ = bytes.Cut(header, []byte{','})
		key, value, ok := bytes.Cut(member, []byte{'='})
		if !ok || string(bytes.Trim(key, " \t")) != name {
			continue
		}
		value, _, _ = bytes.Cut(value, []byte{';'})
		found = percentDecode(bytes.Trim(value, " \t"))
	}
	return found
}

// TracestateMember returns the value of the named member of a W3C Trace Context tracestate header value; nil if there
// is none. Of members with the same name the first counts: it was set last, and the specification prepends.
func TracestateMember(header []byte, name string) []byte {
	for len(header) > 0 {
		var member []byte
		member, header, _ = bytes.Cut(header, []byte{','})
		key, value, ok := bytes.Cut(bytes.Trim(member, " \t"), []byte{'='})
		if ok && string(key) == name {
			return value
		}
	}
	return nil
}

// percentDecode returns v itself if nothing is encoded. A '%' without two hexadecimal digits after it stays.
func percentDecode(v []byte) []byte {
	if bytes.IndexByte(v, '%') < 0 {
		return v
	}
	out := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		if v[i] == '%' && i+2 < len(v) {
			var b [1]byte
			if _, err := hex.Decode(b[:], v[i+1:i+3]); err == nil {
				out = append(out, b[0])
				i += 2
				continue
			}
		}
		out = append(out, v[i])
	}
	return out
}

// equalFold compares a header name with a lower-case string of the same length.
func equalFold(name []byte, lower string) bool { return strings.EqualFold(string(name), lower) }
