package http1

import (
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
)

// An answer of one's own may be a page.
func TestRefusal_WithBody(t *testing.T) {
	got := string(FormatRefusal(&engine.Refusal{Status: 401, Body: []byte("<p>"), Type: "text/html"}, false, true, false))
	want := "HTTP/1.1 401 Unauthorized\r\nContent-Type: text/html\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 3\r\n\r\n<p>"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
