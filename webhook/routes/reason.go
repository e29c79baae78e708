package routes

import (
	"strings"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
)

// maxReason bounds what travels in every table and in the answers' x-sandbox-error header, in bytes.
const maxReason = 240

// reason says in one short line of printable ASCII, "CODE: sentence", why no pod of the fork can serve.
func reason(f Fork, now time.Time) string {
	c := health.Fork(f.facts(now)).Cause()
	return line(string(c.Code) + ": " + c.Message)
}

// facts are what the cluster holds of the fork itself.
func (f Fork) facts(now time.Time) health.Facts {
	return health.Facts{Now: now, Deployment: f.Deployment, Revisions: f.Revisions, Pods: f.Pods}
}

// line makes s one line of printable ASCII of at most maxReason bytes: parts of it were written by whoever made the image
// or the quota, and it becomes a header's value.
func line(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, strings.TrimSpace(s))
	if len(s) > maxReason {
		s = s[:maxReason-3] + "..."
	}
	return s
}
