// Package http1 forwards requests of clients that speak HTTP/1: RFC 9112.
package http1

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/message"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/session"
)

// connection is a client connection that speaks HTTP/1. Two kinds of goroutines work on it:
//
//   - serve reads from the client and writes to backends: heads, bodies, the end of the client's half;
//   - one loop for each backend connection reads from it and writes to the client, while an answer is due from there.
//
// So both directions are live at any time: an answer may begin, and end, while its request is still being sent. There
// is one exchange at a time: a pipelined request waits in the buffer until the exchange before is over. The client is
// written to by the loop whose backend owes the answer, and by serve only between exchanges.
type connection struct {
	ctx     context.Context // of dialing
	conn    net.Conn
	engine  *session.Shared
	in      *session.Buffer
	decider engine.Decider
	reopen  func(d engine.Decider, app net.Conn) // serves what comes through a tunnel to app
	scratch []byte                               // for heads that are edited

	mu      sync.Mutex
	ups     map[string]*upstream // by Backend.ID: pinned connections, each for this client alone
	uses    uint64               // counts attachments, to find the pin not used for longest
	current *exchange            // the last one that reached a backend
	ahead   bool                 // serve has bytes of a request that is not current yet
	closing bool                 // the client was told that nothing more is answered
}

// maxPins bounds the backend connections that one client connection holds.
const maxPins = 32

// exchange is one request and its answer.
type exchange struct {
	toHEAD   bool
	connect  bool
	upgrade  bool // the client offered one
	old      bool // HTTP/1.0
	persists bool // the client wants to go on after it
	bodyless bool
	ahead    bool // more than this request was read
	decision engine.Decision
	whole    []byte // the whole request, when it is small and idempotent; valid until it is out
	replay   []byte // a copy of it, when it went out on a connection that may have been stale

	up       *upstream // guarded by h1.mu, as are the next four
	sent     bool      // the request is out whole
	answered bool      // the answer is
	left     bool      // the client has ended its half
	fault    error     // what is wrong with the request's body

	begun bool // the final answer's head is at the client. Of the answering loop

	done   chan struct{} // closed when answered. What follows is valid then
	keep   bool          // the connection goes on
	tunnel *upstream     // the connection is a tunnel to there now
}

// Serve serves a client that speaks HTTP/1. reopen serves what comes through a tunnel, beginning with what was read
// already.
func Serve(engine *session.Shared, from *session.Client, reopen func(d engine.Decider, app net.Conn)) {
	c := &connection{
		ctx: from.Context, conn: from.Conn, engine: engine, in: from.In, decider: from.Decider, reopen: reopen,
		ups: make(map[string]*upstream), ahead: true,
	}
	defer c.closeAll()
	if from.App != nil {
		c.mu.Lock()
		c.pin(&from.Backend, from.App).served = 1 // may be stale like one that was used
		c.mu.Unlock()
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
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, u := range c.ups {
		u.drop()
	}
}

// readHead reads the next request's head. The connection may be idle for as long as client, backend and IdleTimeout let
// it.
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
		if searched == 0 && !c.rest() {
			return nil, session.ErrClientGone
		}
		err := c.in.Fill(c.engine.MaxHead + 1)
		if searched == 0 && !c.wake() {
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

// rest notes that serve waits for the next request. False: it is not wanted any more.
func (c *connection) rest() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead = false
	c.boundIdle()
	return !c.closing && !c.engine.Draining.Load()
}

// wake notes that the client has sent something. False: it comes too late.
func (c *connection) wake() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead = true
	return !c.closing
}

// idle says whether nothing is in flight. Called with c.mu held.
func (c *connection) idle() bool {
	return !c.ahead && (c.current == nil || c.current.answered && c.current.sent)
}

// boundIdle bounds how long the client may be silent from now on, if nothing is in flight. Called with c.mu held.
func (c *connection) boundIdle() {
	if c.engine.IdleTimeout > 0 && c.idle() && !c.closing {
		_ = c.conn.SetReadDeadline(time.Now().Add(c.engine.IdleTimeout))
	}
}

