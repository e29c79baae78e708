package http1

import (
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/message"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/session"
)

// upstream is a connection to a backend. It is pinned to one client connection, so that no response can ever reach
// another client.
type upstream struct {
	c    *connection
	conn net.Conn
	in   session.Buffer
	over chan struct{} // closed when loop has ended

	tunnels     bool // has become a tunnel: serve closes it. Used by loop only
	nonstandard bool // the last response was: see parseAnswer. Used by loop only

	// backend is that of the current exchange, or of the last one. attach changes it while there is none.
	backend engine.Backend
	guarded pinned // reached by under
}

// drop closes the connection, which ends loop.
func (u *upstream) drop() { _ = u.conn.Close() }

// unpin removes u from the pinned connections.
func (u *upstream) unpin() (ex *exchange) {
	s := u.c.guarded.lock()
	defer u.c.guarded.unlock()
	p := u.under(s)
	p.last = true
	if s.ups[u.backend.ID] == u {
		delete(s.ups, u.backend.ID)
	}
	return p.ex
}

// loop reads from the backend, and forwards the responses to the client, until the connection ends.
func (u *upstream) loop() {
	defer close(u.over)
	defer func() {
		if !u.tunnels {
			_ = u.conn.Close()
		}
	}()
	for {
		u.in.Shrink()
		err := u.in.Fill(u.c.engine.MaxHead + 1)
		s := u.c.guarded.lock()
		ex := u.under(s).ex
		due := ex != nil && ex.under(s).answer == answerDue
		if due && err == nil {
			ex.under(s).replay = nil // the backend has received it
		}
		u.c.guarded.unlock()
		switch {
		case due && err != nil:
			u.lost(err)
			return
		case due:
			if !u.pass(ex) {
				return
			}
		default: // the end of an idle connection, or bytes without a request
			u.endIdle(err)
			return
		}
	}
}

// endIdle ends u while no response is due. err is nil if the backend sent bytes without a request.
func (u *upstream) endIdle(err error) {
	ex := u.unpin()
	switch {
	case ex != nil: // the response is complete, but the request is not, and has no destination any more
		if s := u.c.guarded.lock(); !s.closing {
			s.hangUp()
		}
		u.c.guarded.unlock()
	case err != nil && (u.backend.Anchor || u.nonstandard):
		u.c.closeIdle()
	}
}

// pass forwards one response. It reports whether the connection to the backend continues.
func (u *upstream) pass(ex *exchange) bool {
	h, err := u.finalHead(ex)
	if err != nil {
		u.lost(err)
		return false
	}
	c, d := u.c, &ex.decision
	body := answerFraming(h, ex.request.method == methodHead)
	tunnel := h.status == 101 || ex.request.method == methodConnect && h.status/100 == 2
	keep := ex.request.persists && h.persists() && body.kind != toEOF && !tunnel
	edits := d.ReplyEdits(&u.backend, h.status, func() []engine.Field { return h.Fields })
	n, done := 0, false
	var w *bodyInserter
	var woven []byte
	if tunnel {
		n, done = u.in.Len(), true
	} else if w = startInsertion(&edits, h, &body); w != nil {
		woven, n, done, err = w.take(nil, &body, u.in.Bytes())
	} else {
		n, done, err = body.take(u.in.Bytes())
	}
	if err != nil {
		u.lost(err)
		return false
	}
	ex.started = true
	d.ObserveAnswer(h.status, &u.backend)
	u.nonstandard = h.nonstandard
	switch {
	case h.chunked && h.status == http.StatusNoContent:
		// RFC 9112, section 6.1: some clients wait for chunks.
		edits.Remove = append(slices.Clip(edits.Remove), "transfer-encoding")
	case h.chunked && h.length >= 0:
		edits.Remove = append(slices.Clip(edits.Remove), "content-length") // RFC 9112, section 6.3
	case h.listed && w == nil:
		length := engine.Field{Name: []byte("content-length"), Value: strconv.AppendInt(nil, h.length, 10)}
		edits.Set = append(slices.Clip(edits.Set), length)
	}
	if keep && c.engine.Draining.Load() {
		keep = false
		edits.Set = append(slices.Clip(edits.Set), engine.Field{Name: []byte("connection"), Value: []byte("close")})
	}
	out := h.raw
	if w != nil {
		out = append(appendEdited(make([]byte, 0, len(h.raw)+256+len(woven)), h, &edits), woven...)
	} else if !edits.Empty() {
		out = appendEdited(make([]byte, 0, len(h.raw)+256+n), h, &edits)
		out = append(out, u.in.Bytes()[:n]...)
	} else if n > 0 {
		out = u.in.Since(len(h.raw), n)
	}
	u.in.Skip(n)
	if _, err := c.conn.Write(out); err != nil {
		u.clientGone(ex)
		return false
	}
	if tunnel {
		u.tunnel(ex)
		return false
	}
	if !done && !u.passBody(ex, &body, w) {
		return false
	}
	return u.answered(ex, keep, body.kind == toEOF)
}

