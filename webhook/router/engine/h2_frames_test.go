package engine

import (
	"bytes"
	"net"
	"net/http"
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
