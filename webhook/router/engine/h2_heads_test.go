package engine

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

func TestHTTP2_many_requests_at_once_do_not_make_a_fork_look_hung(t *testing.T) {
	app := func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, len(r.Header.Get("x-long"))) }
	besideDirect(t, app, func(t *testing.T) net.Listener { return roomy(t, app) }, func(t *testing.T, addr string) {
		client := slowReader(t)
		ctx, cancel := contextWithTimeout(t, 3*patience)
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
	_, c, _, fork, _ := h2two(t, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	long := strings.Repeat("x", 12<<10)
	last := uint32(203)
	for id := uint32(3); id <= last; id += 2 {
		c.get(id, true, "x-to", "fork", "x-long", long)
	}
	c.sync() // all of them are here, and none has an answer
	for id := uint32(3); id <= last; id += 2 {
		fork.headers(fork.nextHeaders().StreamID, true, ":status", "204")
		if h := c.nextHeaders(); h.StreamID != id || h.PseudoValue("status") != "204" {
			t.Fatalf("got %v", h)
		}
	}
}

func TestHTTP2_heads_that_wait_are_bounded_and_leave_room_for_other_backends(t *testing.T) {
	r := &h2{}
	up, other := &h2Up{r: r}, &h2Up{r: r}
	n := 0
	for ; up.accept(&h2Stream{size: 16 << 10}) == nil; n++ {
	}
	if n < 1000 || up.held > maxHeads*2/3+(16<<10) {
		t.Errorf("%d heads of %d bytes wait", n, up.held)
	}
	if err := other.accept(&h2Stream{size: 16 << 10}); err != nil {
		t.Error(err)
	}
	if err := up.accept(&h2Stream{}); err == nil || strings.Contains(err.Error(), "does not read") {
		t.Errorf("got %v", err)
	}
	up.hold(-up.held)
	up.h2Conn = &h2Conn{writing: time.Now().Add(-stuckAfter / 2)}
	up.held = maxQueued
	if err := up.accept(&h2Stream{size: 1}); err != nil {
		t.Error(err)
	}
	up.writing = time.Now().Add(-2 * stuckAfter)
	if err := up.accept(&h2Stream{size: 1}); err == nil || !strings.Contains(err.Error(), "does not read what it is sent") {
		t.Errorf("got %v", err)
	}
}

func TestHeads_of_more_fields_than_servers_take_are_refused(t *testing.T) {
	app := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
	f := serve(t, Options{}, &byHeader{app: backendAt("app", h2server(t, app))})
	c, _ := f.h2dial()
	fields := func(n int) (pairs []string) {
		for range n {
			pairs = append(pairs, "x", "")
		}
		return pairs
	}
	c.get(1, true, fields(maxFields+1)...)
	if h := c.nextHeaders(); h.PseudoValue("status") != "431" {
		t.Errorf("HTTP/2: got %v", h)
	}
	c.nextData()
	c.get(3, true, fields(1000)...)
	if h := c.nextHeaders(); h.PseudoValue("status") != "204" {
		t.Errorf("HTTP/2: got %v", h)
	}
	one := serve(t, Options{}, &byHeader{app: backendAt("app", record(t, "app").l)})
	for n, want := range map[int]int{maxFields - 1: http.StatusOK, maxFields: http.StatusRequestHeaderFieldsTooLarge} {
		p := one.dial()
		p.send("GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("x:\r\n", n) + "\r\n")
		if resp, _ := p.answer("GET"); resp.StatusCode != want {
			t.Errorf("HTTP/1.1, %d fields: got %s", n, resp.Status)
		}
	}
}
