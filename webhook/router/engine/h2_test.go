package engine

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

func TestHTTP2_streams_of_both_directions_arrive_whole(t *testing.T) {
	l := h2server(t, echo)
	fork := h2server(t, echo)
	f := serve(t, Options{}, &byHeader{app: backendAt("app", l), named: map[string]Backend{"fork": backendAt("fork", fork)}})
	client := h2client(t)
	var pool sync.WaitGroup
	for i := range 40 {
		pool.Go(func() {
			body := make([]byte, 1<<20+i*1000)
			_, _ = rand.Read(body)
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+f.addr, struct{ io.Reader }{bytes.NewReader(body)})
			req.Trailer = http.Header{"X-Sum": {strconv.Itoa(i)}}
			if i%2 == 0 {
				req.Header.Set("x-to", "fork")
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil || !bytes.Equal(got, body) || resp.Trailer.Get("X-End") != "end "+strconv.Itoa(i) {
				t.Errorf("stream %d: got %d bytes of %d (%v), trailer %v", i, len(got), len(body), err, resp.Trailer)
			}
		})
	}
	pool.Wait()
}

func TestHTTP2_a_stream_is_live_in_both_directions(t *testing.T) {
	f := serve(t, Options{}, &byHeader{app: backendAt("app", h2server(t, echo))})
	r, w := io.Pipe()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+f.addr, r)
	resp, err := h2client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for i := range 100 {
		msg := fmt.Sprintf("message %d", i)
		_, _ = io.WriteString(w, msg)
		b := make([]byte, len(msg))
		if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != msg {
			t.Fatalf("got %q (%v)", b, err)
		}
	}
	_ = w.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || len(b) > 0 {
		t.Errorf("got %q (%v)", b, err)
	}
}

func TestHTTP2_heads_pass_with_1xx_and_repeated_fields(t *testing.T) {
	f, app := one(t)
	c, _ := f.h2dial()
	c.headers(1, true, ":method", "OPTIONS", ":scheme", "https", ":authority", "a:1", ":path", "*", "cookie", "a=b",
		"cookie", "c=d", "te", "trailers", "x", "", "user-agent", "x/1")
	s := h2accept(t, app)
	h := s.nextHeaders()
	want := []string{":method OPTIONS", ":scheme https", ":authority a:1", ":path *", "cookie a=b", "cookie c=d", "te trailers", "x ", "user-agent x/1"}
	var got []string
	for _, hf := range h.Fields {
		got = append(got, hf.Name+" "+hf.Value)
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") || !h.StreamEnded() {
		t.Errorf("got %q", got)
	}
	s.headers(h.StreamID, false, ":status", "103", "link", "x")
	s.headers(h.StreamID, false, ":status", "200", "x", "y")
	s.headers(h.StreamID, true, "x-end", "z")
	for _, want := range []string{"103", "200", ""} {
		if h := c.nextHeaders(); h.PseudoValue("status") != want || h.StreamEnded() != (want == "") {
			t.Errorf("got %v, want %q", h, want)
		}
	}
}

func TestHTTP2_answers_are_edited_as_the_backend_asks(t *testing.T) {
	_, c, _, fork, _ := h2two(t)
	c.get(3, true, "x-to", "fork")
	fork.headers(fork.nextHeaders().StreamID, true, ":status", "200", "x-served-by", "somebody", "a", "b", "x-served-by", "again")
	var got []string
	for _, hf := range c.nextHeaders().Fields {
		got = append(got, hf.Name+" "+hf.Value)
	}
	if strings.Join(got, ",") != ":status 200,a b,x-served-by fork-0" {
		t.Errorf("got %q", got)
	}
}

func TestHTTP2_answers_are_rewritten_by_what_they_say(t *testing.T) {
	f, c, _, fork, _ := h2two(t)
	f.d.rewrite = moved
	c.get(3, true, "x-to", "fork")
	fork.headers(fork.nextHeaders().StreamID, true, ":status", "302", "location", "http://b/", "a", "b")
	var got []string
	for _, hf := range c.nextHeaders().Fields {
		got = append(got, hf.Name+" "+hf.Value)
	}
	if strings.Join(got, ",") != ":status 302,location /was?http://b/,x-served-by fork-0" {
		t.Errorf("got %q", got)
	}
}

func TestHTTP2_resets_are_passed_on_with_their_code(t *testing.T) {
	_, c, app, fork, _ := h2two(t)
	c.post(3, false)
	id := app.nextHeaders().StreamID
	_ = c.WriteRSTStream(3, http2.ErrCodeCancel)
	if code := app.nextReset(); code != http2.ErrCodeCancel {
		t.Errorf("got %v", code)
	}
	_ = id
	c.post(5, false, "x-to", "fork")
	_ = fork.WriteRSTStream(fork.nextHeaders().StreamID, http2.ErrCodeEnhanceYourCalm)
	if code := c.nextReset(); code != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("got %v", code)
	}
	c.post(7, false, "x-to", "fork") // a whole answer, and then no interest in the request's rest
	id = fork.nextHeaders().StreamID
	fork.headers(id, false, ":status", "200")
	_ = fork.WriteData(id, true, []byte("enough"))
	_ = fork.WriteRSTStream(id, http2.ErrCodeNo)
	c.nextHeaders()
	if s, end := c.nextData(); s != "enough" || !end {
		t.Errorf("got %q", s)
	}
	if code := c.nextReset(); code != http2.ErrCodeNo {
		t.Errorf("got %v", code)
	}
	c.get(9, true) // the connection goes on
	app.nextHeaders()
}

