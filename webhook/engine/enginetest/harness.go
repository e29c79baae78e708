// Package enginetest is for tests of the engine: it runs one between scripted clients and backends.
package enginetest

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

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/message"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/proxy"
)

// WithApp runs an engine in front of one backend, and returns it with the backend's listener.
func WithApp(t *testing.T) (*Fixture, net.Listener) {
	t.Helper()
	l := Listen(t)
	app := BackendAt("app", l)
	app.Anchor = true
	return Serve(t, engine.Options{Linger: time.Second}, &ByHeader{App: app, Observer: new(observed)}), l
}

// WithAppAndFork runs an engine in front of an app and a fork.
func WithAppAndFork(t *testing.T) (f *Fixture, app, fork net.Listener) {
	t.Helper()
	f, app = WithApp(t)
	fork = Listen(t)
	b := BackendAt("fork", fork)
	b.Answer = []engine.Field{{Name: []byte("x-served-by"), Value: []byte("fork-0")}}
	f.Decider.Named = map[string]engine.Backend{"fork": b}
	f.Decider.failure = engine.Refusal{Status: 503, Reason: "the fork: "}
	return f, app, fork
}

// Moved rewrites redirects alone.
func Moved(r *engine.Reply) engine.Edits {
	if r.Status != 302 {
		return engine.Edits{}
	}
	for _, f := range r.Fields {
		if message.NameIs(f.Name, "location") {
			location := engine.Field{Name: []byte("location"), Value: append([]byte("/was?"), f.Value...)}
			return engine.Edits{Set: []engine.Field{location}, Remove: []string{"a"}}
		}
	}
	return engine.Edits{}
}

// StepTimeout is how long a step of a test may take.
const StepTimeout = 10 * time.Second

// Eventually waits until ok, and fails the test when that takes too long.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(StepTimeout); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// BackendAt makes a Backend of a listener's address.
func BackendAt(id string, l net.Listener) engine.Backend {
	return engine.Backend{ID: id, Addr: l.Addr().String()}
}

// ByHeader sends a request to the backends that its header x-to names, separated by commas; without one, to app.
type ByHeader struct {
	App      engine.Backend
	Named    map[string]engine.Backend
	failure  engine.Refusal
	Edits    engine.Edits
	NoApp    bool
	Observer *observed
	Rewrite  func(*engine.Reply) engine.Edits
}

// Default implements engine.Decider.
func (d *ByHeader) Default() (engine.Backend, bool) { return d.App, !d.NoApp }

// Decide implements engine.Decider.
func (d *ByHeader) Decide(h *engine.Head) engine.Decision {
	dec := engine.Decision{Edits: d.Edits, Backends: []engine.Backend{d.App}, Rewrite: d.Rewrite}
	if d.Observer != nil {
		dec.Observer = d.Observer
	}
	if to := h.Get("x-to"); to != nil {
		dec.Backends, dec.Failure = nil, d.failure
		for name := range strings.SplitSeq(string(to), ",") {
			if b, ok := d.Named[name]; ok {
				dec.Backends = append(dec.Backends, b)
			}
		}
	}
	if r := h.Get("x-refuse"); r != nil {
		dec.Refusal = &engine.Refusal{Status: 503, Reason: string(r)}
	}
	return dec
}

// observed counts events.
type observed struct {
	mu     sync.Mutex
	Counts map[engine.Event]int
}

// Observe implements engine.Observer.
func (o *observed) Observe(e engine.Event, _ *engine.Backend) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.Counts == nil {
		o.Counts = make(map[engine.Event]int)
	}
	o.Counts[e]++
}

// Count returns how often an event was observed.
func (o *observed) Count(e engine.Event) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.Counts[e]
}

// Fixture is an engine that serves a Decider at an address.
type Fixture struct {
	*proxy.Engine
	t        testing.TB
	Addr     string
	Decider  *ByHeader
	Listener net.Listener
}

// Serve runs an engine in front of app.
func Serve(t testing.TB, o engine.Options, d *ByHeader) *Fixture {
	t.Helper()
	l := Listen(t)
	f := &Fixture{Engine: proxy.New(o), t: t, Addr: l.Addr().String(), Decider: d, Listener: l}
	go func() { _ = f.Serve(context.Background(), l, func(net.Conn) engine.Decider { return d }) }()
	t.Cleanup(func() {
		_ = l.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		f.Drain(ctx)
	})
	return f
}

