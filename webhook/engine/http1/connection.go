// Package http1 forwards requests of clients that speak HTTP/1: RFC 9112.
package http1

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/message"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/session"
)

// connection is a client connection that speaks HTTP/1. Two kinds of goroutines work on it:
//
//   - serve reads from the client and writes to backends: heads, bodies, the end of the client's half;
//   - one loop for each backend connection reads from it and writes to the client, while a response is due from there.
//
// So both directions are always live: a response may start, and end, while its request is still being sent. There is
// one exchange at a time: a pipelined request waits in the buffer until the exchange before it has ended. The loop
// whose backend owes the response writes to the client; serve does so only between exchanges.
type connection struct {
	ctx     context.Context // of dialing
	conn    net.Conn
	engine  *session.Shared
	in      *session.Buffer
	decider engine.Decider
	reopen  func(d engine.Decider, app net.Conn) // serves what comes through a tunnel to app
	scratch []byte                               // for heads that are edited

	guarded guarded
}

// Serve serves a client that speaks HTTP/1. reopen serves what comes through a tunnel, starting with what was already
// read.
func Serve(engine *session.Shared, from *session.Client, reopen func(d engine.Decider, app net.Conn)) {
	c := &connection{
		ctx: from.Context, conn: from.Conn, engine: engine, in: from.In, decider: from.Decider, reopen: reopen,
	}
	c.guarded.state = state{c: c, ups: make(map[string]*upstream), ahead: true}
	defer c.closeAll()
	if from.App != nil {
		c.guarded.lock().pin(&from.Backend, from.App).guarded.served = 1 // it may be stale, like one that was used
		c.guarded.unlock()
	}
	from.Serves(c)
	for {
		h, err := c.readHead()
		if err != nil {
			c.refuseMalformed(err)
			return
		}
		next := c.serveOne(h)
		if !next {
			return
		}
	}
}

func (c *connection) closeAll() {
	_ = c.conn.Close()
	defer c.guarded.unlock()
	for _, u := range c.guarded.lock().ups {
		u.drop()
	}
}

// readHead reads the next request's head. The connection may be idle as long as client, backend and IdleTimeout allow.
func (c *connection) readHead() (*head, error) {
	searched, slow := 0, false
	c.in.Shrink()
	for {
		for searched == 0 && c.in.Len() > 0 && (c.in.Bytes()[0] == '\r' || c.in.Bytes()[0] == '\n') {
			c.in.Skip(1) // RFC 9112, section 2.2
		}
		if n := headEnd(c.in.Bytes(), searched); n > 0 {
			if slow || c.engine.IdleTimeout > 0 {
				_ = c.conn.SetReadDeadline(time.Time{})
			}
			if n > c.engine.MaxHead {
				return nil, message.ErrHeadLong
			}
			h, err := parseRequest(c.in.Bytes()[:n])
			if err == nil {
				c.in.Skip(n)
			}
			return h, err
		}
		searched = c.in.Len()
		if searched > 0 && !slow {
			slow = true
			_ = c.conn.SetReadDeadline(time.Now().Add(c.engine.HeadTimeout))
		}
		if searched == 0 && !c.park() {
			return nil, session.ErrClientGone
		}
		err := c.in.Fill(c.engine.MaxHead + 1)
		if searched == 0 && !c.unpark() {
			return nil, session.ErrClientGone
		}
		switch {
		case err == nil:
		case errors.Is(err, session.ErrFull):
			return nil, message.ErrHeadLong
		case slow && session.IsTimeout(err):
			return nil, message.ErrHeadSlow
		default:
			return nil, session.ErrClientGone
		}
	}
}

// park marks the connection as idle before serve waits for a request. False: the connection is to end.
func (c *connection) park() bool {
	s := c.guarded.lock()
	defer c.guarded.unlock()
	s.ahead = false
	s.boundIdle()
	return !s.closing && !c.engine.Draining.Load()
}

// unpark marks the connection as active when the client has sent something. False: the connection is closing.
func (c *connection) unpark() bool {
	s := c.guarded.lock()
	defer c.guarded.unlock()
	s.ahead = true
	return !s.closing
}

// closeIdle ends the client connection if nothing is in flight on it.
func (c *connection) closeIdle() {
	s := c.guarded.lock()
	defer c.guarded.unlock()
	if s.idle() && !s.closing {
		s.hangUp()
	}
}

