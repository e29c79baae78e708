package http2_test

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

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/enginetest"
	own "github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/http2"
)

func TestHTTP2_streams_of_both_directions_arrive_whole(t *testing.T) {
	l := enginetest.HTTP2Server(t, enginetest.Echo)
	fork := enginetest.HTTP2Server(t, enginetest.Echo)
	f := enginetest.Serve(t, engine.Options{}, &enginetest.ByHeader{App: enginetest.BackendAt("app", l), Named: map[string]engine.Backend{"fork": enginetest.BackendAt("fork", fork)}})
	client := enginetest.HTTP2Client(t)
	var pool sync.WaitGroup
	for i := range 40 {
		pool.Go(func() {
			body := make([]byte, 1<<20+i*1000)
			_, _ = rand.Read(body)
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+f.Addr, struct{ io.Reader }{bytes.NewReader(body)})
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
	f := enginetest.Serve(t, engine.Options{}, &enginetest.ByHeader{App: enginetest.BackendAt("app", enginetest.HTTP2Server(t, enginetest.Echo))})
	r, w := io.Pipe()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+f.Addr, r)
	resp, err := enginetest.HTTP2Client(t).Do(req)
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
	f, app := enginetest.WithApp(t)
	c, _ := f.DialHTTP2()
	c.Headers(1, true, ":method", "OPTIONS", ":scheme", "https", ":authority", "a:1", ":path", "*", "cookie", "a=b",
		"cookie", "c=d", "te", "trailers", "x", "", "user-agent", "x/1")
	s := enginetest.AcceptHTTP2(t, app)
	h := s.NextHeaders()
	want := []string{":method OPTIONS", ":scheme https", ":authority a:1", ":path *", "cookie a=b", "cookie c=d", "te trailers", "x ", "user-agent x/1"}
	var got []string
	for _, hf := range h.Fields {
		got = append(got, hf.Name+" "+hf.Value)
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") || !h.StreamEnded() {
		t.Errorf("got %q", got)
	}
	s.Headers(h.StreamID, false, ":status", "103", "link", "x")
	s.Headers(h.StreamID, false, ":status", "200", "x", "y")
	s.Headers(h.StreamID, true, "x-end", "z")
	for _, want := range []string{"103", "200", ""} {
		if h := c.NextHeaders(); h.PseudoValue("status") != want || h.StreamEnded() != (want == "") {
			t.Errorf("got %v, want %q", h, want)
		}
	}
}

func TestHTTP2_answers_are_edited_as_the_backend_asks(t *testing.T) {
	_, c, _, fork, _ := enginetest.ConnectedHTTP2(t)
	c.Get(3, true, "x-to", "fork")
	fork.Headers(fork.NextHeaders().StreamID, true, ":status", "200", "x-served-by", "somebody", "a", "b", "x-served-by", "again")
	var got []string
	for _, hf := range c.NextHeaders().Fields {
		got = append(got, hf.Name+" "+hf.Value)
	}
	if strings.Join(got, ",") != ":status 200,a b,x-served-by fork-0" {
		t.Errorf("got %q", got)
	}
}

func TestHTTP2_answers_are_rewritten_by_what_they_say(t *testing.T) {
	f, c, _, fork, _ := enginetest.ConnectedHTTP2(t)
	f.Decider.Rewrite = enginetest.Moved
	c.Get(3, true, "x-to", "fork")
	fork.Headers(fork.NextHeaders().StreamID, true, ":status", "302", "location", "http://b/", "a", "b")
	var got []string
	for _, hf := range c.NextHeaders().Fields {
		got = append(got, hf.Name+" "+hf.Value)
	}
	if strings.Join(got, ",") != ":status 302,location /was?http://b/,x-served-by fork-0" {
		t.Errorf("got %q", got)
	}
}

func TestHTTP2_resets_are_passed_on_with_their_code(t *testing.T) {
	_, c, app, fork, _ := enginetest.ConnectedHTTP2(t)
	c.Post(3, false)
	id := app.NextHeaders().StreamID
	_ = c.WriteRSTStream(3, http2.ErrCodeCancel)
	if code := app.NextReset(); code != http2.ErrCodeCancel {
		t.Errorf("got %v", code)
	}
	_ = id
	c.Post(5, false, "x-to", "fork")
	_ = fork.WriteRSTStream(fork.NextHeaders().StreamID, http2.ErrCodeEnhanceYourCalm)
	if code := c.NextReset(); code != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("got %v", code)
	}
	c.Post(7, false, "x-to", "fork") // a whole answer, and then no interest in the request's rest
	id = fork.NextHeaders().StreamID
	fork.Headers(id, false, ":status", "200")
	_ = fork.WriteData(id, true, []byte("enough"))
	_ = fork.WriteRSTStream(id, http2.ErrCodeNo)
	c.NextHeaders()
	if s, end := c.NextData(); s != "enough" || !end {
		t.Errorf("got %q", s)
	}
	if code := c.NextReset(); code != http2.ErrCodeNo {
		t.Errorf("got %v", code)
	}
	c.Get(9, true) // the connection goes on
	app.NextHeaders()
}

func TestHTTP2_limits_of_the_app_are_the_client_s_limits(t *testing.T) {
	f, app := enginetest.WithApp(t)
	go enginetest.AcceptHTTP2(t, app, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 3},
		http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
	_, s := f.DialHTTP2()
	if n, _ := s.Value(http2.SettingMaxConcurrentStreams); n != 3 {
		t.Errorf("got %d streams", n)
	}
	if n, _ := s.Value(http2.SettingEnableConnectProtocol); n != 1 {
		t.Error("extended CONNECT is not offered")
	}
}

