package http2_test

import (
	"bytes"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/enginetest"
	own "github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/http2"
)

func TestHTTP2_a_client_that_does_not_read_is_not_read_for(t *testing.T) {
	f, app := enginetest.WithApp(t)
	accepted := make(chan *enginetest.Frames)
	go func() { accepted <- enginetest.AcceptHTTP2(t, app) }()
	c, _ := f.DialHTTP2(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	s := <-accepted
	c.Get(1, true)
	id := s.NextHeaders().StreamID
	s.Headers(id, false, ":status", "200")
	c.NextHeaders()
	for range own.StreamWindow / (1 << 14) {
		_ = s.WriteData(id, false, make([]byte, 1<<14))
	}
	s.Silent() // no window update
	c.Silent()
	_ = c.WriteWindowUpdate(1, 10)
	if got, _ := c.NextData(); len(got) != 10 {
		t.Errorf("got %d bytes", len(got))
	}
	_ = c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 5})
	if got, _ := c.NextData(); len(got) != 5 {
		t.Errorf("got %d bytes", len(got))
	}
	_ = c.WriteWindowUpdate(1, 1<<20)
	for got := 15; got < own.StreamWindow-1; {
		data, _ := c.NextData()
		got += len(data)
	}
}

func TestHTTP2_an_app_that_goes_away_lets_the_client_go(t *testing.T) {
	_, c, app, fork, _ := enginetest.ConnectedHTTP2(t)
	c.Get(3, true)
	a := app.NextHeaders().StreamID
	c.Get(5, true, "x-to", "fork")
	b := fork.NextHeaders().StreamID
	_ = app.WriteGoAway(a, http2.ErrCodeNo, nil)
	if last, code := c.NextGoAway(); last != 1<<31-1 || code != http2.ErrCodeNo {
		t.Errorf("got %d %v", last, code)
	}
	if last, _ := c.NextGoAway(); last != 5 {
		t.Errorf("got %d", last)
	}
	app.Headers(a, true, ":status", "201")
	if h := c.NextHeaders(); h.PseudoValue("status") != "201" {
		t.Errorf("got %v", h)
	}
	fork.Headers(b, true, ":status", "202")
	if h := c.NextHeaders(); h.PseudoValue("status") != "202" {
		t.Errorf("got %v", h)
	}
	c.End()
}

func TestHTTP2_a_fork_that_goes_away_is_dialed_again(t *testing.T) {
	_, c, _, fork, forks := enginetest.ConnectedHTTP2(t)
	c.Get(3, true, "x-to", "fork")
	c.Post(5, false, "x-to", "fork")
	c.Get(7, true, "x-to", "fork", "x-id", "7")
	id := fork.NextHeaders().StreamID
	fork.NextHeaders()
	fork.NextHeaders()
	_ = fork.WriteGoAway(id, http2.ErrCodeNo, nil)
	if r, ok := c.Next().(*http2.RSTStreamFrame); !ok || r.StreamID != 5 || r.ErrCode != http2.ErrCodeRefusedStream {
		t.Errorf("got %v", r) // its body may be gone: the client may try again
	}
	again := enginetest.AcceptHTTP2(t, forks)
	if h := again.NextHeaders(); h.RegularFields()[1].Value != "7" {
		t.Errorf("got %v", h)
	}
	fork.Headers(id, true, ":status", "204")
	if h := c.NextHeaders(); h.StreamID != 3 {
		t.Errorf("got %v", h)
	}
	fork.NextGoAway()
	fork.End()
}

// fieldOf returns a field of a head, pseudo-fields included.
func fieldOf(h *http2.MetaHeadersFrame, name string) string {
	for _, hf := range h.Fields {
		if hf.Name == name {
			return hf.Value
		}
	}
	return ""
}

