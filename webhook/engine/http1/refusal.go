package http1

import (
	"strconv"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
)

// FormatRefusal returns the response r in HTTP/1.1. keep means that the connection continues; old that the request was
// HTTP/1.0.
func FormatRefusal(r *engine.Refusal, toHEAD, keep, old bool) []byte {
	body, mediaType := r.Content()
	b := append([]byte("HTTP/1.1 "), strconv.Itoa(r.Status)...)
	b = append(b, ' ')
	b = append(b, engine.StatusText(r.Status)...)
	b = append(b, "\r\nContent-Type: "...)
	b = append(b, mediaType...)
	b = append(b, "\r\nX-Content-Type-Options: nosniff\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\n"...)
	if r.Reason != "" {
		b = appendField(b, []byte(engine.ErrorHeader), []byte(engine.CleanReason(r.Reason)))
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
