package http1

import (
	"bytes"
	"slices"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/message"
)

// appendEdited appends head h to dst with the edits e. What e does not change stays byte for byte.
func appendEdited(dst []byte, h *head, e *engine.Edits) []byte {
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
		if !e.Drops(h.Fields[i].Name) {
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

// withoutH2C adds edits to e that remove an offer to upgrade to HTTP/2 (RFC 7540, section 3.2) from h. Otherwise the
// app would switch to frames on a connection whose requests are routed one by one. The response is HTTP/1.1, as the
// offer allows.
func withoutH2C(e engine.Edits, h *head) engine.Edits {
	if h.upgrade == nil && h.Get("http2-settings") == nil {
		return e
	}
	var offers, connection [][]byte
	found := false
	for i := range h.Fields {
		switch f := &h.Fields[i]; {
		case message.NameIs(f.Name, "upgrade"):
			for t := range message.Tokens(f.Value) {
				if message.FoldEqual(t, "h2c") {
					found = true
				} else {
					offers = append(offers, t)
				}
			}
		case message.NameIs(f.Name, "http2-settings"):
			found = true
		}
	}
	if !found {
		return e
	}
	for i := range h.Fields {
		if !message.NameIs(h.Fields[i].Name, "connection") {
			continue
		}
		for t := range message.Tokens(h.Fields[i].Value) {
			if !message.FoldEqual(t, "http2-settings") && (len(offers) > 0 || !message.FoldEqual(t, "upgrade")) {
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
			e.Set = append(e.Set, engine.Field{Name: []byte(f.name), Value: bytes.Join(f.values, []byte(", "))})
		}
	}
	return e
}