// Listen listens until the test ends.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// Peer is a connection with a script: it fails the test when a step takes too long.
type Peer struct {
	t testing.TB
	net.Conn
	Buffered *bufio.Reader
}

func newPeer(t testing.TB, c net.Conn) *Peer {
	_ = c.SetDeadline(time.Now().Add(StepTimeout))
	t.Cleanup(func() { _ = c.Close() })
	return &Peer{t, c, bufio.NewReader(c)}
}

// Dial connects to the engine.
func (f *Fixture) Dial() *Peer {
	f.t.Helper()
	c, err := net.Dial("tcp", f.Addr)
	if err != nil {
		f.t.Fatal(err)
	}
	return newPeer(f.t, c)
}

// Accept returns the next connection to l.
func Accept(t testing.TB, l net.Listener) *Peer {
	t.Helper()
	_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(StepTimeout))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return newPeer(t, c)
}

// Send writes s.
func (p *Peer) Send(s string) {
	p.t.Helper()
	if _, err := io.WriteString(p.Conn, s); err != nil {
		p.t.Fatalf("sending %q: %v", s, err)
	}
}

// Expect reads exactly s.
func (p *Peer) Expect(s string) {
	p.t.Helper()
	b := make([]byte, len(s))
	n, err := io.ReadFull(p.Buffered, b)
	if err != nil || string(b) != s {
		p.t.Fatalf("got %q (%v), want %q", b[:n], err, s)
	}
}

// ReadHead reads a head, as it came.
func (p *Peer) ReadHead() string {
	p.t.Helper()
	var b strings.Builder
	for {
		line, err := p.Buffered.ReadString('\n')
		b.WriteString(line)
		if err != nil {
			p.t.Fatalf("reading a head after %q: %v", b.String(), err)
		}
		if line == "\r\n" {
			return b.String()
		}
	}
}

// End reads the end of the connection.
func (p *Peer) End() {
	p.t.Helper()
	if b, err := io.ReadAll(p.Buffered); err != nil || len(b) > 0 {
		p.t.Fatalf("got %q (%v), want the end", b, err)
	}
}

// Broken reads the end of a connection that was reset.
func (p *Peer) Broken() {
	p.t.Helper()
	b, err := io.ReadAll(p.Buffered)
	if !errors.Is(err, syscall.ECONNRESET) || len(b) > 0 {
		p.t.Fatalf("got %q (%v), want a reset", b, err)
	}
}

// Silent checks that nothing has come, by asking for what comes after something else was seen to be done.
func (p *Peer) Silent() {
	p.t.Helper()
	_ = p.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	defer func() { _ = p.SetReadDeadline(time.Now().Add(StepTimeout)) }()
	if b, err := p.Buffered.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Fatalf("got %q (%v), want nothing", b, err)
	}
}

// CloseWrite ends the sending half.
func (p *Peer) CloseWrite() { _ = p.Conn.(*net.TCPConn).CloseWrite() }

// ReadAnswer reads an answer by net/http.
func (p *Peer) ReadAnswer(method string) (*http.Response, string) {
	p.t.Helper()
	resp, err := http.ReadResponse(p.Buffered, &http.Request{Method: method})
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
	Listener net.Listener
	mu       sync.Mutex
	b        bytes.Buffer
	conns    int
}

// Record runs a recorder.
func Record(t testing.TB, name string) *recorder {
	r := &recorder{Listener: Listen(t)}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = io.Copy(io.Discard, req.Body)
		fmt.Fprint(w, name)
	})}
	go func() { _ = srv.Serve(recording{r.Listener, r}) }()
	t.Cleanup(func() { _ = srv.Close() })
	return r
}

// Got returns all bytes that came.
func (r *recorder) Got() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}

// Connections returns how many connections were made.
func (r *recorder) Connections() int {
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

// ContextWithTimeout returns a context of the test that ends after d.
func ContextWithTimeout(t testing.TB, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}
