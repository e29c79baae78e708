package preview

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
)

// A Host is the host that a request names.
type Host struct {
	Name string // in lower case, without the root's dot; an IPv6 address without its brackets
	Port uint16 // 0: none was given
}

// Admit returns the host of a request, or why the request is refused: it is meant for a proxy, its host is ambiguous,
// or it asks the next hop to drop what a preview sets.
func (s Stamp) Admit(h *engine.Head) (Host, *engine.Refusal) {
	refuse := func(reason string) (Host, *engine.Refusal) {
		return Host{}, &engine.Refusal{Status: 400, Reason: reason}
	}
	asterisk := string(h.Target) == "*" && string(h.Method) == "OPTIONS"
	if string(h.Method) == "CONNECT" && !(h.HTTP2 && len(h.Target) > 0) { // RFC 8441: a WebSocket over HTTP/2 has a path
		return refuse("this is no proxy: CONNECT is not served")
	}
	if !asterisk && (len(h.Target) == 0 || h.Target[0] != '/') {
		return refuse("this is no proxy: the request's target must begin with /")
	}
	for i := range h.Fields {
		switch f := &h.Fields[i]; {
		case h.HTTP2 && isNamed(f.Name, "host") && !bytes.EqualFold(f.Value, h.Authority):
			return refuse("Host and :authority differ")
		case isNamed(f.Name, "connection") && s.drops(f.Value):
			return refuse("Connection names a header that is no hop's to drop")
		}
	}
	host, ok := ParseHost(string(h.Authority))
	if !ok {
		return refuse("the request's Host is missing or malformed")
	}
	return host, nil
}

// drops reports whether a Connection header names one of the fields that a preview sets: hops that honour it would
// remove them (RFC 9110, section 7.6.1).
func (s Stamp) drops(connection []byte) bool {
	for option := range strings.SplitSeq(strings.ToLower(string(connection)), ",") {
		switch o := strings.Trim(option, " \t"); o {
		case s.Header, "baggage", "tracestate", "host", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto":
			return true
		}
	}
	return false
}

// ParseHost parses a Host header or :authority: a DNS name or IP address, with or without a port (RFC 3986, section
// 3.2). A name consists of labels of letters, digits, '-' and '_' (as Kubernetes, browsers and Compose name hosts).
// Each has 1 to 63 bytes, the name at most 253.
func ParseHost(authority string) (Host, bool) {
	var name, port string
	var hasPort bool
	if rest, ok := strings.CutPrefix(authority, "["); ok { // an IPv6 address
		if name, port, ok = strings.Cut(rest, "]"); !ok || !ipv6(name) {
			return Host{}, false
		}
		if port != "" {
			if port, hasPort = strings.CutPrefix(port, ":"); !hasPort {
				return Host{}, false
			}
		}
	} else {
		name, port, hasPort = strings.Cut(authority, ":")
		name = strings.TrimSuffix(name, ".")
		if !dnsName(name) {
			return Host{}, false
		}
	}
	h := Host{Name: strings.ToLower(name)}
	if hasPort && port != "" { // "host:" is "host": RFC 3986, section 3.2.3
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || port[0] == '0' {
			return Host{}, false
		}
		h.Port = uint16(n)
	}
	return h, true
}

func dnsName(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			if c := label[i] | 0x20; !('a' <= c && c <= 'z') && !('0' <= label[i] && label[i] <= '9') && label[i] != '-' && label[i] != '_' {
				return false
			}
		}
	}
	return true
}

func ipv6(s string) bool {
	return strings.Contains(s, ":") && strings.Trim(strings.ToLower(s), "0123456789abcdef:.") == ""
}
