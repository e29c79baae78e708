package proxy_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/enginetest"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/message"
)

func TestHeads_of_more_fields_than_servers_take_are_refused(t *testing.T) {
	app := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
	f := enginetest.Serve(t, engine.Options{}, &enginetest.ByHeader{App: enginetest.BackendAt("app", enginetest.HTTP2Server(t, app))})
	c, _ := f.DialHTTP2()
	fields := func(n int) (pairs []string) {
		for range n {
			pairs = append(pairs, "x", "")
		}
		return pairs
	}
	c.Get(1, true, fields(message.MaxFields+1)...)
	if h := c.NextHeaders(); h.PseudoValue("status") != "431" {
		t.Errorf("HTTP/2: got %v", h)
	}
	c.NextData()
	c.Get(3, true, fields(1000)...)
	if h := c.NextHeaders(); h.PseudoValue("status") != "204" {
		t.Errorf("HTTP/2: got %v", h)
	}
	one := enginetest.Serve(t, engine.Options{}, &enginetest.ByHeader{App: enginetest.BackendAt("app", enginetest.Record(t, "app").Listener)})
	for n, want := range map[int]int{message.MaxFields - 1: http.StatusOK, message.MaxFields: http.StatusRequestHeaderFieldsTooLarge} {
		p := one.Dial()
		p.Send("GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("x:\r\n", n) + "\r\n")
		if resp, _ := p.ReadAnswer("GET"); resp.StatusCode != want {
			t.Errorf("HTTP/1.1, %d fields: got %s", n, resp.Status)
		}
	}
}
