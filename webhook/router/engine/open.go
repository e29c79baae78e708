package engine

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// preface is what an HTTP/2 client sends first: RFC 9113, section 3.4.
const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// protocol is what a client speaks.
type protocol uint8

const (
	speaksYetUnknown protocol = iota
	speaksMaybeHTTP           // speaksYetUnknown, but more than a method's letters are there: only HTTP looks so
	speaksHTTP1
	speaksHTTP2
	speaksOther
)

// sniff tells the protocol by a connection's first bytes. HTTP/1 is what has " HTTP/" in its first line, so that malformed
// HTTP is refused, not passed on unread, and other protocols of text lines pass.
func sniff(b []byte) protocol {
	if n := min(len(b), len(preface)); n > 0 && string(b[:n]) == preface[:n] {
		if n == len(preface) {
			return speaksHTTP2
		}
		if n > len("PRI *") {
			return speaksMaybeHTTP
		}
		return speaksYetUnknown
	}
	for len(b) > 0 && (b[0] == '\r' || b[0] == '\n') {
		b = b[1:] // RFC 9112, section 2.2
	}
	for i, c := range b {
		switch {
		case 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || i > 0 && (c == '-' || c == '_'):
			if i >= 32 {
				return speaksOther
			}
			continue
		case c != ' ' || i == 0:
			return speaksOther
		}
		return sniffLine(b, i)
	}
	return speaksYetUnknown
}

// sniffLine goes on where a method of n letters and a blank were seen.
func sniffLine(b []byte, n int) protocol {
	line, _, whole := bytes.Cut(b, []byte{'\n'})
	switch {
	case len(line) > n+1 && line[n+1] < ' ': // no target begins so, whatever comes after it
		return speaksOther
	case bytes.Contains(line[n:], []byte(" HTTP/")):
		return speaksHTTP1
	case whole:
		return speaksOther
	}
	return speaksMaybeHTTP
}

// settingsFirst says whether b looks like a server that begins to speak HTTP/2: RFC 9113 lets it, before its client's
// preface. It begins with a SETTINGS frame on stream 0.
func settingsFirst(b []byte) bool {
	return len(b) >= 9 && b[0] == 0 && b[3] == 4 && b[4] == 0 && bytes.Equal(b[5:9], make([]byte, 4))
}

// open finds out what the client speaks, and serves it.
func (e *Engine) open(s *session, d Decider) { e.openWith(s, d, &buffer{conn: s.conn}, nil) }

// openWith is open for a connection of which in was read already, and whose default backend may be connected already.
func (e *Engine) openWith(s *session, d Decider, in *buffer, app net.Conn) {
	def, hasDefault := d.Default()
	w := &watch{e: e, ctx: s.ctx, client: s.conn, backend: def, conn: app, over: make(chan struct{})}
	p := sniff(in.bytes())
	if p <= speaksMaybeHTTP && hasDefault {
		w.begin()
	}
	deadline := false
	for p <= speaksMaybeHTTP && !w.tookOver() {
		switch {
		case p == speaksMaybeHTTP || in.len() > 0 && !hasDefault:
			_ = s.conn.SetReadDeadline(time.Now().Add(e.HeadTimeout))
			deadline = true
		case in.len() > 0:
			_ = s.conn.SetReadDeadline(time.Now().Add(e.PrefixWait))
			deadline = true
		case !hasDefault && e.IdleTimeout > 0:
			_ = s.conn.SetReadDeadline(time.Now().Add(e.IdleTimeout))
			deadline = true
		}
		err := in.fill(e.MaxHead)
		switch {
		case err == nil:
			p = sniff(in.bytes())
		case w.tookOver():
		case isTimeout(err) && p == speaksMaybeHTTP: // passing it on could pass on a key that is still to come
			e.giveUp(w, err)
			_, _ = s.conn.Write(refusalHTTP1(&Refusal{Status: 408, Reason: "request head took too long"}, false, false, true))
			return
		case isTimeout(err), errors.Is(err, errFull), in.len() > 0 && !isReset(err):
			p = speaksOther
		default: // gone without a word
			e.giveUp(w, err)
			return
		}
	}
	app, spoke := w.end()
	if deadline || w.took {
		_ = s.conn.SetReadDeadline(time.Time{})
	}
	switch {
	case w.refused:
		reset(s.conn)
		if app != nil {
			_ = app.Close()
		}
	case w.took:
		e.passThrough(s, in, app, spoke)
	case p == speaksHTTP1:
		if len(spoke) > 0 { // speaks HTTP/2 alone, or too early: of no use
			_ = app.Close()
			app = nil
		}
		e.serveHTTP1(s, d, in, def, app)
	case p == speaksHTTP2:
		e.serveHTTP2(s, d, in, def, hasDefault, app, spoke)
	case !hasDefault:
		_ = s.conn.Close()
	default:
		if app == nil {
			var err error
			if app, err = e.dial(s.ctx, &def); err != nil {
				reset(s.conn)
				return
			}
		}
		e.passThrough(s, in, app, spoke)
	}
}

// giveUp ends the connection to the default backend the way that the client's ended.
func (*Engine) giveUp(w *watch, err error) {
	app, _ := w.end()
	switch {
	case app == nil:
	case isReset(err):
		reset(app)
	default:
		_ = app.Close()
	}
}

// watch connects the default backend while its client is silent, and takes over when the backend speaks first, ends the
// connection, or refuses it.
type watch struct {
	e       *Engine
	client  net.Conn
	backend Backend
	timer   *time.Timer
	over    chan struct{} // closed when the watching goroutine is through

	cancel context.CancelFunc
	ctx    context.Context

	mu      sync.Mutex
	started bool
	ended   bool     // the client's bytes have decided
	conn    net.Conn // to the backend
	spoke   []byte   // its first bytes
	took    bool     // what the backend did decided: bytes pass through
	refused bool     // it did not accept the connection, or reset it
}

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
		if conn, err = w.e.dial(w.ctx, &w.backend); err != nil {
			w.takeOver(func() { w.refused = true })
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
	b := make([]byte, smallBuffer)
	n, err := conn.Read(b)
	w.mu.Lock()
	w.spoke = b[:n]
	w.mu.Unlock()
	switch {
	case n > 0 && settingsFirst(b[:n]): // the client is expected to speak HTTP/2: leave it to its preface
	case n > 0:
		if dialed && !bytes.HasPrefix(b[:n], []byte("HTTP/")) {
			w.e.speaksFirst.Store(true)
		}
		w.takeOver(func() { w.took = true })
	case isReset(err): // which is told once
		w.takeOver(func() { w.refused = true })
	case !isTimeout(err):
		w.takeOver(func() { w.took = true })
	}
}

// takeOver decides, unless the client's bytes have, and wakes who waits for them.
func (w *watch) takeOver(decide func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	w.ended = true
	decide()
	_ = w.client.SetReadDeadline(time.Unix(1, 0))
}

func (w *watch) tookOver() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.took || w.refused
}

// dialGrace is how long a client that has spoken waits for a connection to the default backend that is being made.
const dialGrace = 50 * time.Millisecond

// end stops watching and returns the connection to the backend, if there is one, and what came from there.
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
		if conn == nil { // an app beside the router answers at once: let it, and don't make it see a connection for nothing
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
