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

// open finds out what the client speaks, and serves it.
func (e *Engine) open(s *openConn, d engine.Decider) {
	e.openWith(s, d, &session.Buffer{Conn: s.conn}, nil)
}

// openWith is open for a connection of which in was read already, and whose default backend may be connected already.
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
		case session.IsTimeout(err) && p == speaksMaybeHTTP: // passing it on could pass on a key that is still to come
			e.giveUp(w, err)
			slow := &engine.Refusal{Status: 408, Reason: "request head took too long"}
			_, _ = s.conn.Write(http1.FormatRefusal(slow, false, false, true))
			return
		case session.IsTimeout(err), errors.Is(err, session.ErrFull), in.Len() > 0 && !session.IsReset(err):
			p = speaksOther
		default: // gone without a word
			e.giveUp(w, err)
			return
		}
	}
	app, spoke := w.end()
	c := session.Client{
		Context: s.ctx, Conn: s.conn, In: in, Decider: d, Backend: def, HasBackend: hasDefault, App: app, Spoke: spoke,
		Serves: func(k session.Speaker) { e.became(s, k) },
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
		if len(spoke) > 0 { // speaks HTTP/2 alone, or too early: of no use
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

// silence returns how long a client may be silent of which p is known, and of which anything was read or not. Zero: as
// long as it likes, or as before.
func (e *Engine) silence(p protocol, begun, hasDefault bool) time.Duration {
	switch {
	case p == speaksMaybeHTTP || begun && !hasDefault:
		return e.HeadTimeout
	case begun:
		return e.PrefixWait
	case !hasDefault:
		return e.IdleTimeout
	}
	return 0
}

// giveUp ends the connection to the default backend the way that the client's ended.
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
