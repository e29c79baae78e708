package engine

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
)

func TestHTTP2_a_client_that_does_not_read_is_not_read_for(t *testing.T) {
	f, app := one(t)
	accepted := make(chan *frames)
	go func() { accepted <- h2accept(t, app) }()
	c, _ := f.h2dial(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	s := <-accepted
	c.get(1, true)
	id := s.nextHeaders().StreamID
	s.headers(id, false, ":status", "200")
	c.nextHeaders()
	for range streamWindow / (1 << 14) {
		_ = s.WriteData(id, false, make([]byte, 1<<14))
	}
	s.silent() // no window update
	c.silent()
	_ = c.WriteWindowUpdate(1, 10)
	if got, _ := c.nextData(); len(got) != 10 {
		t.Errorf("got %d bytes", len(got))
	}
	_ = c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 5})
	if got, _ := c.nextData(); len(got) != 5 {
		t.Errorf("got %d bytes", len(got))
	}
	_ = c.WriteWindowUpdate(1, 1<<20)
	for got := 15; got < streamWindow-1; {
		data, _ := c.nextData()
		got += len(data)
	}
}

func TestHTTP2_an_app_that_goes_away_lets_the_client_go(t *testing.T) {
	_, c, app, fork, _ := h2two(t)
	c.get(3, true)
	a := app.nextHeaders().StreamID
	c.get(5, true, "x-to", "fork")
	b := fork.nextHeaders().StreamID
	_ = app.WriteGoAway(a, http2.ErrCodeNo, nil)
	if last, code := c.nextGoAway(); last != 1<<31-1 || code != http2.ErrCodeNo {
		t.Errorf("got %d %v", last, code)
	}
	if last, _ := c.nextGoAway(); last != 5 {
		t.Errorf("got %d", last)
	}
	app.headers(a, true, ":status", "201")
	if h := c.nextHeaders(); h.PseudoValue("status") != "201" {
		t.Errorf("got %v", h)
	}
	fork.headers(b, true, ":status", "202")
	if h := c.nextHeaders(); h.PseudoValue("status") != "202" {
		t.Errorf("got %v", h)
	}
	c.end()
}

func TestHTTP2_a_fork_that_goes_away_is_dialed_again(t *testing.T) {
	_, c, _, fork, forks := h2two(t)
	c.get(3, true, "x-to", "fork")
	c.post(5, false, "x-to", "fork")
	c.get(7, true, "x-to", "fork", "x-id", "7")
	id := fork.nextHeaders().StreamID
	fork.nextHeaders()
	fork.nextHeaders()
	_ = fork.WriteGoAway(id, http2.ErrCodeNo, nil)
	if r, ok := c.next().(*http2.RSTStreamFrame); !ok || r.StreamID != 5 || r.ErrCode != http2.ErrCodeRefusedStream {
		t.Errorf("got %v", r) // its body may be gone: the client may try again
	}
	again := h2accept(t, forks)
	if h := again.nextHeaders(); h.RegularFields()[1].Value != "7" {
		t.Errorf("got %v", h)
	}
	fork.headers(id, true, ":status", "204")
	if h := c.nextHeaders(); h.StreamID != 3 {
		t.Errorf("got %v", h)
	}
	fork.nextGoAway()
	fork.end()
}

