package router

import (
	"net/http"
	"testing"
)

func TestRouter_routes_every_request_of_one_connection_by_its_own_key(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocols *http.Protocols) {
		c := testConfig(t)
		u := startRouter(t, c)
		startPod(t, "app", "127.0.0.1", u.app, nil)
		startPod(t, "a", "127.0.0.2", u.app, nil)
		startPod(t, "b", "127.0.0.3", u.app, nil)
		u.setTable(table(1, map[string][]string{"a": {"127.0.0.2"}, "b": {"127.0.0.3"}}))
		client := newClient(t, protocols)
		for range 500 {
			for _, want := range []struct{ field, value, body, servedBy string }{
				{"X-Other", "1", "app", ""},
				{"X-Sandbox-Key", "a", "a", "fork-a-0"},
				{"Baggage", "x=1,sandbox-key=b", "b", "fork-b-0"},
				{"Tracestate", "sandbox-key=a", "a", "fork-a-0"},
				{"X-Sandbox-Key", "nobody", "app", "baseline-0"},
			} {
				resp, body := ask(t, client, "http://"+u.addr, want.field, want.value)
				if got := resp.Header.Get("X-Sandbox-Served-By"); body != want.body || got != want.servedBy {
					t.Fatalf("%s: %s reached %q (served by %q), want %q (%q)", want.field, want.value, body, got, want.body, want.servedBy)
				}
			}
		}
	})
}
