package proxy

import (
	"bytes"
	"context"
	"net"
	"sync"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/session"
)

// watch connects the default backend while its client is silent. It takes over if the backend speaks first, ends the
// connection, or refuses it.
type watch struct {
	e       *Engine
	client  net.Conn
	backend engine.Backend
	timer   *time.Timer
	over    chan struct{} // closed when the watching goroutine has ended

	cancel context.CancelFunc
	ctx    context.Context

	mu      sync.Mutex
	started bool
	ended   bool     // the client's bytes have decided
	conn    net.Conn // to the backend
	spoke   []byte   // its first bytes
	acted   action   // what the backend did, if that decided
}

// action is what a backend did before its client sent anything.
type action uint8

const (
	actedNot     action = iota
	actedTook           // it sent bytes, or closed its sending half: bytes are forwarded
	actedRefused        // it did not accept the connection, or reset it
)

func (w *watch) begin() {
	w.ctx, w.cancel = context.WithCancel(w.ctx)
	wait := w.e.SpeakWait
	if w.conn != nil || w.e.speaksFirst.Load() {
		wait = 0
	}
	w.timer = time.AfterFunc(wait, w.run)
}

func (w *watch) run() {
	w.mu.Lock()
	if w.ended {
		w.mu.Unlock()
		return
	}
	w.started = true
	conn, dialed := w.conn, false
	w.mu.Unlock()
	defer close(w.over)
	if conn == nil {
		var err error
		if conn, err = session.Dial(w.ctx, &w.backend); err != nil {
			w.takeOver(actedRefused)
			return
		}
		dialed = true
		w.mu.Lock()
		w.conn = conn
		if w.ended {
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
	}
	b := make([]byte, session.SmallBuffer)
	n, err := conn.Read(b)
	w.mu.Lock()
	w.spoke = b[:n]
	w.mu.Unlock()
	switch {
	case n > 0 && settingsFirst(b[:n]): // the client is expected to speak HTTP/2: wait for its preface
	case n > 0:
		if dialed && !bytes.HasPrefix(b[:n], []byte("HTTP/")) {
			w.e.speaksFirst.Store(true)
		}
		w.takeOver(actedTook)
	case session.IsReset(err): // which is reported only once
		w.takeOver(actedRefused)
	case !session.IsTimeout(err):
		w.takeOver(actedTook)
	}
}

// takeOver decides, unless the client's bytes have, and wakes up the reader of these.
func (w *watch) takeOver(did action) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	w.ended = true
	w.acted = did
	_ = w.client.SetReadDeadline(time.Unix(1, 0))
}

func (w *watch) tookOver() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.acted != actedNot
}

// dialGrace is how long a client that has sent bytes waits for a pending connection to the default backend.
const dialGrace = 50 * time.Millisecond

// end stops watching. It returns the connection to the backend, if there is one, and the bytes read from it.
func (w *watch) end() (app net.Conn, spoke []byte) {
	if w.timer == nil {
		return w.conn, nil
	}
	w.timer.Stop()
	w.mu.Lock()
	w.ended = true
	started, conn := w.started, w.conn
	w.mu.Unlock()
	if started {
		if conn == nil { // an app beside the router accepts at once: wait, so that it sees no unused connection
			select {
			case <-w.over:
			case <-time.After(dialGrace):
			}
			w.cancel()
		}
		if conn != nil {
			_ = conn.SetReadDeadline(time.Unix(1, 0))
		}
		<-w.over
	}
	w.cancel()
	if w.conn != nil {
		_ = w.conn.SetReadDeadline(time.Time{})
	}
	return w.conn, w.spoke
}