// finalHead reads response heads, and forwards interim ones, until the final one.
func (u *upstream) finalHead(ex *exchange) (*head, error) {
	for {
		n := 0
		for searched := 0; n == 0; {
			if n = headEnd(u.in.Bytes(), searched); n == 0 {
				searched = u.in.Len()
				if err := u.in.Fill(u.c.engine.MaxHead); err != nil {
					if errors.Is(err, session.ErrFull) {
						err = &message.Malformed{Status: 502, Reason: "its head is too long"}
					}
					return nil, err
				}
			}
		}
		h, err := parseAnswer(u.in.Bytes()[:n])
		switch {
		case err != nil:
			return nil, err
		case h.status == 101 && !ex.request.upgrades:
			return nil, errors.New("switched protocols without being asked")
		case h.status >= 200 || h.status == 101:
			u.in.Skip(n)
			return h, nil
		}
		ex.started = true
		u.in.Skip(n)
		if _, err := u.c.conn.Write(h.raw); err != nil {
			return nil, session.ErrClientGone
		}
		ex.started = false
	}
}

// passBody forwards the rest of a response's body. False: the exchange has ended otherwise.
func (u *upstream) passBody(ex *exchange, body *framing, w *bodyInserter) bool {
	var woven []byte
	for {
		if err := u.in.Fill(session.LargeBuffer); err != nil {
			if body.kind == toEOF && errors.Is(err, io.EOF) {
				return w == nil || u.passLast(ex, w)
			}
			u.lost(err)
			return false
		}
		var out []byte
		var n int
		var done bool
		var err error
		if w == nil {
			n, done, err = body.take(u.in.Bytes())
			out = u.in.Bytes()[:n]
		} else {
			woven, n, done, err = w.take(woven[:0], body, u.in.Bytes())
			out = woven
		}
		if err != nil {
			u.lost(err)
			return false
		}
		if _, err := u.c.conn.Write(out); err != nil {
			u.clientGone(ex)
			return false
		}
		u.in.Skip(n)
		if done {
			return true
		}
	}
}

// passLast forwards what is inserted after the last byte. False: the exchange has ended otherwise.
func (u *upstream) passLast(ex *exchange, w *bodyInserter) bool {
	if _, err := u.c.conn.Write(w.Last(nil)); err != nil {
		u.clientGone(ex)
		return false
	}
	return true
}

// answered ends an exchange whose response is complete. If the request is not, its body is still forwarded while the
// backend keeps the connection, since it may want all of it. It reports whether the connection to the backend
// continues.
func (u *upstream) answered(ex *exchange, keep, ended bool) bool {
	c := u.c
	if !keep || u.in.Len() > 0 { // not to be reused: bytes without a request must not meet the next one
		u.unpin()
	}
	s := c.guarded.lock()
	defer c.guarded.unlock()
	p := ex.under(s)
	p.answer, ex.outcome.keep = answerDone, keep
	sent := p.request == requestSent
	if !keep && (sent || ended) || s.idle() && c.engine.Draining.Load() {
		s.hangUp()
	}
	if sent {
		s.release(u)
	}
	s.boundIdle()
	close(ex.done)
	return !ended && (!u.under(s).last || !sent)
}

// tunnel forwards bytes after the backend has switched protocols. serve forwards the other direction.
func (u *upstream) tunnel(ex *exchange) {
	u.unpin()
	u.tunnels, ex.outcome.tunnel = true, u
	close(ex.done)
	session.CopyHalf(u.c.conn, u.conn, nil)
}

// clientGone ends an exchange whose client cannot be written to any more.
func (u *upstream) clientGone(ex *exchange) {
	u.unpin()
	session.Reset(u.conn)
	session.Reset(u.c.conn)
	close(ex.done)
}

// lost ends the exchange of a connection that failed before the response was complete, or sends its request again.
func (u *upstream) lost(cause error) {
	c, ex := u.c, u.unpin()
	p := ex.under(c.guarded.lock())
	replay, fault, clientClosed := p.replay, p.fault, p.client == halfEnded
	p.replay = nil
	c.guarded.unlock()
	if errors.Is(cause, session.ErrClientGone) {
		u.clientGone(ex)
		return
	}
	if replay != nil && (errors.Is(cause, io.EOF) || session.IsReset(cause)) && u.again(ex, replay) {
		return
	}
	session.Reset(u.conn)
	d := &ex.decision
	var r engine.Refusal
	switch m := (*message.Malformed)(nil); {
	case errors.As(fault, &m):
		r = engine.Refusal{Status: m.Status, Reason: m.Reason}
	default:
		if clientClosed {
			d.Observe(engine.Abandoned, &u.backend)
		} else {
			d.Observe(engine.Broken, &u.backend)
		}
		r = d.Failure
		if r.Status == 0 && errors.As(cause, &m) { // a backend that broke off gets no response; this error can be reported
			r.Status = http.StatusBadGateway
		}
		r.Reason += message.DescribeFailure(cause)
	}
	if ex.started || r.Status == 0 {
		if errors.Is(cause, io.EOF) {
			_ = c.conn.Close()
		} else {
			session.Reset(c.conn)
		}
		close(ex.done)
		return
	}
	sent := ex.under(c.guarded.lock()).request == requestSent
	c.guarded.unlock()
	keep := sent && ex.request.persists && !c.engine.Draining.Load()
	if _, err := c.conn.Write(ex.request.refusal(&r, keep)); err != nil {
		session.Reset(c.conn)
		keep = false
	}
	s := c.guarded.lock()
	defer c.guarded.unlock()
	ex.under(s).answer, ex.outcome.keep = answerDone, keep
	if !keep {
		s.hangUp()
	}
	close(ex.done)
}

// again retries a request that met a stale connection. It reports whether another connection took it over.
func (u *upstream) again(ex *exchange, request []byte) bool {
	ex.whole = request
	next, err := u.c.attach(ex)
	if err != nil {
		return false
	}
	_, _ = next.conn.Write(request) // if it fails, the loop of that connection finds out
	return true
}