func TestHTTP2_limits_of_the_app_are_the_client_s_limits(t *testing.T) {
	f, app := one(t)
	go h2accept(t, app, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 3},
		http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
	_, s := f.h2dial()
	if n, _ := s.Value(http2.SettingMaxConcurrentStreams); n != 3 {
		t.Errorf("got %d streams", n)
	}
	if n, _ := s.Value(http2.SettingEnableConnectProtocol); n != 1 {
		t.Error("extended CONNECT is not offered")
	}
}

func TestHTTP2_streams_wait_for_a_fork_that_takes_few(t *testing.T) {
	_, c, app, fork, _ := h2two(t, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 2})
	for id := uint32(3); id <= 9; id += 2 {
		c.get(id, true, "x-to", "fork", "x-id", strconv.Itoa(int(id)))
	}
	c.get(11, true)
	app.nextHeaders() // others are not held up
	a, b := fork.nextHeaders(), fork.nextHeaders()
	if a.RegularFields()[1].Value != "3" || b.RegularFields()[1].Value != "5" {
		t.Errorf("got %v and %v", a, b)
	}
	fork.silent()
	_ = c.WriteRSTStream(7, http2.ErrCodeCancel) // one that waits gives up
	c.sync()
	fork.headers(b.StreamID, true, ":status", "204")
	if h := fork.nextHeaders(); h.RegularFields()[1].Value != "9" {
		t.Errorf("got %v", h)
	}
	if h := c.nextHeaders(); h.StreamID != 5 || h.PseudoValue("status") != "204" {
		t.Errorf("got %v", h)
	}
}

func TestHTTP2_extended_CONNECT_becomes_a_tunnel(t *testing.T) {
	f, app := one(t)
	accepted := make(chan *frames)
	go func() { accepted <- h2accept(t, app, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1}) }()
	c, _ := f.h2dial()
	s := <-accepted
	c.headers(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a", ":path", "/ws")
	h := s.nextHeaders()
	if h.PseudoValue("protocol") != "websocket" {
		t.Errorf("got %v", h)
	}
	s.headers(h.StreamID, false, ":status", "200")
	c.nextHeaders()
	_ = c.WriteData(1, false, []byte("ping"))
	if got, end := s.nextData(); got != "ping" || end {
		t.Errorf("got %q", got)
	}
	_ = s.WriteData(h.StreamID, true, []byte("pong"))
	if got, end := c.nextData(); got != "pong" || !end {
		t.Errorf("got %q", got)
	}
	_ = c.WriteData(1, true, []byte("bye"))
	if got, end := s.nextData(); got != "bye" || !end {
		t.Errorf("got %q", got)
	}
}

func TestHTTP2_a_backend_that_does_not_read_holds_up_itself_alone_and_a_bounded_number_of_bytes(t *testing.T) {
	_, c, app, fork, _ := h2two(t)
	c.post(3, false, "x-to", "fork")
	fork.nextHeaders()
	// The fork grants its initial window of 64 KiB and no more; the engine, its stream window on top.
	sent := 0
	window := int64(streamWindow)
	granted := make(chan struct{})
	go func() { // what the engine grants the client
		defer close(granted)
		for {
			fr, err := c.ReadFrame()
			if err != nil {
				return
			}
			if w, ok := fr.(*http2.WindowUpdateFrame); ok && w.StreamID == 3 {
				window += int64(w.Increment)
			}
			if p, ok := fr.(*http2.PingFrame); ok && p.IsAck() {
				return
			}
		}
	}()
	for sent < streamWindow {
		_ = c.WriteData(3, false, make([]byte, 1<<14))
		sent += 1 << 14
	}
	for got := 0; got < streamWindow-1; { // the fork's window is used up
		data, _ := fork.nextData()
		got += len(data)
	}
	_ = c.WritePing(false, [8]byte{1})
	<-granted
	if window-int64(sent) > streamWindow {
		t.Errorf("%d bytes more are granted", window-int64(sent))
	}
	_ = c.WriteData(3, false, make([]byte, 1<<14)) // held by the engine
	c.get(5, true)
	h := app.nextHeaders()
	app.headers(h.StreamID, true, ":status", "200")
	for {
		if h, ok := c.next().(*http2.MetaHeadersFrame); ok {
			if h.StreamID != 5 {
				t.Errorf("got %v", h)
			}
			break
		}
	}
	fork.silent()
}

func TestHTTP2_more_than_the_window_is_an_error_of_the_client(t *testing.T) {
	_, c, _, fork, _ := h2two(t)
	c.post(3, false, "x-to", "fork")
	id := fork.nextHeaders().StreamID
	for range 2*streamWindow/(1<<14) + 1 {
		_ = c.WriteData(3, false, make([]byte, 1<<14))
	}
	if code := c.nextReset(); code != http2.ErrCodeFlowControl {
		t.Errorf("got %v", code)
	}
	for {
		if r, ok := fork.next().(*http2.RSTStreamFrame); ok {
			if r.StreamID != id {
				t.Errorf("got %v", r)
			}
			return
		}
	}
}

func TestHTTP2_a_server_that_speaks_before_its_client_is_no_other_protocol(t *testing.T) {
	f, app, fork := two(t)
	p := f.dial()
	s := newFrames(accept(t, app)) // the client is silent, so the app is asked
	_ = s.WriteSettings()
	eventually(t, "the engine has seen it", func() bool { return f.Stats.Open.Load() == 1 })
	time.Sleep(10 * time.Millisecond) // it makes no difference whether it was read before the client speaks
	c := newFrames(p)
	c.send(preface)
	_ = c.WriteSettings()
	c.get(1, true)
	s.expect(preface)
	h := s.nextHeaders()
	s.headers(h.StreamID, true, ":status", "204")
	if h := c.nextHeaders(); h.PseudoValue("status") != "204" {
		t.Errorf("got %v", h)
	}
	c.get(3, true, "x-to", "fork")
	h2accept(t, fork).nextHeaders()
}
