// Package proxy serves client connections: it detects the protocol of each, and serves it by http1, by http2, or as
// bytes.
package proxy

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/session"
)

// An Engine serves client connections. Create it with New.
type Engine struct {
	session.Shared

	// speaksFirst remembers that the default backend spoke before its client: later connections need not wait to detect
	// that.
	speaksFirst atomic.Bool

	conns *connections
}

// New returns an engine.
func New(o engine.Options) *Engine {
	return &Engine{Shared: session.Shared{Options: o.WithDefaults()}, conns: newConnections()}
}

// Serve accepts connections from l until l is closed, and then returns nil. It serves each by the Decider that decide
// returns for it. Connections outlive Serve: see Drain. When ctx is done, no backend is dialed any more.
func (e *Engine) Serve(ctx context.Context, l net.Listener, decide func(net.Conn) engine.Decider) error {
	var pause time.Duration
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			go e.ServeConn(ctx, conn, decide(conn))
		case errors.Is(err, net.ErrClosed):
			return nil
		default: // out of descriptors, or the client has disconnected already
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			e.Log.Warn("accept failed", "address", l.Addr(), "error", err, "pause", pause)
			time.Sleep(pause)
		}
	}
}

// ServeConn serves one connection by d, until it ends.
func (e *Engine) ServeConn(ctx context.Context, conn net.Conn, d engine.Decider) {
	s := &openConn{ctx: ctx, conn: conn}
	e.conns.add(s)
	e.Stats.Open.Add(1)
	defer func() {
		_ = conn.Close()
		e.Stats.Open.Add(-1)
		e.conns.remove(s)
	}()
	e.open(s, d)
}

// setSpeaker records the Speaker of s once its protocol is known.
func (e *Engine) setSpeaker(s *openConn, k session.Speaker) {
	e.conns.serves(s, k)
	if e.Draining.Load() {
		k.Drain()
	}
}

// Retire closes idle connections to the backends whose ID is gone. What is in flight on others completes.
func (e *Engine) Retire(gone func(id string) bool) {
	for _, s := range e.conns.speakers() {
		s.Retire(gone)
	}
}

// Drain ends idle connections at once, others as soon as nothing is in flight on them, and all that remain when ctx is
// done. It returns when no connection is open. The listeners must be closed before.
func (e *Engine) Drain(ctx context.Context) {
	e.Draining.Store(true)
	e.conns.finish()
	for _, s := range e.conns.speakers() {
		s.Drain()
	}
	select {
	case <-e.conns.empty:
	case <-ctx.Done():
		e.conns.closeAll()
		for _, s := range e.conns.speakers() {
			s.Kill()
		}
		<-e.conns.empty
	}
}
