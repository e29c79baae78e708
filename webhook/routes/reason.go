package routes

import (
	"strings"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
)

// maxReason bounds a reason, in bytes: it is part of every table, and of the header x-sandbox-error.
const maxReason = 240

// reason returns why no pod of the fork can serve, as one short line of printable ASCII: "CODE: sentence".
func reason(f Fork, now time.Time) string {
	c := health.Fork(f.facts(now)).Cause()
	return line(string(c.Code) + ": " + c.Message)
}

// facts are the fork's own objects.
func (f Fork) facts(now time.Time) health.Facts {
	return health.Facts{Now: now, Deployment: f.Deployment, Revisions: f.Revisions, Pods: f.Pods}
}

// line turns s into one line of printable ASCII of at most maxReason bytes. Parts of it come from the authors of images
// and quotas, and it becomes a header's value.
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