// closeIdle ends the client connection if nothing is in flight on it.
func (c *connection) closeIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle() && !c.closing {
		c.hangUp()
	}
}

// hangUp tells the client that nothing more comes, and bounds how long serve goes on reading from it, so that it can
// read what it was sent before a reset could destroy it: RFC 9112, section 9.6. Called with c.mu held.
func (c *connection) hangUp() {
	c.closing = true
	session.CloseWrite(c.conn)
	_ = c.conn.SetReadDeadline(time.Now().Add(c.engine.Linger))
}

// linger reads what the client still sends, until it ends or time is up, and drops it.
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
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing = true
	if c.current != nil {
		_ = c.current.up.conn.Close() // pinned no more, maybe
	}
}

func (c *connection) Retire(gone func(string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, u := range c.ups {
		if gone(id) {
			delete(c.ups, id)
			if u.ex == nil {
				u.drop()
			} else {
				u.last = true
			}
		}
	}
}

// refuseMalformed answers a request of which no sense can be made, or no further request, and ends the connection.
func (c *connection) refuseMalformed(err error) {
	var m *message.Malformed
	if !errors.As(err, &m) {
		c.mu.Lock()
		told := c.closing
		c.mu.Unlock()
		if told {
			c.linger()
		}
		return
	}
	c.engine.Stats.Malformed.Add(1)
	c.answer(&engine.Refusal{Status: m.Status, Reason: m.Reason}, false, false, false)
}

// answer writes an answer of the engine's own, between exchanges. It returns whether the connection goes on.
func (c *connection) answer(r *engine.Refusal, toHEAD, keep, old bool) bool {
	keep = keep && !c.engine.Draining.Load()
	if r.Status == 0 {
		session.Reset(c.conn)
		return false
	}
	_, err := c.conn.Write(FormatRefusal(r, toHEAD, keep, old))
	if err == nil && !keep {
		c.mu.Lock()
		c.hangUp()
		c.mu.Unlock()
		c.linger()
	}
	return err == nil && keep
}

// serveOne serves one request and returns whether the connection goes on.
func (c *connection) serveOne(h *head) bool {
	body := requestFraming(h)
	ex := &exchange{
		toHEAD: string(h.Method) == http.MethodHead, connect: string(h.Method) == http.MethodConnect,
		upgrade: h.upgrades && h.upgrade != nil, old: h.minor == 0, persists: h.persists(),
		bodyless: body.kind == none, decision: c.decider.Decide(&h.Head), done: make(chan struct{}),
	}
	d := &ex.decision
	if d.Refusal != nil {
		d.Observe(engine.Refused, nil)
		return c.answer(d.Refusal, ex.toHEAD, ex.persists && ex.bodyless, ex.old)
	}
	// The part of the body that is there already is looked at before anything of the request goes anywhere.
	n, sent, err := body.take(c.in.Bytes())
	if err != nil {
		c.refuseMalformed(err)
		return false
	}
	if d.Tunnel != nil {
		return c.serveTunnel(ex)
	}
	out := c.request(h, d, n)
	ex.ahead = c.in.Len() > n
	if ex.bodyless && message.Idempotent(h.Method) {
		ex.whole = out
	}
	u, err := c.attach(ex)
	if err != nil {
		return c.unreachable(ex, err)
	}
	_, err = u.conn.Write(out)
	c.in.Skip(n)
	switch {
	case ex.bodyless: // if it did not get there, the answering loop finds out, and may send it again
		err = nil
	case err == nil && !sent:
		err = c.sendBody(ex, &body)
	}
	return c.finish(ex, err == nil)
}

// unreachable answers a request for which no backend accepted a connection.
func (c *connection) unreachable(ex *exchange, err error) bool {
	ex.decision.Observe(engine.Refused, nil)
	r := ex.decision.Failure
	r.Reason += err.Error()
	return c.answer(&r, ex.toHEAD, ex.persists && ex.bodyless, ex.old)
}

// request returns the request's head, edited as it must be, and the first n bytes of its body.
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

// attach finds a connection to one of the exchange's backends, the pinned one or a new one, and makes ex the exchange
// that is answered there.
func (c *connection) attach(ex *exchange) (*upstream, error) {
	err := errors.New("there is no backend")
	for i := range ex.decision.Backends {
		b := &ex.decision.Backends[i]
		c.mu.Lock()
		u := c.ups[b.ID]
		if u != nil {
			u.backend = *b
			u.start(ex)
			c.mu.Unlock()
			return u, nil
		}
		c.mu.Unlock()
		conn, dialErr := session.Dial(c.ctx, b)
		if dialErr != nil {
			err = dialErr
			continue
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.closing {
			_ = conn.Close()
			return nil, session.ErrClientGone
		}
		u = c.pin(b, conn)
		u.start(ex)
		return u, nil
	}
	return nil, err
}

// sendBody sends the rest of the request's body as it comes. An error means that it did not get there whole.
func (c *connection) sendBody(ex *exchange, body *framing) error {
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
			c.mu.Lock()
			ex.fault = err
			up := ex.up
			c.mu.Unlock()
			c.engine.Stats.Malformed.Add(1)
			session.Reset(up.conn) // what got there must not look whole
			return err
		}
		if _, err := ex.up.conn.Write(c.in.Bytes()[:n]); err != nil {
			return err // the answering loop finds out why
		}
		c.in.Skip(n)
	}
	return nil
}