func TestHTTP2_streams_wait_for_a_fork_that_takes_few(t *testing.T) {
	_, c, app, fork, _ := enginetest.ConnectedHTTP2(t, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 2})
	for id := uint32(3); id <= 9; id += 2 {
		c.Get(id, true, "x-to", "fork", "x-id", strconv.Itoa(int(id)))
	}
	c.Get(11, true)
	app.NextHeaders() // others are not held up
	a, b := fork.NextHeaders(), fork.NextHeaders()
	if a.RegularFields()[1].Value != "3" || b.RegularFields()[1].Value != "5" {
		t.Errorf("got %v and %v", a, b)
	}
	fork.Silent()
	_ = c.WriteRSTStream(7, http2.ErrCodeCancel) // one that waits gives up
	c.Sync()
	fork.Headers(b.StreamID, true, ":status", "204")
	if h := fork.NextHeaders(); h.RegularFields()[1].Value != "9" {
		t.Errorf("got %v", h)
	}
	if h := c.NextHeaders(); h.StreamID != 5 || h.PseudoValue("status") != "204" {
		t.Errorf("got %v", h)
	}
}

func TestHTTP2_extended_CONNECT_becomes_a_tunnel(t *testing.T) {
	f, app := enginetest.WithApp(t)
	accepted := make(chan *enginetest.Frames)
	go func() {
		accepted <- enginetest.AcceptHTTP2(t, app, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
	}()
	c, _ := f.DialHTTP2()
	s := <-accepted
	c.Headers(1, false, ":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a", ":path", "/ws")
	h := s.NextHeaders()
	if h.PseudoValue("protocol") != "websocket" {
		t.Errorf("got %v", h)
	}
	s.Headers(h.StreamID, false, ":status", "200")
	c.NextHeaders()
	_ = c.WriteData(1, false, []byte("ping"))
	if got, end := s.NextData(); got != "ping" || end {
		t.Errorf("got %q", got)
	}
	_ = s.WriteData(h.StreamID, true, []byte("pong"))
	if got, end := c.NextData(); got != "pong" || !end {
		t.Errorf("got %q", got)
	}
	_ = c.WriteData(1, true, []byte("bye"))
	if got, end := s.NextData(); got != "bye" || !end {
		t.Errorf("got %q", got)
	}
}

func TestHTTP2_a_backend_that_does_not_read_holds_up_itself_alone_and_a_bounded_number_of_bytes(t *testing.T) {
	_, c, app, fork, _ := enginetest.ConnectedHTTP2(t)
	c.Post(3, false, "x-to", "fork")
	fork.NextHeaders()
	// The fork grants its initial window of 64 KiB and no more; the engine, its stream window on top.
	sent := 0
	window := int64(own.StreamWindow)
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
	for sent < own.StreamWindow {
		_ = c.WriteData(3, false, make([]byte, 1<<14))
		sent += 1 << 14
	}
	for got := 0; got < own.StreamWindow-1; { // the fork's window is used up
		data, _ := fork.NextData()
		got += len(data)
	}
	_ = c.WritePing(false, [8]byte{1})
	<-granted
	if window-int64(sent) > own.StreamWindow {
		t.Errorf("%d bytes more are granted", window-int64(sent))
	}
	_ = c.WriteData(3, false, make([]byte, 1<<14)) // held by the engine
	c.Get(5, true)
	h := app.NextHeaders()
	app.Headers(h.StreamID, true, ":status", "200")
	for {
		if h, ok := c.Next().(*http2.MetaHeadersFrame); ok {
			if h.StreamID != 5 {
				t.Errorf("got %v", h)
			}
			break
		}
	}
	fork.Silent()
}

func TestHTTP2_more_than_the_window_is_an_error_of_the_client(t *testing.T) {
	_, c, _, fork, _ := enginetest.ConnectedHTTP2(t)
	c.Post(3, false, "x-to", "fork")
	id := fork.NextHeaders().StreamID
	for range 2*own.StreamWindow/(1<<14) + 1 {
		_ = c.WriteData(3, false, make([]byte, 1<<14))
	}
	if code := c.NextReset(); code != http2.ErrCodeFlowControl {
		t.Errorf("got %v", code)
	}
	for {
		if r, ok := fork.Next().(*http2.RSTStreamFrame); ok {
			if r.StreamID != id {
				t.Errorf("got %v", r)
			}
			return
		}
	}
}

func TestHTTP2_a_server_that_speaks_before_its_client_is_no_other_protocol(t *testing.T) {
	f, app, fork := enginetest.WithAppAndFork(t)
	p := f.Dial()
	s := enginetest.NewFrames(enginetest.Accept(t, app)) // the client is silent, so the app is asked
	_ = s.WriteSettings()
	enginetest.Eventually(t, "the engine has seen it", func() bool { return f.Stats.Open.Load() == 1 })
	time.Sleep(10 * time.Millisecond) // it makes no difference whether it was read before the client speaks
	c := enginetest.NewFrames(p)
	c.Send(http2.ClientPreface)
	_ = c.WriteSettings()
	c.Get(1, true)
	s.Expect(http2.ClientPreface)
	h := s.NextHeaders()
	s.Headers(h.StreamID, true, ":status", "204")
	if h := c.NextHeaders(); h.PseudoValue("status") != "204" {
		t.Errorf("got %v", h)
	}
	c.Get(3, true, "x-to", "fork")
	enginetest.AcceptHTTP2(t, fork).NextHeaders()
}
