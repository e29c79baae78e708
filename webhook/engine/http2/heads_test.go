package http2_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/enginetest"
)

func TestHTTP2_many_requests_at_once_do_not_make_a_fork_look_hung(t *testing.T) {
	app := func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, len(r.Header.Get("x-long"))) }
	besideDirect(t, app, func(t *testing.T) net.Listener { return roomy(t, app) }, func(t *testing.T, addr string) {
		client := slowReader(t)
		ctx, cancel := enginetest.ContextWithTimeout(t, 3*enginetest.StepTimeout)
		defer cancel()
		warm, err := client.Get("http://" + addr) // so that there is one connection
		if err != nil {
			t.Fatal(err)
		}
		_ = warm.Body.Close()
		var pool sync.WaitGroup
		for range 400 {
			req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr, nil)
			req.Header.Set("x-to", "fork")
			req.Header.Set("x-long", strings.Repeat("x", 16<<10))
			pool.Go(func() {
				resp, err := client.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					t.Errorf("got %s: %s", resp.Status, resp.Header.Get("x-sandbox-error"))
				}
			})
		}
		pool.Wait()
	})
}

func TestHTTP2_a_backend_that_takes_few_streams_is_not_accused_while_it_reads(t *testing.T) {
	_, c, _, fork, _ := enginetest.ConnectedHTTP2(t, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	long := strings.Repeat("x", 12<<10)
	last := uint32(203)
	for id := uint32(3); id <= last; id += 2 {
		c.Get(id, true, "x-to", "fork", "x-long", long)
	}
	c.Sync() // all of them are here, and none has an answer
	for id := uint32(3); id <= last; id += 2 {
		fork.Headers(fork.NextHeaders().StreamID, true, ":status", "204")
		if h := c.NextHeaders(); h.StreamID != id || h.PseudoValue("status") != "204" {
			t.Fatalf("got %v", h)
		}
	}
}
