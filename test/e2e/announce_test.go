package e2e

import (
	"testing"
	"time"
)

// expectErrors announces that the test causes failures of the product's own, so that the audit at the suite's end lets them pass: error
// lines, restarts and failed reconciles whose text matches the pattern and that concern the namespace.
func (s *space) expectErrors(pattern, reason string) {
	s.t.Helper()
	if _, err := s.ledger.Announce(s.t.Name(), pattern, s.name, reason, time.Now()); err != nil {
		s.t.Fatal(err)
	}
}

// settleErrors is how long after a test what it broke may still be told of.
const settleErrors = 15 * time.Second

// expectErrorsAnywhere is expectErrors for a test that breaks what all namespaces share, as the API server. It covers the whole cluster
// until the test has ended, so such a test must not run in parallel with others.
func (w *world) expectErrorsAnywhere(t *testing.T, pattern, reason string) {
	t.Helper()
	end, err := w.ledger.Announce(t.Name(), pattern, "", reason, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(time.Now().Add(settleErrors)) })
}