// clientEnded passes on to the backend that the client has ended its half, or broken off.
func (c *connection) clientEnded(ex *exchange, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ex.replay, ex.left = nil, true
	switch {
	case ex.answered || ex.up == nil || c.closing:
	case errors.Is(err, io.EOF):
		session.CloseWrite(ex.up.conn)
	default:
		session.Reset(ex.up.conn)
	}
}

// finish waits for the exchange's end and returns whether the connection goes on. whole says that the request is out.
func (c *connection) finish(ex *exchange, whole bool) bool {
	c.mu.Lock()
	ex.sent = whole
	if whole && ex.answered {
		ex.up.release()
		c.boundIdle()
	}
	over := !whole || ex.answered && !ex.keep
	c.mu.Unlock()
	ended := !whole
	if !over && c.in.Len() == 0 {
		// Watch the client meanwhile. What it sends ahead stays in the buffer.
		err := c.in.Fill(session.LargeBuffer)
		c.wake()
		if err != nil {
			c.clientEnded(ex, err)
			ended = true
		}
	}
	<-ex.done
	if ex.tunnel != nil {
		if !ended {
			session.CopyHalf(ex.tunnel.conn, c.conn, c.in.Bytes())
		}
		<-ex.tunnel.over
		_ = ex.tunnel.conn.Close()
		return false
	}
	c.mu.Lock()
	goesOn := ex.keep && !ended && !c.closing
	if !goesOn && !c.closing {
		c.hangUp()
	}
	c.mu.Unlock()
	if !goesOn && (!ended || !whole) {
		c.linger()
	}
	return goesOn
}

// serveTunnel answers a CONNECT and serves what comes through the tunnel.
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

// pin makes conn the client's connection to b. Called with c.mu held.
func (c *connection) pin(b *engine.Backend, conn net.Conn) *upstream {
	if len(c.ups) >= maxPins {
		var oldest *upstream
		for _, u := range c.ups {
			if u.ex == nil && (oldest == nil || u.used < oldest.used) {
				oldest = u
			}
		}
		if oldest != nil {
			delete(c.ups, oldest.backend.ID)
			oldest.drop()
		}
	}
	u := &upstream{c: c, backend: *b, conn: conn, in: session.Buffer{Conn: conn}, over: make(chan struct{})}
	c.ups[b.ID] = u
	go u.loop()
	return u
}
