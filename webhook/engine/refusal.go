package engine

import (
	"net/http"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// ErrorHeader is the field that says why the engine answered by itself.
const ErrorHeader = sandbox.HeaderError

// A Refusal is an answer of the engine's own.
type Refusal struct {
	// Status is the answer's status code. Zero: no answer; the connection ends as one that was refused or broken would.
	Status int
	// Reason is for people: the body, and the header x-sandbox-error. Empty: no such header.
	Reason string
	// Body, where it is not nil, takes the place of Reason as the body; Type is its media type. Callers of gRPC get the
	// Reason.
	Body []byte
	Type string
	// Print, where it is not nil, makes Body and Type when they are needed, of the Reason. It may be called from any
	// goroutine.
	Print func(reason string) (body []byte, mediaType string)
	// Fields are set in the answer's head.
	Fields []Field
}

// Content returns the body of the answer r, and its media type.
func (r *Refusal) Content() (body []byte, mediaType string) {
	if r.Print != nil {
		return r.Print(CleanReason(r.Reason))
	}
	if r.Body != nil {
		return r.Body, r.Type
	}
	return []byte(CleanReason(r.Reason) + "\n"), "text/plain; charset=utf-8"
}

// CleanReason makes a reason fit for a header field: one line of visible ASCII, not endless.
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

// StatusText returns the phrase that goes with a status code.
func StatusText(code int) string { return http.StatusText(code) }
