package engine

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Options are an engine's bounds. A zero field takes its default.
type Options struct {
	// HeadTimeout bounds the time from a request head's first byte to its last. Default 60 s.
	HeadTimeout time.Duration
	// MaxHead is the longest head, in bytes, that is taken from client or backend. Default 256 KiB: more than the common
	// servers take, so that it is the app that refuses.
	MaxHead int
	// SpeakWait is how long a client may be silent before the default backend is connected, so that it can speak first.
	// Default 20 ms.
	SpeakWait time.Duration
	// PrefixWait is how long bytes that could be the beginning of an HTTP method, and nothing else yet, are taken for one.
	// Default 1 s.
	PrefixWait time.Duration
	// IdleTimeout ends client connections on which nothing was in flight for that long. Default: never, the backend decides.
	IdleTimeout time.Duration
	// Linger is how long a client may take to read an answer after which the connection is closed. Default 5 s.
	Linger time.Duration
	// Log is where what no client is told is told. Default: nowhere.
	Log *slog.Logger
}

// Stats are an engine's figures that belong to no request.
type Stats struct {
	Open      atomic.Int64  // client connections
	Raw       atomic.Uint64 // connections that were passed through as bytes
	Malformed atomic.Uint64 // messages refused as malformed or ambiguous
}

// An Engine serves client connections. It is made by New.
type Engine struct {
	Options
	Stats Stats

	// speaksFirst remembers that the default backend spoke before its client: the next connections need not wait to find out.
	speaksFirst atomic.Bool
	draining    atomic.Bool

	mu       sync.Mutex
	sessions map[*session]struct{}
	empty    chan struct{} // closed when draining and no session is left
}

// session is one client connection. kind is nil until it is known what the client speaks.
type session struct {
	ctx  context.Context // of dialing
	conn net.Conn
	kind speaker
}

// A speaker is a client connection whose protocol is known.
type speaker interface {
	drain()                           // end the connection as soon as nothing is in flight on it
	retire(gone func(id string) bool) // close idle connections to these backends
	kill()                            // end the connection at once
}

// New returns an engine.
func New(o Options) *Engine {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.HeadTimeout, time.Minute)
	def(&o.SpeakWait, 20*time.Millisecond)
	def(&o.PrefixWait, time.Second)
	def(&o.Linger, 5*time.Second)
	if o.MaxHead == 0 {
		o.MaxHead = 256 << 10
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Engine{Options: o, sessions: make(map[*session]struct{}), empty: make(chan struct{})}
}

// Serve accepts connections from l and serves each by the Decider that decide makes for it, until l is closed; then it
// returns nil. Connections outlive it: see Drain. When ctx is done, no backend is dialed any more.
func (e *Engine) Serve(ctx context.Context, l net.Listener, decide func(net.Conn) Decider) error {
	var pause time.Duration
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			go e.ServeConn(ctx, conn, decide(conn))
		case errors.Is(err, net.ErrClosed):
			return nil
		default: // out of descriptors, or the client is gone already
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			e.Log.Warn("accept failed", "address", l.Addr(), "error", err, "pause", pause)
			time.Sleep(pause)
		}
	}
}

// ServeConn serves one connection by d, until it is over.
func (e *Engine) ServeConn(ctx context.Context, conn net.Conn, d Decider) {
	s := &session{ctx: ctx, conn: conn}
	e.mu.Lock()
	e.sessions[s] = struct{}{}
	e.mu.Unlock()
	e.Stats.Open.Add(1)
	defer func() {
		_ = conn.Close()
		e.Stats.Open.Add(-1)
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.sessions, s)
		e.checkEmpty()
	}()
	e.open(s, d)
}

// became notes what the client of s speaks.
func (e *Engine) became(s *session, k speaker) {
	e.mu.Lock()
	s.kind = k
	e.mu.Unlock()
	if e.draining.Load() {
		k.drain()
	}
}

func (e *Engine) checkEmpty() {
	if !e.draining.Load() || len(e.sessions) > 0 {
		return
	}
	select {
	case <-e.empty:
	default:
		close(e.empty)
	}
}

// speakers returns the sessions whose protocol is known.
func (e *Engine) speakers() []speaker {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []speaker
	for s := range e.sessions {
		if s.kind != nil {
			all = append(all, s.kind)
		}
	}
	return all
}

// Retire closes the idle connections to the backends whose ID is gone. What is in flight on others goes on.
func (e *Engine) Retire(gone func(id string) bool) {
	for _, s := range e.speakers() {
		s.retire(gone)
	}
}

// Drain ends idle connections at once, the others as soon as nothing is in flight on them, and all that are left when ctx
// is done. It returns when no connection is left. The listeners must be closed before.
func (e *Engine) Drain(ctx context.Context) {
	e.draining.Store(true)
	e.mu.Lock()
	for s := range e.sessions {
		if s.kind == nil {
			_ = s.conn.Close() // has not said anything yet
		}
	}
	e.checkEmpty()
	e.mu.Unlock()
	for _, s := range e.speakers() {
		s.drain()
	}
	select {
	case <-e.empty:
	case <-ctx.Done():
		e.mu.Lock()
		for s := range e.sessions {
			_ = s.conn.Close()
		}
		e.mu.Unlock()
		for _, s := range e.speakers() {
			s.kill()
		}
		<-e.empty
	}
}

// dial connects to b.
func (e *Engine) dial(ctx context.Context, b *Backend) (net.Conn, error) {
	if b.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, b.Timeout)
		defer cancel()
	}
	dial := b.Dial
	if dial == nil {
		dial = func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", b.Addr)
		}
	}
	conn, err := dial(ctx)
	if b.Dialed != nil && !errors.Is(ctx.Err(), context.Canceled) {
		b.Dialed(err)
	}
	return conn, err
}

// reset ends a connection the way a refused or crashed one ends: with RST where that can be.
func reset(conn net.Conn) {
	if c, ok := conn.(interface{ SetLinger(int) error }); ok {
		_ = c.SetLinger(0)
	}
	_ = conn.Close()
}

// closeWrite ends the sending half of a connection, where it has halves.
func closeWrite(conn net.Conn) {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
		return
	}
	_ = conn.Close()
}