func TestHTTP2_a_fork_that_fails(t *testing.T) {
	status := func(h *http2.MetaHeadersFrame, name string) string {
		for _, hf := range h.Fields {
			if hf.Name == name {
				return hf.Value
			}
		}
		return ""
	}
	t.Run("by ending the connection before it answers", func(t *testing.T) {
		f, c, _, fork, _ := h2two(t)
		c.post(3, true, "x-to", "fork")
		fork.nextHeaders()
		_ = fork.Close()
		if h := c.nextHeaders(); status(h, ":status") != "503" || !strings.HasPrefix(status(h, "x-sandbox-error"), "the fork: ") {
			t.Errorf("got %v", h)
		}
		if body, end := c.nextData(); !strings.HasPrefix(body, "the fork: ") || !end {
			t.Errorf("got %q", body)
		}
		if n := f.d.observer.count(Broken); n != 1 {
			t.Errorf("counted %d", n)
		}
	})
	t.Run("by ending the connection before it answers a call of gRPC", func(t *testing.T) {
		_, c, _, fork, _ := h2two(t)
		c.post(5, false, "x-to", "fork", "content-type", "application/grpc+proto")
		fork.nextHeaders()
		_ = fork.Close()
		h := c.nextHeaders()
		if status(h, ":status") != "200" || status(h, "grpc-status") != "14" || !h.StreamEnded() {
			t.Errorf("got %v", h)
		}
		if m := status(h, "grpc-message"); !strings.HasPrefix(m, "the fork: ") || m != status(h, "x-sandbox-error") {
			t.Errorf("got %q", m)
		}
		if code := c.nextReset(); code != http2.ErrCodeNo {
			t.Errorf("got %v", code)
		}
	})
	t.Run("in the middle of an answer", func(t *testing.T) {
		_, c, _, fork, _ := h2two(t)
		c.post(3, true, "x-to", "fork", "content-type", "application/grpc")
		id := fork.nextHeaders().StreamID
		fork.headers(id, false, ":status", "200", "content-type", "application/grpc")
		_ = fork.WriteData(id, false, []byte("part"))
		c.nextHeaders()
		c.nextData()
		_ = fork.Close()
		if h := c.nextHeaders(); status(h, "grpc-status") != "14" || !h.StreamEnded() {
			t.Errorf("got %v", h)
		}
	})
	t.Run("in the middle of an answer that is no gRPC", func(t *testing.T) {
		_, c, app, fork, _ := h2two(t)
		c.get(3, true)
		app.nextHeaders()
		c.get(5, true, "x-to", "fork")
		id := fork.nextHeaders().StreamID
		fork.headers(id, false, ":status", "200")
		c.nextHeaders()
		_ = fork.Close()
		if code := c.nextReset(); code != http2.ErrCodeInternal {
			t.Errorf("got %v", code)
		}
	})
	t.Run("by an answer that breaks the protocol", func(t *testing.T) {
		_, c, _, fork, _ := h2two(t)
		c.get(3, true, "x-to", "fork")
		id := fork.nextHeaders().StreamID
		fork.headers(id, true, "status", "200")
		if h := c.nextHeaders(); status(h, ":status") != "503" {
			t.Errorf("got %v", h)
		}
		if code := fork.nextReset(); code != http2.ErrCodeProtocol {
			t.Errorf("got %v", code)
		}
	})
	t.Run("because it speaks HTTP/1 alone", func(t *testing.T) {
		h1 := record(t, "fork")
		f, _, _ := two(t)
		f.d.named["fork"] = backendAt("fork", h1.l)
		c, _ := f.h2dial()
		c.get(1, true, "x-to", "fork")
		if h := c.nextHeaders(); status(h, ":status") != "503" || !strings.Contains(status(h, "x-sandbox-error"), "does not speak HTTP/2") {
			t.Errorf("got %v", h)
		}
	})
	t.Run("by being silent", func(t *testing.T) {
		f, _, _ := two(t)
		b := f.d.named["fork"]
		b.Timeout = 50 * time.Millisecond
		f.d.named["fork"] = b
		c, _ := f.h2dial()
		c.get(1, true, "x-to", "fork")
		if h := c.nextHeaders(); status(h, ":status") != "503" {
			t.Errorf("got %v", h)
		}
	})
	t.Run("with one pod of two", func(t *testing.T) {
		f, _, fork := two(t)
		dead := listen(t)
		f.d.named["dead"] = backendAt("dead", dead)
		_ = dead.Close()
		c, _ := f.h2dial()
		c.get(1, true, "x-to", "dead,fork")
		h2accept(t, fork).nextHeaders()
	})
	t.Run("while a stale connection to it is used", func(t *testing.T) {
		_, c, _, fork, forks := h2two(t)
		c.get(3, true, "x-to", "fork")
		fork.nextHeaders()
		_ = fork.Close()
		again := h2accept(t, forks)
		again.headers(again.nextHeaders().StreamID, true, ":status", "204")
		if h := c.nextHeaders(); status(h, ":status") != "204" {
			t.Errorf("got %v", h)
		}
	})
}

