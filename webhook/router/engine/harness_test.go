package engine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const patience = 10 * time.Second

// eventually waits until ok, and fails the test when that takes too long.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// backendAt makes a Backend of a listener's address.
func backendAt(id string, l net.Listener) Backend { return Backend{ID: id, Addr: l.Addr().String()} }

// byHeader sends a request to the backends that its header x-to names, separated by commas; without one, to app.
type byHeader struct {
	app      Backend
	named    map[string]Backend
	failure  Refusal
	edits    Edits
	noApp    bool
	observer *observed
	rewrite  func(*Reply) Edits
}

func (d *byHeader) Default() (Backend, bool) { return d.app, !d.noApp }

func (d *byHeader) Decide(h *Head) Decision {
	dec := Decision{Edits: d.edits, Backends: []Backend{d.app}, Rewrite: d.rewrite}
	if d.observer != nil {
		dec.Observer = d.observer
	}
	if to := h.Get("x-to"); to != nil {
		dec.Backends, dec.Failure = nil, d.failure
		for name := range strings.SplitSeq(string(to), ",") {
			if b, ok := d.named[name]; ok {
				dec.Backends = append(dec.Backends, b)
			}
		}
	}
	if r := h.Get("x-refuse"); r != nil {
		dec.Refusal = &Refusal{Status: 503, Reason: string(r)}
	}
	return dec
}

// observed counts events.
type observed struct {
	mu sync.Mutex
	n  map[Event]int
}

func (o *observed) Observe(e Event, _ *Backend) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n == nil {
		o.n = make(map[Event]int)
	}
	o.n[e]++
}

func (o *observed) count(e Event) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.n[e]
}

// fixture is an engine that serves a Decider at an address.
type fixture struct {
	*Engine
	t    testing.TB
	addr string
	d    *byHeader
	l    net.Listener
}

// serve runs an engine in front of app.
func serve(t testing.TB, o Options, d *byHeader) *fixture {
	t.Helper()
	l := listen(t)
	f := &fixture{Engine: New(o), t: t, addr: l.Addr().String(), d: d, l: l}
	go func() { _ = f.Serve(context.Background(), l, func(net.Conn) Decider { return d }) }()
	t.Cleanup(func() {
		_ = l.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		f.Drain(ctx)
	})
	return f
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// peer is a connection with a script: it fails the test when a step takes too long.
type peer struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func newPeer(t testing.TB, c net.Conn) *peer {
	_ = c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { _ = c.Close() })
	return &peer{t, c, bufio.NewReader(c)}
}

func (f *fixture) dial() *peer {
	f.t.Helper()
	c, err := net.Dial("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	return newPeer(f.t, c)
}

// accept returns the next connection to l.
func accept(t testing.TB, l net.Listener) *peer {
	t.Helper()
	_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return newPeer(t, c)
}

func (p *peer) send(s string) {
	p.t.Helper()
	if _, err := io.WriteString(p.Conn, s); err != nil {
		p.t.Fatalf("sending %q: %v", s, err)
	}
}

// expect reads exactly s.
func (p *peer) expect(s string) {
	p.t.Helper()
	b := make([]byte, len(s))
	n, err := io.ReadFull(p.r, b)
	if err != nil || string(b) != s {
		p.t.Fatalf("got %q (%v), want %q", b[:n], err, s)
	}
}

// head reads a head, as it came.
func (p *peer) head() string {
	p.t.Helper()
	var b strings.Builder
	for {
		line, err := p.r.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			p.t.Fatalf("reading a head after %q: %v", b.String(), err)
		}
		if line == "\r\n" {
			return b.String()
		}
	}
}

// end reads the end of the connection.
func (p *peer) end() {
	p.t.Helper()
	if b, err := io.ReadAll(p.r); err != nil || len(b) > 0 {
		p.t.Fatalf("got %q (%v), want the end", b, err)
	}
}

// broken reads the end of a connection that was reset.
func (p *peer) broken() {
	p.t.Helper()
	b, err := io.ReadAll(p.r)
	if !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
		p.t.Fatalf("got %q (%v), want a reset", b, err)
	}
}

// silent checks that nothing has come, by asking for what comes after something else was seen to be done.
func (p *peer) silent() {
	p.t.Helper()
	_ = p.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	defer func() { _ = p.SetReadDeadline(time.Now().Add(patience)) }()
	if b, err := p.r.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Fatalf("got %q (%v), want nothing", b, err)
	}
}

func (p *peer) closeWrite() { _ = p.Conn.(*net.TCPConn).CloseWrite() }

// answer reads an answer by net/http.
func (p *peer) answer(method string) (*http.Response, string) {
	p.t.Helper()
	resp, err := http.ReadResponse(p.r, &http.Request{Method: method})
	if err != nil {
		p.t.Fatalf("reading an answer: %v", err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatalf("reading an answer's body: %v", err)
	}
	return resp, string(b)
}

// recorder is a backend that answers every request "NAME" by net/http, and keeps the bytes that came.
type recorder struct {
	l     net.Listener
	mu    sync.Mutex
	b     bytes.Buffer
	conns int
}

func record(t testing.TB, name string) *recorder {
	r := &recorder{l: listen(t)}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		fmt.Fprint(w, name)
	})}
	go func() { _ = srv.Serve(recording{r.l, r}) }()
	t.Cleanup(func() { _ = srv.Close() })
	return r
}

func (r *recorder) got() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}

func (r *recorder) connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conns
}

type recording struct {
	net.Listener
	r *recorder
}

func (l recording) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.r.mu.Lock()
		l.r.conns++
		l.r.mu.Unlock()
	}
	return recordingConn{c, l.r}, err
}

type recordingConn struct {
	net.Conn
	r *recorder
}

func (c recordingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	_, _ = c.r.b.Write(b[:n])
	return n, err
}

func contextWithTimeout(t testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}