func TestHTTP2_a_fork_that_fails(t *testing.T) {
	t.Run("by ending the connection before it answers", func(t *testing.T) {
		f, c, _, fork, _ := enginetest.ConnectedHTTP2(t)
		c.Post(3, true, "x-to", "fork")
		fork.NextHeaders()
		_ = fork.Close()
		if h := c.NextHeaders(); fieldOf(h, ":status") != "503" || !strings.HasPrefix(fieldOf(h, "x-sandbox-error"), "the fork: ") {
			t.Errorf("got %v", h)
		}
		if body, end := c.NextData(); !strings.HasPrefix(body, "the fork: ") || !end {
			t.Errorf("got %q", body)
		}
		if n := f.Decider.Observer.Count(engine.Broken); n != 1 {
			t.Errorf("counted %d", n)
		}
	})
	t.Run("by ending the connection before it answers a call of gRPC", func(t *testing.T) {
		_, c, _, fork, _ := enginetest.ConnectedHTTP2(t)
		c.Post(5, false, "x-to", "fork", "content-type", "application/grpc+proto")
		fork.NextHeaders()
		_ = fork.Close()
		h := c.NextHeaders()
		if fieldOf(h, ":status") != "200" || fieldOf(h, "grpc-status") != "14" || !h.StreamEnded() {
			t.Errorf("got %v", h)
		}
		if m := fieldOf(h, "grpc-message"); !strings.HasPrefix(m, "the fork: ") || m != fieldOf(h, "x-sandbox-error") {
			t.Errorf("got %q", m)
		}
		if code := c.NextReset(); code != http2.ErrCodeNo {
			t.Errorf("got %v", code)
		}
	})
	t.Run("in the middle of an answer", func(t *testing.T) {
		_, c, _, fork, _ := enginetest.ConnectedHTTP2(t)
		c.Post(3, true, "x-to", "fork", "content-type", "application/grpc")
		id := fork.NextHeaders().StreamID
		fork.Headers(id, false, ":status", "200", "content-type", "application/grpc")
		_ = fork.WriteData(id, false, []byte("part"))
		c.NextHeaders()
		c.NextData()
		_ = fork.Close()
		if h := c.NextHeaders(); fieldOf(h, "grpc-status") != "14" || !h.StreamEnded() {
			t.Errorf("got %v", h)
		}
	})
	t.Run("in the middle of an answer that is no gRPC", func(t *testing.T) {
		_, c, app, fork, _ := enginetest.ConnectedHTTP2(t)
		c.Get(3, true)
		app.NextHeaders()
		c.Get(5, true, "x-to", "fork")
		id := fork.NextHeaders().StreamID
		fork.Headers(id, false, ":status", "200")
		c.NextHeaders()
		_ = fork.Close()
		if code := c.NextReset(); code != http2.ErrCodeInternal {
			t.Errorf("got %v", code)
		}
	})
	t.Run("by an answer that breaks the protocol", func(t *testing.T) {
		_, c, _, fork, _ := enginetest.ConnectedHTTP2(t)
		c.Get(3, true, "x-to", "fork")
		id := fork.NextHeaders().StreamID
		fork.Headers(id, true, "status", "200")
		if h := c.NextHeaders(); fieldOf(h, ":status") != "503" {
			t.Errorf("got %v", h)
		}
		if code := fork.NextReset(); code != http2.ErrCodeProtocol {
			t.Errorf("got %v", code)
		}
	})
}

