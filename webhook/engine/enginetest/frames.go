package enginetest

import (
	"bytes"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Frames is a connection of HTTP/2 with a script.
type Frames struct {
	*Peer
	*http2.Framer
	Encoder *hpack.Encoder
	Block   bytes.Buffer
}

// NewFrames speaks HTTP/2 by a peer.
func NewFrames(p *Peer) *Frames {
	f := &Frames{Peer: p, Framer: http2.NewFramer(p.Conn, p.Buffered)}
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.Encoder = hpack.NewEncoder(&f.Block)
	return f
}

// DialHTTP2 opens a connection as a client that then waits for SETTINGS, which it returns.
func (f *Fixture) DialHTTP2(settings ...http2.Setting) (*Frames, *http2.SettingsFrame) {
	f.t.Helper()
	c := NewFrames(f.Dial())
	c.Send(http2.ClientPreface)
	_ = c.WriteSettings(settings...)
	var s *http2.SettingsFrame
	for s == nil {
		s, _ = c.ReadNext().(*http2.SettingsFrame)
	}
	copied := *s
	_ = c.WriteSettingsAck()
	return c, &copied
}

// AcceptHTTP2 takes the next connection as a server.
func AcceptHTTP2(t testing.TB, l net.Listener, settings ...http2.Setting) *Frames {
	t.Helper()
	s := NewFrames(Accept(t, l))
	s.Expect(http2.ClientPreface)
	_ = s.WriteSettings(settings...)
	return s
}

// ReadNext returns the next frame.
func (f *Frames) ReadNext() http2.Frame {
	f.t.Helper()
	fr, err := f.ReadFrame()
	if err != nil {
		f.t.Fatalf("reading a frame: %v", err)
	}
	return fr
}

// Next returns the next frame that is not about SETTINGS, windows or the preface's end.
func (f *Frames) Next() http2.Frame {
	f.t.Helper()
	for {
		switch fr := f.ReadNext().(type) {
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

// NextHeaders returns the next frame as Next does, which must be HEADERS.
func (f *Frames) NextHeaders() *http2.MetaHeadersFrame {
	f.t.Helper()
	fr := f.Next()
	h, ok := fr.(*http2.MetaHeadersFrame)
	if !ok {
		f.t.Fatalf("got %v, want HEADERS", fr)
	}
	return h
}

// NextData returns what is in the next frame, which must be DATA, and whether it ends the stream.
func (f *Frames) NextData() (string, bool) {
	f.t.Helper()
	fr := f.Next()
	d, ok := fr.(*http2.DataFrame)
	if !ok {
		f.t.Fatalf("got %v, want DATA", fr)
	}
	return string(d.Data()), d.StreamEnded()
}

// Sync waits until the other side has read all that was sent.
func (f *Frames) Sync() {
	f.t.Helper()
	_ = f.WritePing(false, [8]byte{'s', 'y', 'n', 'c'})
	if p, ok := f.Next().(*http2.PingFrame); !ok || !p.IsAck() {
		f.t.Fatalf("got %v, want the answer to a PING", p)
	}
}

// NextReset returns the code of the next frame, which must be RST_STREAM.
func (f *Frames) NextReset() http2.ErrCode {
	f.t.Helper()
	fr := f.Next()
	r, ok := fr.(*http2.RSTStreamFrame)
	if !ok {
		f.t.Fatalf("got %v, want RST_STREAM", fr)
	}
	return r.ErrCode
}

// NextGoAway returns what the next GOAWAY says, and answers PINGs before it.
func (f *Frames) NextGoAway() (uint32, http2.ErrCode) {
	f.t.Helper()
	for {
		switch fr := f.Next().(type) {
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

// Headers writes HEADERS of name and value pairs.
func (f *Frames) Headers(id uint32, end bool, pairs ...string) {
	f.t.Helper()
	f.Block.Reset()
	for i := 0; i < len(pairs); i += 2 {
		_ = f.Encoder.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{
		StreamID: id, BlockFragment: f.Block.Bytes(), EndStream: end, EndHeaders: true,
	})
}

func (f *Frames) request(method string, id uint32, end bool, pairs []string) {
	f.t.Helper()
	head := []string{":method", method, ":scheme", "http", ":authority", "a", ":path", "/"}
	f.Headers(id, end, append(head, pairs...)...)
}

// Get opens a stream with a request.
func (f *Frames) Get(id uint32, end bool, pairs ...string) {
	f.t.Helper()
	f.request("GET", id, end, pairs)
}

// Post opens a stream with a request that has a body.
func (f *Frames) Post(id uint32, end bool, pairs ...string) {
	f.t.Helper()
	f.request("POST", id, end, pairs)
}

// HTTP2Server serves handler over HTTP/2 without TLS.
func HTTP2Server(t testing.TB, handler http.HandlerFunc) net.Listener {
	l := Listen(t)
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: handler, Protocols: p}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return l
}

// HTTP2Client keeps one connection.
func HTTP2Client(t testing.TB) *http.Client {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: p, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

// Echo answers with what it is sent, as it comes, and a trailer.
func Echo(w http.ResponseWriter, r *http.Request) {
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

// ConnectedHTTP2 runs an engine in front of an app and a fork that are connected already.
func ConnectedHTTP2(t *testing.T, forkSettings ...http2.Setting) (
	f *Fixture, c, app, fork *Frames, forks net.Listener,
) {
	t.Helper()
	f, apps, forks := WithAppAndFork(t)
	accepted := make(chan *Frames)
	go func() { accepted <- AcceptHTTP2(t, apps) }()
	c, _ = f.DialHTTP2()
	app = <-accepted
	c.Get(1, true, "x-to", "fork")
	fork = AcceptHTTP2(t, forks, forkSettings...)
	fork.Headers(fork.NextHeaders().StreamID, true, ":status", "200")
	if h := c.NextHeaders(); h.PseudoValue("status") != "200" || !h.StreamEnded() {
		t.Fatalf("got %v", h)
	}
	return f, c, app, fork, forks
}
