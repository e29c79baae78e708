package client_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/ordinary"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/ordinary/client"
)

const (
	baselines = `{"hostname":"api-1","message":"r0"}`
	forks     = `{"hostname":"api-pr-1","message":"forked-2"}`
)

func TestWhoAnsweredIsToldByTheAnswer(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status int
		header map[string]string
		body   string
		keyed  ordinary.Outcome
		plain  ordinary.Outcome
	}{
		{"the fork, and the router says so", 200, map[string]string{"x-sandbox-served-by": "api-pr-1"}, forks, ordinary.Served, ordinary.Stray},
		{"the fork, and the router says another", 200, map[string]string{"x-sandbox-served-by": "api-1"}, forks, ordinary.Failed, ordinary.Stray},
		{"the fork, and the router says nothing", 200, nil, forks, ordinary.Failed, ordinary.Stray},
		{"the baseline", 200, nil, baselines, ordinary.Baseline, ordinary.Served},
		{"the baseline, and the router says so", 200, map[string]string{"x-sandbox-served-by": "api-1"}, baselines, ordinary.Baseline, ordinary.Served},
		{"the router, with a reason", 503, map[string]string{"x-sandbox-error": "it crashes"}, "", ordinary.Refused, ordinary.Failed},
		{"the router, without a reason", 503, nil, "", ordinary.Failed, ordinary.Failed},
		{"another error", 500, nil, forks, ordinary.Failed, ordinary.Failed},
		{"another program", 200, nil, "hello", ordinary.Failed, ordinary.Failed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				for k, v := range tt.header {
					w.Header().Set(k, v)
				}
				w.WriteHeader(tt.status)
				_, _ = w.Write([]byte(tt.body))
			}))
			defer server.Close()
			for key, want := range map[string]ordinary.Outcome{"pr-1": tt.keyed, "": tt.plain} {
				all := send(t, server.Listener.Addr().String(), key, 2)
				if i := slices.IndexFunc(all, func(q ordinary.Request) bool { return q.Outcome != want }); i >= 0 {
					t.Errorf("with key %q: %s (%s), want %s", key, all[i].Outcome, all[i].Detail, want)
				}
			}
		})
	}
}

// send sends at least n requests and returns what became of them.
func send(t *testing.T, address, key string, n int) []ordinary.Request {
	t.Helper()
	c := &client.Client{Address: func() string { return address }, Key: key, Every: time.Millisecond}
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	var done sync.WaitGroup
	done.Go(func() { c.Run(ctx) })
	for len(c.Requests()) < n && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	stop()
	done.Wait()
	all := c.Requests()
	if len(all) < n {
		t.Fatalf("it sent %d requests", len(all))
	}
	if !slices.IsSortedFunc(all, func(a, b ordinary.Request) int { return a.At.Compare(b.At) }) {
		t.Error("they are not in order")
	}
	return all
}

func TestKeysAreCarriedInEachWayAndNothingWithoutAKey(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		for _, h := range []string{"x-sandbox-key", "baggage", "tracestate"} {
			if v := r.Header.Get(h); strings.HasSuffix(v, "pr-1") {
				seen[h]++
			}
		}
	}))
	defer server.Close()
	send(t, server.Listener.Addr().String(), "", 12)
	if len(seen) > 0 {
		t.Errorf("without a key it sent %v", seen)
	}
	send(t, server.Listener.Addr().String(), "pr-1", 12)
	if seen["x-sandbox-key"] < 2 || seen["baggage"] < 2 || seen["tracestate"] < 2 {
		t.Errorf("it sent %v", seen)
	}
}

func TestWithoutAnAddressRequestsFail(t *testing.T) {
	for _, q := range send(t, "", "", 2) {
		if q.Outcome != ordinary.Failed || q.Detail == "" {
			t.Errorf("%s %s", q.Outcome, q.Detail)
		}
	}
}
