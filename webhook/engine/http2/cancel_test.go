package http2_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/enginetest"
)

func TestHTTP2_calls_that_run_into_their_deadlines_end_no_connection(t *testing.T) {
	var release sync.WaitGroup
	app := func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			enginetest.Echo(w, r)
		case "/bystander":
			release.Wait()
		default:
			<-r.Context().Done()
		}
	}
	for _, to := range []string{"the app", "fork"} {
		t.Run("at "+to, func(t *testing.T) {
			besideDirect(t, app, func(t *testing.T) net.Listener { return roomy(t, app) }, func(t *testing.T, addr string) {
				client := slowReader(t)
				release.Add(1)
				var bystanders, callers sync.WaitGroup
				for range 50 {
					bystanders.Go(func() {
						resp, err := client.Get("http://" + addr + "/bystander")
						if err != nil {
							t.Error(err)
							return
						}
						_ = resp.Body.Close()
					})
				}
				for range 100 {
					callers.Go(func() {
						for range 32 {
							ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
							req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr, nil)
							if to == "fork" {
								req.Header.Set("x-to", "fork")
							}
							if _, err := client.Do(req); !errors.Is(err, context.DeadlineExceeded) {
								t.Errorf("got %v", err)
							}
							cancel()
						}
					})
				}
				callers.Wait()
				release.Done()
				bystanders.Wait()
				bystander(t, client, addr)
			})
		})
	}
}

func TestHTTP2_a_backend_never_works_on_more_cancelled_requests_than_it_takes(t *testing.T) {
	_, c, app, fork, _ := enginetest.ConnectedHTTP2(t, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 3})
	for id := uint32(3); id < 6_003; id += 2 {
		c.Get(id, true, "x-to", "fork")
		_ = c.WriteRSTStream(id, http2.ErrCodeCancel)
	}
	c.Sync()
	opened := 0
	for range 3 + 3 + 1 { // what asks is not acknowledged yet
		switch fr := fork.ReadNext().(type) {
		case *http2.MetaHeadersFrame:
			opened++
		case *http2.RSTStreamFrame, *http2.SettingsFrame:
		default:
			t.Errorf("got %v", fr)
		}
	}
	if opened != 3 {
		t.Errorf("%d were opened", opened)
	}
	c.Get(6_003, true, "x-to", "fork", "x-id", "waits")
	c.Get(6_005, true)
	app.Headers(app.NextHeaders().StreamID, true, ":status", "204") // nobody else waits
	if h := c.NextHeaders(); h.StreamID != 6_005 {
		t.Errorf("got %v", h)
	}
	fork.Silent()
	_ = fork.WriteSettingsAck()
	h := fork.NextHeaders()
	if len(h.Fields) < 6 || h.Fields[5].Value != "waits" {
		t.Errorf("got %v", h.Fields)
	}
	fork.Headers(h.StreamID, true, ":status", "204")
	if h := c.NextHeaders(); h.StreamID != 6_003 {
		t.Errorf("got %v", h)
	}
}

func TestHTTP2_an_answer_tells_that_resets_before_its_request_were_heard(t *testing.T) {
	_, c, _, fork, _ := enginetest.ConnectedHTTP2(t, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 6})
	id := uint32(3)
	for range 20 {
		for range 2 {
			c.Get(id, true, "x-to", "fork")
			fork.NextHeaders()
			_ = c.WriteRSTStream(id, http2.ErrCodeCancel)
			fork.NextReset()
			id += 2
		}
		c.Get(id, true, "x-to", "fork")
		fork.Headers(fork.NextHeaders().StreamID, true, ":status", "204")
		c.NextHeaders()
		id += 2
	}
}

func TestHTTP2_what_was_under_way_on_a_stream_that_was_reset_is_not_held_against_the_client(t *testing.T) {
	_, c, app, fork, _ := enginetest.ConnectedHTTP2(t)
	for id := uint32(3); id < 4803; id += 2 {
		c.Post(id, false, "x-to", "fork")
		_ = fork.WriteRSTStream(fork.NextHeaders().StreamID, http2.ErrCodeRefusedStream)
		c.NextReset()
		_ = c.WriteData(id, true, make([]byte, 10))
		if code := c.NextReset(); code != http2.ErrCodeStreamClosed {
			t.Fatalf("got %v", code)
		}
	}
	c.Get(4803, true)
	app.NextHeaders()
}
