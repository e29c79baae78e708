package engine

import (
	"net/http"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// ErrorHeader is the field that says why the engine responded itself.
const ErrorHeader = sandbox.HeaderError

// A Refusal is a response that the engine creates.
type Refusal struct {
	// Status is the response's status code. Zero: no response; the connection ends like a refused or broken one.
	Status int
	// Reason is for people: the body, and the header x-sandbox-error. Empty: no such header.
	Reason string
	// Body, if not nil, replaces Reason as the body; Type is its media type. gRPC clients get the Reason.
	Body []byte
	Type string
	// Print, if not nil, creates Body and Type from the Reason when they are needed. Any goroutine may call it.
	Print func(reason string) (body []byte, mediaType string)
	// Fields are set in the response's head.
	Fields []Field
}

// Content returns the response's body and its media type.
func (r *Refusal) Content() (body []byte, mediaType string) {
	if r.Print != nil {
		return r.Print(CleanReason(r.Reason))
	}
	if r.Body != nil {
		return r.Body, r.Type
	}
	return []byte(CleanReason(r.Reason) + "\n"), "text/plain; charset=utf-8"
}

// CleanReason makes a reason valid in a header field: one line of visible ASCII of bounded length.
func CleanReason(s string) string {
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

// StatusText returns the reason phrase of a status code.
func StatusText(code int) string { return http.StatusText(code) }