// linger reads and drops what the client still sends, until it ends or time is up.
func (c *connection) linger() {
	const limit = 1 << 20
	for n := 0; n < limit; n += c.in.Len() {
		c.in.Skip(c.in.Len())
		if c.in.Fill(session.LargeBuffer) != nil {
			return
		}
	}
}

func (c *connection) Drain() { c.closeIdle() }

func (c *connection) Kill() {
	_ = c.conn.Close()
	s := c.guarded.lock()
	defer c.guarded.unlock()
	s.closing = true
	if s.current != nil {
		_ = s.current.under(s).up.conn.Close() // maybe pinned no more
	}
}

func (c *connection) Retire(gone func(string) bool) {
	s := c.guarded.lock()
	defer c.guarded.unlock()
	for id, u := range s.ups {
		if gone(id) {
			delete(s.ups, id)
			if p := u.under(s); p.ex == nil {
				u.drop()
			} else {
				p.last = true
			}
		}
	}
}

// refuseMalformed responds to a request that cannot be parsed, and ends the connection.
func (c *connection) refuseMalformed(err error) {
	var m *message.Malformed
	if !errors.As(err, &m) {
		closing := c.guarded.lock().closing
		c.guarded.unlock()
		if closing {
			c.linger()
		}
		return
	}
	c.engine.Stats.Malformed.Add(1)
	c.answer(&engine.Refusal{Status: m.Status, Reason: m.Reason}, request{}, false)
}

// answer writes a response of the engine's own, between exchanges. It reports whether the connection continues.
func (c *connection) answer(r *engine.Refusal, to request, keep bool) bool {
	keep = keep && !c.engine.Draining.Load()
	if r.Status == 0 {
		session.Reset(c.conn)
		return false
	}
	_, err := c.conn.Write(to.refusal(r, keep))
	if err == nil && !keep {
		c.guarded.lock().hangUp()
		c.guarded.unlock()
		c.linger()
	}
	return err == nil && keep
}

// serveOne serves one request and reports whether the connection continues.
func (c *connection) serveOne(h *head) bool {
	body := requestFraming(h)
	ex := &exchange{
		request: requestOf(h, &body), decision: c.decider.Decide(&h.Head), done: make(chan struct{}),
	}
	d := &ex.decision
	if d.Refusal != nil {
		d.Observe(engine.Refused, nil)
		return c.answer(d.Refusal, ex.request, ex.request.persists && ex.request.bodyless)
	}
	// Check the part of the body that is in the buffer before anything of the request is forwarded.
	n, sent, err := body.take(c.in.Bytes())
	if err != nil {
		c.refuseMalformed(err)
		return false
	}
	if d.Tunnel != nil {
		return c.serveTunnel(ex)
	}
	out := c.request(h, d, n)
	ex.request.pipelined = c.in.Len() > n
	if ex.request.bodyless && message.Idempotent(h.Method) {
		ex.whole = out
	}
	u, err := c.attach(ex)
	if err != nil {
		return c.unreachable(ex, err)
	}
	_, err = u.conn.Write(out)
	c.in.Skip(n)
	switch {
	case ex.request.bodyless: // if it was not received, the response loop finds out, and may send it again
		err = nil
	case err == nil && !sent:
		err = c.sendBody(ex, u, &body)
	}
	return c.finish(ex, err == nil)
}

// unreachable responds to a request for which no backend accepted a connection.
func (c *connection) unreachable(ex *exchange, err error) bool {
	ex.decision.Observe(engine.Refused, nil)
	r := ex.decision.Failure
	r.Reason += err.Error()
	return c.answer(&r, ex.request, ex.request.persists && ex.request.bodyless)
}

// request returns the request's head with its edits, and the first n bytes of its body.
func (c *connection) request(h *head, d *engine.Decision, n int) []byte {
	edits := withoutH2C(d.Edits, h)
	if edits.Empty() {
		if n == 0 {
			return h.raw
		}
		if whole := c.in.Since(len(h.raw), n); whole != nil {
			return whole
		}
	}
	c.scratch = appendEdited(c.scratch[:0], h, &edits)
	c.scratch = append(c.scratch, c.in.Bytes()[:n]...)
	return c.scratch
}