func TestHTTP2_a_fork_that_can_not_be_used(t *testing.T) {
	t.Run("because it speaks HTTP/1 alone", func(t *testing.T) {
		h1 := enginetest.Record(t, "fork")
		f, _, _ := enginetest.WithAppAndFork(t)
		f.Decider.Named["fork"] = enginetest.BackendAt("fork", h1.Listener)
		c, _ := f.DialHTTP2()
		c.Get(1, true, "x-to", "fork")
		if h := c.NextHeaders(); fieldOf(h, ":status") != "503" || !strings.Contains(fieldOf(h, "x-sandbox-error"), "does not speak HTTP/2") {
			t.Errorf("got %v", h)
		}
	})
	t.Run("by being silent", func(t *testing.T) {
		f, _, _ := enginetest.WithAppAndFork(t)
		b := f.Decider.Named["fork"]
		b.Timeout = 50 * time.Millisecond
		f.Decider.Named["fork"] = b
		c, _ := f.DialHTTP2()
		c.Get(1, true, "x-to", "fork")
		if h := c.NextHeaders(); fieldOf(h, ":status") != "503" {
			t.Errorf("got %v", h)
		}
	})
	t.Run("with one pod of two", func(t *testing.T) {
		f, _, fork := enginetest.WithAppAndFork(t)
		dead := enginetest.Listen(t)
		f.Decider.Named["dead"] = enginetest.BackendAt("dead", dead)
		_ = dead.Close()
		c, _ := f.DialHTTP2()
		c.Get(1, true, "x-to", "dead,fork")
		enginetest.AcceptHTTP2(t, fork).NextHeaders()
	})
	t.Run("while a stale connection to it is used", func(t *testing.T) {
		_, c, _, fork, forks := enginetest.ConnectedHTTP2(t)
		c.Get(3, true, "x-to", "fork")
		fork.NextHeaders()
		_ = fork.Close()
		again := enginetest.AcceptHTTP2(t, forks)
		again.Headers(again.NextHeaders().StreamID, true, ":status", "204")
		if h := c.NextHeaders(); fieldOf(h, ":status") != "204" {
			t.Errorf("got %v", h)
		}
	})
}

func TestHTTP2_an_app_that_refuses_looks_refused(t *testing.T) {
	f, app, fork := enginetest.WithAppAndFork(t)
	_ = app.Close()
	c, _ := f.DialHTTP2()
	c.Get(1, true, "x-to", "fork")
	s := enginetest.AcceptHTTP2(t, fork)
	id := s.NextHeaders().StreamID
	c.Get(3, true) // others are in flight: they end first
	if r, ok := c.Next().(*http2.RSTStreamFrame); !ok || r.StreamID != 3 || r.ErrCode != http2.ErrCodeRefusedStream {
		t.Errorf("got %v", r)
	}
	c.NextGoAway()
	s.Headers(id, true, ":status", "200")
	for {
		if h, ok := c.Next().(*http2.MetaHeadersFrame); ok {
			if h.StreamID != 1 {
				t.Errorf("got %v", h)
			}
			break
		}
	}
	c, _ = f.DialHTTP2()
	c.Get(1, true)
	for {
		if _, err := c.ReadFrame(); err != nil {
			break
		}
	}
}

func TestHTTP2_refusals_are_answers(t *testing.T) {
	f, _, _ := enginetest.WithAppAndFork(t)
	c, _ := f.DialHTTP2()
	c.Get(1, true, "x-refuse", "for a reason")
	if h := c.NextHeaders(); h.PseudoValue("status") != "503" {
		t.Errorf("got %v", h)
	}
	if body, end := c.NextData(); body != "for a reason\n" || !end {
		t.Errorf("got %q", body)
	}
	c.Headers(3, true, ":method", "HEAD", ":scheme", "http", ":authority", "a", ":path", "/", "x-refuse", "for a reason")
	if h := c.NextHeaders(); !h.StreamEnded() {
		t.Errorf("got %v", h)
	}
	c.Get(5, true, "x-refuse", "nö: 5%", "content-type", "application/grpc")
	for _, hf := range c.NextHeaders().Fields {
		if hf.Name == "grpc-message" && hf.Value != "n?: 5%25" {
			t.Errorf("got %q", hf.Value)
		}
	}
}

