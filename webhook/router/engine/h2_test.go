package engine

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// frames is a connection of HTTP/2 with a script.
type frames struct {
	*peer
	*http2.Framer
	enc   *hpack.Encoder
	block bytes.Buffer
}

func newFrames(p *peer) *frames {
	f := &frames{peer: p, Framer: http2.NewFramer(p.Conn, p.r)}
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.enc = hpack.NewEncoder(&f.block)
	return f
}

// h2dial opens a connection as a client that then waits for SETTINGS, which it returns.
func (f *fixture) h2dial(settings ...http2.Setting) (*frames, *http2.SettingsFrame) {
	f.t.Helper()
	c := newFrames(f.dial())
	c.send(preface)
	_ = c.WriteSettings(settings...)
	var s *http2.SettingsFrame
	for s == nil {
		s, _ = c.read().(*http2.SettingsFrame)
	}
	copied := *s
	_ = c.WriteSettingsAck()
	return c, &copied
}

// h2accept takes the next connection as a server.
func h2accept(t testing.TB, l net.Listener, settings ...http2.Setting) *frames {
	t.Helper()
	s := newFrames(accept(t, l))
	s.expect(preface)
	_ = s.WriteSettings(settings...)
	return s
}

func (f *frames) read() http2.Frame {
	f.t.Helper()
	fr, err := f.ReadFrame()
	if err != nil {
		f.t.Fatalf("reading a frame: %v", err)
	}
	return fr
}

// next returns the next frame that is not about SETTINGS, windows or the preface's end.
func (f *frames) next() http2.Frame {
	f.t.Helper()
	for {
		switch fr := f.read().(type) {
		case *http2.SettingsFrame:
			if !fr.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.WindowUpdateFrame:
		default:
			return fr
		}
	}
}

func (f *frames) nextHeaders() *http2.MetaHeadersFrame {
	f.t.Helper()
	fr := f.next()
	h, ok := fr.(*http2.MetaHeadersFrame)
	if !ok {
		f.t.Fatalf("got %v, want HEADERS", fr)
	}
	return h
}

func (f *frames) nextData() (string, bool) {
	f.t.Helper()
	fr := f.next()
	d, ok := fr.(*http2.DataFrame)
	if !ok {
		f.t.Fatalf("got %v, want DATA", fr)
	}
	return string(d.Data()), d.StreamEnded()
}

// sync waits until the other side has read all that was sent.
func (f *frames) sync() {
	f.t.Helper()
	_ = f.WritePing(false, [8]byte{'s', 'y', 'n', 'c'})
	if p, ok := f.next().(*http2.PingFrame); !ok || !p.IsAck() {
		f.t.Fatalf("got %v, want the answer to a PING", p)
	}
}

func (f *frames) nextReset() http2.ErrCode {
	f.t.Helper()
	fr := f.next()
	r, ok := fr.(*http2.RSTStreamFrame)
	if !ok {
		f.t.Fatalf("got %v, want RST_STREAM", fr)
	}
	return r.ErrCode
}

func (f *frames) nextGoAway() (uint32, http2.ErrCode) {
	f.t.Helper()
	for {
		switch fr := f.next().(type) {
		case *http2.GoAwayFrame:
			return fr.LastStreamID, fr.ErrCode
		case *http2.PingFrame:
			if !fr.IsAck() {
				_ = f.WritePing(true, fr.Data)
			}
		default:
			f.t.Fatalf("got %v, want GOAWAY", fr)
		}
	}
}

// headers writes HEADERS of name and value pairs.
func (f *frames) headers(id uint32, end bool, pairs ...string) {
	f.t.Helper()
	f.block.Reset()
	for i := 0; i < len(pairs); i += 2 {
		_ = f.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: f.block.Bytes(), EndStream: end, EndHeaders: true,
	})
}

// get opens a stream with a request.
func (f *frames) get(id uint32, end bool, pairs ...string) {
	f.t.Helper()
	f.headers(id, end, append([]string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}, pairs...)...)
}

func (f *frames) post(id uint32, end bool, pairs ...string) {
	f.t.Helper()
	f.headers(id, end, append([]string{":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/"}, pairs...)...)
}

// server answers by handler over HTTP/2 without TLS.
func h2server(t testing.TB, handler http.HandlerFunc) net.Listener {
	l := listen(t)
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: handler, Protocols: p}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return l
}

// h2client keeps one connection.
func h2client(t testing.TB) *http.Client {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: p, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "X-End")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	b := make([]byte, 32<<10)
	for {
		n, err := r.Body.Read(b)
		_, _ = w.Write(b[:n])
		_ = http.NewResponseController(w).Flush()
		if err != nil {
			break
		}
	}
	w.Header().Set("X-End", "end "+r.Trailer.Get("X-Sum"))
}

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

// h2two runs an engine in front of an app and a fork that are connected already.
func h2two(t *testing.T, forkSettings ...http2.Setting) (f *fixture, c, app, fork *frames, forks net.Listener) {
	t.Helper()
	f, apps, forks := two(t)
	accepted := make(chan *frames)
	go func() { accepted <- h2accept(t, apps) }()
	c, _ = f.h2dial()
	app = <-accepted
	c.get(1, true, "x-to", "fork")
	fork = h2accept(t, forks, forkSettings...)
	fork.headers(fork.nextHeaders().StreamID, true, ":status", "200")
	if h := c.nextHeaders(); h.PseudoValue("status") != "200" || !h.StreamEnded() {
		t.Fatalf("got %v", h)
	}
	return f, c, app, fork, forks
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
		"streams opened and reset": func(c *frames, i int) {
			c.get(uint32(2*i+1), false)
			_ = c.WriteRSTStream(uint32(2*i+1), http2.ErrCodeCancel)
		},
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
				if id > 1000 {
					t.Fatal("too much is waiting")
				}
			}
		}
	})
}