func TestHTTP2_an_app_that_refuses_looks_refused(t *testing.T) {
	f, app, fork := two(t)
	_ = app.Close()
	c, _ := f.h2dial()
	c.get(1, true, "x-to", "fork")
	s := h2accept(t, fork)
	id := s.nextHeaders().StreamID
	c.get(3, true) // others are in flight: they end first
	if r, ok := c.next().(*http2.RSTStreamFrame); !ok || r.StreamID != 3 || r.ErrCode != http2.ErrCodeRefusedStream {
		t.Errorf("got %v", r)
	}
	c.nextGoAway()
	s.headers(id, true, ":status", "200")
	for {
		if h, ok := c.next().(*http2.MetaHeadersFrame); ok {
			if h.StreamID != 1 {
				t.Errorf("got %v", h)
			}
			break
		}
	}
	c, _ = f.h2dial()
	c.get(1, true)
	for {
		if _, err := c.ReadFrame(); err != nil {
			break
		}
	}
}

func TestHTTP2_refusals_are_answers(t *testing.T) {
	f, _, _ := two(t)
	c, _ := f.h2dial()
	c.get(1, true, "x-refuse", "for a reason")
	if h := c.nextHeaders(); h.PseudoValue("status") != "503" {
		t.Errorf("got %v", h)
	}
	if body, end := c.nextData(); body != "for a reason\n" || !end {
		t.Errorf("got %q", body)
	}
	c.headers(3, true, ":method", "HEAD", ":scheme", "http", ":authority", "a", ":path", "/", "x-refuse", "for a reason")
	if h := c.nextHeaders(); !h.StreamEnded() {
		t.Errorf("got %v", h)
	}
	c.get(5, true, "x-refuse", "nö: 5%", "content-type", "application/grpc")
	for _, hf := range c.nextHeaders().Fields {
		if hf.Name == "grpc-message" && hf.Value != "n?: 5%25" {
			t.Errorf("got %q", hf.Value)
		}
	}
}

func TestHTTP2_clients_that_cost_more_than_they_may_are_dropped(t *testing.T) {
	for name, attack := range map[string]func(c *frames, i int){
		"streams made to be reset": func(c *frames, i int) {
			c.get(uint32(2*i+1), false)
			_ = c.WriteWindowUpdate(uint32(2*i+1), 1<<31-1)
		},
		"empty frames": func(c *frames, i int) {
			if i == 0 {
				c.post(1, false)
			}
			_ = c.WriteData(1, false, nil)
		},
		"heads on streams that are over": func(c *frames, i int) {
			if i == 0 {
				c.get(1, true)
				_ = c.WriteRSTStream(1, http2.ErrCodeCancel)
			}
			c.headers(1, true, "x", "y")
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, Options{Linger: time.Second}, &byHeader{app: backendAt("app", h2server(t, func(_ http.ResponseWriter, r *http.Request) {
				<-r.Context().Done()
			}))})
			c, _ := f.h2dial()
			go func() {
				defer func() { _ = c.peer.Conn.(*net.TCPConn).CloseWrite() }()
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
	f, _ := one(t)
	c, _ := f.h2dial()
	for {
		if err := c.WritePing(false, [8]byte{1}); err != nil {
			return
		}
	}
}

func TestHTTP2_heads_that_are_too_long(t *testing.T) {
	f, _ := one(t)
	c, _ := f.h2dial()
	long := []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}
	for i := range 300 {
		long = append(long, "x-"+strconv.Itoa(i), strings.Repeat("x", 1000))
	}
	write := func(id uint32, pairs []string) {
		c.block.Reset()
		for i := 0; i < len(pairs); i += 2 {
			_ = c.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1], Sensitive: true})
		}
		block := c.block.Bytes()
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
	if fr, ok := c.next().(*http2.MetaHeadersFrame); ok && fr.PseudoValue("status") != "431" {
		t.Errorf("got %v", fr)
	}
	c, _ = f.h2dial()
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
	f, c, app, _, _ := h2two(t)
	c.get(3, true)
	id := app.nextHeaders().StreamID
	_ = f.l.Close()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		f.Drain(t.Context())
	}()
	c.nextGoAway()
	c.nextGoAway()
	c.get(5, true)
	if code := c.nextReset(); code != http2.ErrCodeRefusedStream {
		t.Errorf("got %v", code)
	}
	app.headers(id, true, ":status", "200")
	c.nextHeaders()
	c.end()
	_ = c.Close()
	<-drained
}