func TestHTTP2_clients_that_cost_more_than_they_may_are_dropped(t *testing.T) {
	for name, attack := range map[string]func(c *enginetest.Frames, i int){
		"streams made to be reset": func(c *enginetest.Frames, i int) {
			c.Get(uint32(2*i+1), false)
			_ = c.WriteWindowUpdate(uint32(2*i+1), 1<<31-1)
		},
		"empty frames": func(c *enginetest.Frames, i int) {
			if i == 0 {
				c.Post(1, false)
			}
			_ = c.WriteData(1, false, nil)
		},
		"heads on streams that are over": func(c *enginetest.Frames, i int) {
			if i == 0 {
				c.Get(1, true)
				_ = c.WriteRSTStream(1, http2.ErrCodeCancel)
			}
			c.Headers(1, true, "x", "y")
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := enginetest.Serve(t, engine.Options{Linger: time.Second}, &enginetest.ByHeader{App: enginetest.BackendAt("app", enginetest.HTTP2Server(t, func(_ http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
			}))})
			c, _ := f.DialHTTP2()
			go func() {
				defer func() { _ = c.Peer.Conn.(*net.TCPConn).CloseWrite() }()
				for i := range 20_000 {
					attack(c, i)
				}
			}()
			for {
				fr, err := c.ReadFrame()
				if err != nil {
					t.Fatalf("no GOAWAY before %v", err)
				}
				if g, ok := fr.(*http2.GoAwayFrame); ok {
					if g.ErrCode != http2.ErrCodeEnhanceYourCalm {
						t.Errorf("got %v", g.ErrCode)
					}
					return
				}
			}
		})
	}
}

func TestHTTP2_pings_that_nobody_reads_the_answers_of_end_the_connection(t *testing.T) {
	f, _ := enginetest.WithApp(t)
	c, _ := f.DialHTTP2()
	for {
		if err := c.WritePing(false, [8]byte{1}); err != nil {
			return
		}
	}
}

func TestHTTP2_heads_that_are_too_long(t *testing.T) {
	f, _ := enginetest.WithApp(t)
	c, _ := f.DialHTTP2()
	long := []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}
	for i := range 300 {
		long = append(long, "x-"+strconv.Itoa(i), strings.Repeat("x", 1000))
	}
	write := func(id uint32, pairs []string) {
		c.Block.Reset()
		for i := 0; i < len(pairs); i += 2 {
			_ = c.Encoder.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1], Sensitive: true})
		}
		block := c.Block.Bytes()
		first := block[:1<<14]
		_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: true})
		for block = block[1<<14:]; len(block) > 0; {
			n := min(1<<14, len(block))
			_ = c.WriteContinuation(id, n == len(block), block[:n])
			block = block[n:]
		}
	}
	write(1, long)
	// 431, or the end of the connection where much more came than is read.
	if fr, ok := c.Next().(*http2.MetaHeadersFrame); ok && fr.PseudoValue("status") != "431" {
		t.Errorf("got %v", fr)
	}
	c, _ = f.DialHTTP2()
	go func() { // without end
		_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: nil, EndStream: true})
		for c.WriteContinuation(1, false, bytes.Repeat([]byte{0x00, 0x01, 'a', 0x01, 'b'}, 1000)) == nil {
		}
	}()
	for {
		if _, err := c.ReadFrame(); err != nil {
			return
		}
	}
}

func TestHTTP2_draining_lets_what_is_in_flight_end(t *testing.T) {
	f, c, app, _, _ := enginetest.ConnectedHTTP2(t)
	c.Get(3, true)
	id := app.NextHeaders().StreamID
	_ = f.Listener.Close()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		f.Drain(t.Context())
	}()
	c.NextGoAway()
	c.NextGoAway()
	c.Get(5, true)
	if code := c.NextReset(); code != http2.ErrCodeRefusedStream {
		t.Errorf("got %v", code)
	}
	app.Headers(id, true, ":status", "200")
	c.NextHeaders()
	c.End()
	_ = c.Close()
	<-drained
}

func TestHTTP2_connections_to_backends_that_are_gone_are_closed_when_they_are_idle(t *testing.T) {
	f, c, _, fork, forks := enginetest.ConnectedHTTP2(t)
	c.Get(3, true, "x-to", "fork")
	id := fork.NextHeaders().StreamID
	f.Retire(func(id string) bool { return id == "fork" })
	c.Get(5, true, "x-to", "fork")
	enginetest.AcceptHTTP2(t, forks).NextHeaders()
	fork.Headers(id, true, ":status", "204")
	if h := c.NextHeaders(); h.StreamID != 3 {
		t.Errorf("got %v", h)
	}
	fork.NextGoAway()
	fork.End()
}

