package http2_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/enginetest"
	own "github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/http2"
)

// bystander asks for what has nothing to do with a connection's other streams: a short request and one with a body, a
// few times.
func bystander(t *testing.T, client *http.Client, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.StepTimeout)
	defer cancel()
	for i := range 10 {
		body := bytes.Repeat([]byte("b"), 10_000*i)
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/echo", bytes.NewReader(body))
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		got, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || !bytes.Equal(got, body) {
			t.Fatalf("request %d: got %d bytes of %d (%v)", i, len(got), len(body), err)
		}
	}
}

// roomy is a server of HTTP/2 that lets nobody wait for anybody else.
func roomy(t *testing.T, handler http.HandlerFunc) net.Listener {
	l := enginetest.Listen(t)
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Handler: handler, Protocols: p,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 5000, MaxReceiveBufferPerConnection: 1 << 30, MaxReceiveBufferPerStream: 64 << 10},
	}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return l
}

// slowReader is a client of one connection that takes 64 KiB of each answer that is not read.
func slowReader(t *testing.T) *http.Client {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: p, DisableCompression: true, HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// besideDirect runs a test with an engine between client and app, and without. An app serves requests with x-to itself,
// where the engine is not there to send them to the fork.
func besideDirect(t *testing.T, app http.HandlerFunc, fork func(t *testing.T) net.Listener, test func(t *testing.T, addr string)) {
	t.Run("without the engine", func(t *testing.T) { test(t, roomy(t, app).Addr().String()) })
	t.Run("with the engine", func(t *testing.T) {
		f := enginetest.Serve(t, engine.Options{}, &enginetest.ByHeader{
			App: enginetest.BackendAt("app", roomy(t, app)), Named: map[string]engine.Backend{"fork": enginetest.BackendAt("fork", fork(t))},
		})
		test(t, f.Addr)
	})
}

// hung serves echoes, and does not read what is sent to the fork.
func hung(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("x-to") != "" {
		<-r.Context().Done()
		return
	}
	enginetest.Echo(w, r)
}

// hungFork accepts connections, says what HTTP/2 has it say, and reads nothing.
func hungFork(t *testing.T) net.Listener {
	l := enginetest.Listen(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
			_ = http2.NewFramer(c, nil).WriteSettings()
		}
	}()
	return l
}

func TestHTTP2_uploads_to_a_fork_that_does_not_read_hold_up_nobody_else(t *testing.T) {
	for _, c := range []struct{ calls, size int }{{100, 128 << 10}, {500, 16 << 10}} {
		t.Run(fmt.Sprintf("%d of %d bytes", c.calls, c.size), func(t *testing.T) {
			besideDirect(t, hung, hungFork, func(t *testing.T, addr string) {
				client := slowReader(t)
				bystander(t, client, addr)
				ctx, cancel := context.WithCancel(t.Context())
				var pool sync.WaitGroup
				defer pool.Wait()
				defer cancel()
				sent := make(chan struct{}, c.calls)
				for range c.calls {
					body := &notifyingReader{Reader: bytes.NewReader(make([]byte, c.size)), read: func() { sent <- struct{}{} }}
					req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr, body)
					req.ContentLength = int64(c.size)
					req.Header.Set("x-to", "fork")
					pool.Go(func() {
						if resp, err := client.Do(req); err == nil {
							_ = resp.Body.Close()
						}
					})
				}
				for range c.calls {
					<-sent
				}
				bystander(t, client, addr)
			})
		})
	}
}

// notifyingReader calls read at its first Read.
type notifyingReader struct {
	io.Reader
	once sync.Once
	read func()
}

func (r *notifyingReader) Read(b []byte) (int, error) {
	r.once.Do(r.read)
	return r.Reader.Read(b)
}

func TestHTTP2_answers_that_nobody_reads_hold_up_no_others(t *testing.T) {
	app := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/echo" {
			enginetest.Echo(w, r)
			return
		}
		_, _ = w.Write(make([]byte, 256<<10))
	}
	for _, to := range []string{"the app", "fork"} {
		t.Run("from "+to, func(t *testing.T) {
			besideDirect(t, app, func(t *testing.T) net.Listener { return roomy(t, app) }, func(t *testing.T, addr string) {
				client := slowReader(t)
				ctx, cancel := enginetest.ContextWithTimeout(t, 2*enginetest.StepTimeout)
				defer cancel()
				for range 100 {
					req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr, nil)
					if to == "fork" {
						req.Header.Set("x-to", "fork")
					}
					resp, err := client.Do(req)
					if err != nil {
						t.Fatal(err)
					}
					defer resp.Body.Close()
				}
				bystander(t, client, addr)
			})
		})
	}
}

func TestHTTP2_a_client_that_minds_no_window_of_streams_makes_no_more_held_than_the_bound(t *testing.T) {
	_, c, _, fork, _ := enginetest.ConnectedHTTP2(t)
	granted, streams := own.ConnWindow-65535, uint32(0) // read with the preface's other frames
	for id := uint32(3); id < 403; id += 2 {
		c.Post(id, false, "x-to", "fork")
		fork.NextHeaders()
		streams = id
	}
	_ = c.SetDeadline(time.Now().Add(2 * enginetest.StepTimeout))
	settle := func() { // until the engine has taken in all that was sent
		_ = c.WritePing(false, [8]byte{1})
		for {
			switch fr := c.ReadNext().(type) {
			case *http2.WindowUpdateFrame:
				if fr.StreamID == 0 {
					granted += int(fr.Increment)
				}
			case *http2.SettingsFrame:
			case *http2.PingFrame:
				return
			default:
				t.Fatalf("got %v", fr)
			}
		}
	}
	sent := 0
	for id := uint32(3); id <= streams; id += 2 {
		for range own.StreamWindow / own.MaxFrame {
			if granted+65535-sent < own.MaxFrame {
				settle()
			}
			if granted+65535-sent < own.MaxFrame {
				if sent > own.MaxHold+65535 || sent < own.MaxHold-own.ConnWindow/4-own.MaxFrame {
					t.Errorf("%d bytes were taken", sent)
				}
				return
			}
			_ = c.WriteData(id, false, make([]byte, own.MaxFrame))
			sent += own.MaxFrame
		}
	}
	t.Errorf("all of %d bytes were taken", sent)
}