func TestHTTP2_connections_to_backends_that_are_gone_are_closed_when_they_are_idle(t *testing.T) {
	f, c, _, fork, forks := h2two(t)
	c.get(3, true, "x-to", "fork")
	id := fork.nextHeaders().StreamID
	f.Retire(func(id string) bool { return id == "fork" })
	c.get(5, true, "x-to", "fork")
	h2accept(t, forks).nextHeaders()
	fork.headers(id, true, ":status", "204")
	if h := c.nextHeaders(); h.StreamID != 3 {
		t.Errorf("got %v", h)
	}
	fork.nextGoAway()
	fork.end()
}

func TestHTTP2_a_client_that_goes_goes_everywhere(t *testing.T) {
	f, c, app, fork, _ := h2two(t)
	c.get(3, true)
	app.nextHeaders()
	_ = c.Close()
	for _, s := range []*frames{app, fork} {
		for {
			if _, err := s.ReadFrame(); err != nil {
				break
			}
		}
	}
	eventually(t, "the connection is forgotten", func() bool { return f.Stats.Open.Load() == 0 })
}

func TestHTTP2_what_a_peer_does_not_read_is_bounded(t *testing.T) {
	t.Run("heads of answers", func(t *testing.T) {
		long := strings.Repeat("x", 12<<10)
		var asked atomic.Int64
		f, apps := one(t)
		go func() {
			s := h2accept(t, apps)
			for {
				fr, err := s.ReadFrame()
				if err != nil {
					return
				}
				if h, ok := fr.(*http2.MetaHeadersFrame); ok {
					s.headers(h.StreamID, true, ":status", "200", "x-long", long+strconv.FormatInt(asked.Add(1), 10))
				}
			}
		}()
		c, _ := f.h2dial()
		go func() {
			for id := uint32(1); t.Context().Err() == nil; id += 2 { // and nothing is read
				for t.Context().Err() == nil && asked.Load() < int64(id)/2-50 {
					time.Sleep(time.Millisecond)
				}
				c.get(id, true)
			}
		}()
		last := int64(-1)
		eventually(t, "no more is asked for", func() bool {
			now := asked.Load()
			defer func() { last = now; time.Sleep(500 * time.Millisecond) }()
			return now == last && now > 0
		})
		if last > 2000 { // what sockets hold, and a mebibyte
			t.Errorf("%d answers of 12 KiB are somewhere", last)
		}
	})
	t.Run("heads of requests", func(t *testing.T) {
		f, c, app, _, _ := h2two(t)
		frozen := listen(t) // accepts by its backlog, and reads nothing
		f.d.named["frozen"] = backendAt("frozen", frozen)
		long := strings.Repeat("x", 12<<10)
		for id := uint32(3); ; id += 2 {
			c.block.Reset()
			c.get(id, true, "x-to", "frozen", "x-long", long+strconv.Itoa(int(id)))
			if id%100 == 1 { // what waits is refused, in time
				c.get(id+2, true)
				id += 2
				app.headers(app.nextHeaders().StreamID, true, ":status", "204")
				h := c.nextHeaders()
				if h.PseudoValue("status") == "503" {
					return
				}
				if int(id)/2*len(long) > maxHeads {
					t.Fatal("too much is waiting")
				}
			}
		}
	})
}

func TestHTTP2_a_request_that_crosses_the_goodbye_of_an_app_that_ends_is_refused_by_itself(t *testing.T) {
	f, app, _ := two(t)
	c, _ := f.h2dial()
	c.get(1, true)
	a := h2accept(t, app)
	id := a.nextHeaders().StreamID
	_ = app.Close() // as a server does that shuts down in good order: it accepts no more, and ends what it has
	_ = a.WriteGoAway(id, http2.ErrCodeNo, nil)
	if last, _ := c.nextGoAway(); last != 1<<31-1 {
		t.Fatalf("got %d", last)
	}
	c.get(3, true) // before it has heard the last of it
	ping, ok := c.next().(*http2.PingFrame)
	if !ok {
		t.Fatalf("got %v, want PING", ping)
	}
	if code := c.nextReset(); code != http2.ErrCodeRefusedStream {
		t.Errorf("got %v", code)
	}
	_ = c.WritePing(true, ping.Data)
	if last, _ := c.nextGoAway(); last != 3 {
		t.Errorf("got %d", last)
	}
	a.headers(id, true, ":status", "200")
	if h := c.nextHeaders(); h.StreamID != 1 || h.PseudoValue("status") != "200" {
		t.Errorf("got %v", h)
	}
	c.end()
}