func TestHTTP2_a_client_that_goes_goes_everywhere(t *testing.T) {
	f, c, app, fork, _ := enginetest.ConnectedHTTP2(t)
	c.Get(3, true)
	app.NextHeaders()
	_ = c.Close()
	for _, s := range []*enginetest.Frames{app, fork} {
		for {
			if _, err := s.ReadFrame(); err != nil {
				break
			}
		}
	}
	enginetest.Eventually(t, "the connection is forgotten", func() bool { return f.Stats.Open.Load() == 0 })
}

func TestHTTP2_what_a_peer_does_not_read_is_bounded(t *testing.T) {
	t.Run("heads of answers", func(t *testing.T) {
		long := strings.Repeat("x", 12<<10)
		var asked atomic.Int64
		f, apps := enginetest.WithApp(t)
		go func() {
			s := enginetest.AcceptHTTP2(t, apps)
			for {
				fr, err := s.ReadFrame()
				if err != nil {
					return
				}
				if h, ok := fr.(*http2.MetaHeadersFrame); ok {
					s.Headers(h.StreamID, true, ":status", "200", "x-long", long+strconv.FormatInt(asked.Add(1), 10))
				}
			}
		}()
		c, _ := f.DialHTTP2()
		go func() {
			for id := uint32(1); t.Context().Err() == nil; id += 2 { // and nothing is read
				for t.Context().Err() == nil && asked.Load() < int64(id)/2-50 {
					time.Sleep(time.Millisecond)
				}
				c.Get(id, true)
			}
		}()
		last := int64(-1)
		enginetest.Eventually(t, "no more is asked for", func() bool {
			now := asked.Load()
			defer func() { last = now; time.Sleep(500 * time.Millisecond) }()
			return now == last && now > 0
		})
		if last > 2000 { // what sockets hold, and a mebibyte
			t.Errorf("%d answers of 12 KiB are somewhere", last)
		}
	})
	t.Run("heads of requests", func(t *testing.T) {
		f, c, app, _, _ := enginetest.ConnectedHTTP2(t)
		frozen := enginetest.Listen(t) // accepts by its backlog, and reads nothing
		f.Decider.Named["frozen"] = enginetest.BackendAt("frozen", frozen)
		long := strings.Repeat("x", 12<<10)
		for id := uint32(3); ; id += 2 {
			c.Block.Reset()
			c.Get(id, true, "x-to", "frozen", "x-long", long+strconv.Itoa(int(id)))
			if id%100 == 1 { // what waits is refused, in time
				c.Get(id+2, true)
				id += 2
				app.Headers(app.NextHeaders().StreamID, true, ":status", "204")
				h := c.NextHeaders()
				if h.PseudoValue("status") == "503" {
					return
				}
				if int(id)/2*len(long) > own.MaxHeads {
					t.Fatal("too much is waiting")
				}
			}
		}
	})
}

func TestHTTP2_a_request_that_crosses_the_goodbye_of_an_app_that_ends_is_refused_by_itself(t *testing.T) {
	f, app, _ := enginetest.WithAppAndFork(t)
	c, _ := f.DialHTTP2()
	c.Get(1, true)
	a := enginetest.AcceptHTTP2(t, app)
	id := a.NextHeaders().StreamID
	_ = app.Close() // as a server does that shuts down in good order: it accepts no more, and ends what it has
	_ = a.WriteGoAway(id, http2.ErrCodeNo, nil)
	if last, _ := c.NextGoAway(); last != 1<<31-1 {
		t.Fatalf("got %d", last)
	}
	c.Get(3, true) // before it has heard the last of it
	ping, ok := c.Next().(*http2.PingFrame)
	if !ok {
		t.Fatalf("got %v, want PING", ping)
	}
	if code := c.NextReset(); code != http2.ErrCodeRefusedStream {
		t.Errorf("got %v", code)
	}
	_ = c.WritePing(true, ping.Data)
	if last, _ := c.NextGoAway(); last != 3 {
		t.Errorf("got %d", last)
	}
	a.Headers(id, true, ":status", "200")
	if h := c.NextHeaders(); h.StreamID != 1 || h.PseudoValue("status") != "200" {
		t.Errorf("got %v", h)
	}
	c.End()
}
