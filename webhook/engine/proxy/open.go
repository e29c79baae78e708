package proxy

import (
	"errors"
	"net"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/http1"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/http2"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/session"
)

// open detects the client's protocol, and serves it.
func (e *Engine) open(s *openConn, d engine.Decider) {
	e.openWith(s, d, &session.Buffer{Conn: s.conn}, nil)
}

// openWith is like open, for a connection whose first bytes are in already, and whose default backend may be connected.
func (e *Engine) openWith(s *openConn, d engine.Decider, in *session.Buffer, app net.Conn) {
	def, hasDefault := d.Default()
	w := &watch{e: e, ctx: s.ctx, client: s.conn, backend: def, conn: app, over: make(chan struct{})}
	p := sniff(in.Bytes())
	if p <= speaksMaybeHTTP && hasDefault {
		w.begin()
	}
	deadline := false
	for p <= speaksMaybeHTTP && !w.tookOver() {
		if wait := e.silence(p, in.Len() > 0, hasDefault); wait > 0 {
			_ = s.conn.SetReadDeadline(time.Now().Add(wait))
			deadline = true
		}
		err := in.Fill(e.MaxHead)
		switch {
		case err == nil:
			p = sniff(in.Bytes())
		case w.tookOver():
		case session.IsTimeout(err) && p == speaksMaybeHTTP: // forwarding it could forward a key that is still to come
			e.giveUp(w, err)
			slow := &engine.Refusal{Status: 408, Reason: "request head took too long"}
			_, _ = s.conn.Write(http1.FormatRefusal(slow, false, false, true))
			return
		case session.IsTimeout(err), errors.Is(err, session.ErrFull), in.Len() > 0 && !session.IsReset(err):
			p = speaksOther
		default: // closed without sending anything
			e.giveUp(w, err)
			return
		}
	}
	app, spoke := w.end()
	c := session.Client{
		Context: s.ctx, Conn: s.conn, In: in, Decider: d, Backend: def, HasBackend: hasDefault, App: app, Spoke: spoke,
		Serves: func(k session.Speaker) { e.setSpeaker(s, k) },
	}
	if deadline || w.acted == actedTook {
		_ = s.conn.SetReadDeadline(time.Time{})
	}
	switch {
	case w.acted == actedRefused:
		session.Reset(s.conn)
		if app != nil {
			_ = app.Close()
		}
	case w.acted == actedTook:
		e.passThrough(s, in, app, spoke)
	case p == speaksHTTP1:
		if len(spoke) > 0 { // it speaks only HTTP/2, or too early, and cannot be used
			_ = app.Close()
			c.App = nil
		}
		http1.Serve(&e.Shared, &c, func(d engine.Decider, app net.Conn) { e.openWith(s, d, in, app) })
	case p == speaksHTTP2:
		http2.Serve(&e.Shared, &c)
	case !hasDefault:
		_ = s.conn.Close()
	default:
		if app == nil {
			var err error
			if app, err = session.Dial(s.ctx, &def); err != nil {
				session.Reset(s.conn)
				return
			}
		}
		e.passThrough(s, in, app, spoke)
	}
}

// silence returns how long to wait for the client's next bytes, given the protocol p as far as it is known, and whether
// anything was received. Zero: no new bound.
func (e *Engine) silence(p protocol, received, hasDefault bool) time.Duration {
	switch {
	case p == speaksMaybeHTTP || received && !hasDefault:
		return e.HeadTimeout
	case received:
		return e.PrefixWait
	case !hasDefault:
		return e.IdleTimeout
	}
	return 0
}

// giveUp ends the connection to the default backend in the same way as the client ended its own.
func (*Engine) giveUp(w *watch, err error) {
	app, _ := w.end()
	switch {
	case app == nil:
	case session.IsReset(err):
		session.Reset(app)
	default:
		_ = app.Close()
	}
}