// attach returns a connection to one of the exchange's backends, the pinned one or a new one, and makes ex its current
// exchange.
func (c *connection) attach(ex *exchange) (*upstream, error) {
	err := errors.New("there is no backend")
	for i := range ex.decision.Backends {
		b := &ex.decision.Backends[i]
		s := c.guarded.lock()
		if u := s.ups[b.ID]; u != nil {
			u.backend = *b
			s.start(u, ex)
			c.guarded.unlock()
			return u, nil
		}
		c.guarded.unlock()
		conn, dialErr := session.Dial(c.ctx, b)
		if dialErr != nil {
			err = dialErr
			continue
		}
		s = c.guarded.lock()
		defer c.guarded.unlock()
		if s.closing {
			_ = conn.Close()
			return nil, session.ErrClientGone
		}
		u := s.pin(b, conn)
		s.start(u, ex)
		return u, nil
	}
	return nil, err
}

// sendBody forwards the rest of the request's body. An error means that it was not forwarded completely.
func (c *connection) sendBody(ex *exchange, u *upstream, body *framing) error {
	for done := false; !done; {
		if c.in.Len() == 0 {
			if err := c.in.Fill(session.LargeBuffer); err != nil {
				c.clientEnded(ex, err)
				return err
			}
		}
		n, end, err := body.take(c.in.Bytes())
		done = end
		if err != nil {
			ex.under(c.guarded.lock()).fault = err
			c.guarded.unlock()
			c.engine.Stats.Malformed.Add(1)
			session.Reset(u.conn) // the backend must not see a complete request
			return err
		}
		if _, err := u.conn.Write(c.in.Bytes()[:n]); err != nil {
			return err // the response loop finds out why
		}
		c.in.Skip(n)
	}
	return nil
}

// clientEnded propagates to the backend that the client closed its sending half, or broke off.
func (c *connection) clientEnded(ex *exchange, err error) {
	s := c.guarded.lock()
	defer c.guarded.unlock()
	p := ex.under(s)
	p.replay, p.client = nil, halfEnded
	switch {
	case p.answer == answerDone || p.up == nil || s.closing:
	case errors.Is(err, io.EOF):
		session.CloseWrite(p.up.conn)
	default:
		session.Reset(p.up.conn)
	}
}

// finish waits for the exchange's end and reports whether the connection continues. whole means that the request was
// forwarded completely.
func (c *connection) finish(ex *exchange, whole bool) bool {
	s := c.guarded.lock()
	p := ex.under(s)
	if p.request = requestSending; whole {
		p.request = requestSent
	}
	if whole && p.answer == answerDone {
		s.release(p.up)
		s.boundIdle()
	}
	over := !whole || p.answer == answerDone && !ex.outcome.keep
	c.guarded.unlock()
	ended := !whole
	if !over && c.in.Len() == 0 {
		// Watch the client meanwhile. What it sends ahead stays in the buffer.
		err := c.in.Fill(session.LargeBuffer)
		c.unpark()
		if err != nil {
			c.clientEnded(ex, err)
			ended = true
		}
	}
	<-ex.done
	if to := ex.outcome.tunnel; to != nil {
		if !ended {
			session.CopyHalf(to.conn, c.conn, c.in.Bytes())
		}
		<-to.over
		_ = to.conn.Close()
		return false
	}
	s = c.guarded.lock()
	goesOn := ex.outcome.keep && !ended && !s.closing
	if !goesOn && !s.closing {
		s.hangUp()
	}
	c.guarded.unlock()
	if !goesOn && (!ended || !whole) {
		c.linger()
	}
	return goesOn
}

// serveTunnel responds to a CONNECT and serves what comes through the tunnel.
func (c *connection) serveTunnel(ex *exchange) bool {
	err := errors.New("there is no backend")
	for i := range ex.decision.Backends {
		b := &ex.decision.Backends[i]
		conn, dialErr := session.Dial(c.ctx, b)
		if dialErr != nil {
			err = dialErr
			continue
		}
		ex.decision.Observe(engine.Answered, b)
		if _, err := c.conn.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n")); err != nil {
			_ = conn.Close()
			return false
		}
		c.reopen(ex.decision.Tunnel, conn)
		return false
	}
	return c.unreachable(ex, err)
}
