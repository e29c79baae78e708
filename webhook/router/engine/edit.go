package engine

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// appendEdited appends head h to dst as e changes it. What e does not touch stays byte for byte.
func appendEdited(dst []byte, h *head, e *Edits) []byte {
	if e.Target != nil {
		dst = append(dst, h.Method...)
		dst = append(dst, ' ')
		dst = append(dst, e.Target...)
		dst = append(dst, h.start[len(h.Method)+1+len(h.Target):]...)
	} else {
		dst = append(dst, h.start...)
	}
	for _, f := range e.Set {
		dst = appendField(dst, f.Name, f.Value)
	}
	for i := range h.Fields {
		if !e.drops(h.Fields[i].Name) {
			dst = append(dst, h.lines[i]...)
		}
	}
	return append(dst, "\r\n"...)
}

func appendField(dst, name, value []byte) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	dst = append(dst, value...)
	return append(dst, "\r\n"...)
}

// drops says whether a field of that name goes, because it is removed or replaced.
func (e *Edits) drops(name []byte) bool {
	return slices.ContainsFunc(e.Set, func(f Field) bool { return nameIs(name, string(f.Name)) }) ||
		slices.ContainsFunc(e.Remove, func(n string) bool { return nameIs(name, n) })
}

// withoutH2C adds to e what takes an offer to upgrade to HTTP/2 (RFC 7540, section 3.2) out of h: the app would go on with
// frames on a connection of which requests are routed one by one. The request is answered as HTTP/1.1, as the offer allows.
func withoutH2C(e Edits, h *head) Edits {
	if h.upgrade == nil && h.Get("http2-settings") == nil {
		return e
	}
	var offers, connection [][]byte
	found := false
	for i := range h.Fields {
		switch f := &h.Fields[i]; {
		case nameIs(f.Name, "upgrade"):
			for t := range tokens(f.Value) {
				if foldEqual(t, "h2c") {
					found = true
				} else {
					offers = append(offers, t)
				}
			}
		case nameIs(f.Name, "http2-settings"):
			found = true
		}
	}
	if !found {
		return e
	}
	for i := range h.Fields {
		if !nameIs(h.Fields[i].Name, "connection") {
			continue
		}
		for t := range tokens(h.Fields[i].Value) {
			if !foldEqual(t, "http2-settings") && (len(offers) > 0 || !foldEqual(t, "upgrade")) {
				connection = append(connection, t)
			}
		}
	}
	e.Remove = append(slices.Clone(e.Remove), "http2-settings", "upgrade", "connection")
	e.Set = slices.Clone(e.Set)
	for _, f := range []struct {
		name   string
		values [][]byte
	}{{"Upgrade", offers}, {"Connection", connection}} {
		if len(f.values) > 0 {
			e.Set = append(e.Set, Field{[]byte(f.name), bytes.Join(f.values, []byte(", "))})
		}
	}
	return e
}

// refusalHTTP1 returns the answer r in HTTP/1.1. keep says whether the connection goes on; old that the request was
// HTTP/1.0.
func refusalHTTP1(r *Refusal, toHEAD, keep, old bool) []byte {
	body, mediaType := r.content()
	b := append([]byte("HTTP/1.1 "), strconv.Itoa(r.Status)...)
	b = append(b, ' ')
	b = append(b, StatusText(r.Status)...)
	b = append(b, "\r\nContent-Type: "...)
	b = append(b, mediaType...)
	b = append(b, "\r\nX-Content-Type-Options: nosniff\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\n"...)
	if r.Reason != "" {
		b = appendField(b, []byte(errorHeader), []byte(cleanReason(r.Reason)))
	}
	for _, f := range r.Fields {
		b = appendField(b, f.Name, f.Value)
	}
	switch {
	case !keep:
		b = append(b, "Connection: close\r\n"...)
	case old:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	b = append(b, "\r\n"...)
	if !toHEAD {
		b = append(b, body...)
	}
	return b
}

// content returns the body of the answer r, and its media type.
func (r *Refusal) content() (body []byte, mediaType string) {
	if r.Print != nil {
		return r.Print(cleanReason(r.Reason))
	}
	if r.Body != nil {
		return r.Body, r.Type
	}
	return []byte(cleanReason(r.Reason) + "\n"), "text/plain; charset=utf-8"
}

// cleanReason makes a reason fit for a header field: one line of visible ASCII, not endless.
func cleanReason(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r < ' ' || r == 0x7f:
			return ' '
		case r > 0x7f:
			return '?'
		}
		return r
	}, s)
	const limit = 1 << 10
	if len(s) > limit {
		s = s[:limit-3] + "..."
	}
	return strings.TrimSpace(s)
}
