package engine

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

const errorHeader = sandbox.HeaderError

// StatusText returns the phrase that goes with a status code.
func StatusText(code int) string { return http.StatusText(code) }

// h1 is a client connection that speaks HTTP/1. Two kinds of goroutines work on it:
//
//   - serve reads from the client and writes to backends: heads, bodies, the end of the client's half;
//   - one loop for each backend connection reads from it and writes to the client, while an answer is due from there.
//
// So both directions are live at any time: an answer may begin, and end, while its request is still being sent. There is one
// exchange at a time: a pipelined request waits in the buffer until the exchange before is over. The client is written to
// by the loop whose backend owes the answer, and by serve only between exchanges.
type h1 struct {
	*session
	e       *Engine
	in      *buffer
	decider Decider
	scratch []byte // for heads that are edited

	mu      sync.Mutex
	ups     map[string]*h1Up // by Backend.ID: pinned connections, each for this client alone
	uses    uint64           // counts attachments, to find the pin not used for longest
	current *exchange        // the last one that reached a backend
	ahead   bool             // serve has bytes of a request that is not current yet
	closing bool             // the client was told that nothing more is answered
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
	decision Decision
	whole    []byte // the whole request, when it is small and idempotent; valid until it is out
	replay   []byte // a copy of it, when it went out on a connection that may have been stale

	up       *h1Up // guarded by h1.mu, as are the next four
	sent     bool  // the request is out whole
	answered bool  // the answer is
	left     bool  // the client has ended its half
	fault    error // what is wrong with the request's body

	begun bool // the final answer's head is at the client. Of the answering loop

	done   chan struct{} // closed when answered. What follows is valid then
	keep   bool          // the connection goes on
	tunnel *h1Up         // the connection is a tunnel to there now
}

// serveHTTP1 serves a client that speaks HTTP/1. app, when not nil, is a connection to def that is made already.
func (e *Engine) serveHTTP1(s *session, d Decider, in *buffer, def Backend, app net.Conn) {
	c := &h1{session: s, e: e, in: in, decider: d, ups: make(map[string]*h1Up), ahead: true}
	defer c.closeAll()
	if app != nil {
		c.mu.Lock()
		c.pin(&def, app).served = 1 // may be stale like one that was used
		c.mu.Unlock()
	}
	e.became(s, c)
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

func (c *h1) closeAll() {
	_ = c.conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, u := range c.ups {
		u.drop()
	}
}

var (
	errClientGone = errors.New("client has ended the connection")
	errHeadSlow   = &malformed{408, "request head took too long"}
	errHeadLong   = &malformed{431, "request head is too long"}
)

// readHead reads the next request's head. The connection may be idle for as long as client, backend and IdleTimeout let it.
func (c *h1) readHead() (*head, error) {
	searched, slow := 0, false
	c.in.shrink()
	for {
		for searched == 0 && c.in.len() > 0 && (c.in.bytes()[0] == '\r' || c.in.bytes()[0] == '\n') {
			c.in.skip(1) // RFC 9112, section 2.2
		}
		if n := headEnd(c.in.bytes(), searched); n > 0 {
			if slow || c.e.IdleTimeout > 0 {
				_ = c.conn.SetReadDeadline(time.Time{})
			}
			if n > c.e.MaxHead {
				return nil, errHeadLong
			}
			h, err := parseRequest(c.in.bytes()[:n])
			if err == nil {
				c.in.skip(n)
			}
			return h, err
		}
		searched = c.in.len()
		if searched > 0 && !slow {
			slow = true
			_ = c.conn.SetReadDeadline(time.Now().Add(c.e.HeadTimeout))
		}
		if searched == 0 && !c.rest() {
			return nil, errClientGone
		}
		err := c.in.fill(c.e.MaxHead + 1)
		if searched == 0 && !c.wake() {
			return nil, errClientGone
		}
		switch {
		case err == nil:
		case errors.Is(err, errFull):
			return nil, errHeadLong
		case slow && isTimeout(err):
			return nil, errHeadSlow
		default:
			return nil, errClientGone
		}
	}
}

// rest notes that serve waits for the next request. False: it is not wanted any more.
func (c *h1) rest() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead = false
	c.boundIdle()
	return !c.closing && !c.e.draining.Load()
}

// wake notes that the client has sent something. False: it comes too late.
func (c *h1) wake() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead = true
	return !c.closing
}

// idle says whether nothing is in flight. Called with c.mu held.
func (c *h1) idle() bool {
	return !c.ahead && (c.current == nil || c.current.answered && c.current.sent)
}

// boundIdle bounds how long the client may be silent from now on, if nothing is in flight. Called with c.mu held.
func (c *h1) boundIdle() {
	if c.e.IdleTimeout > 0 && c.idle() && !c.closing {
		_ = c.conn.SetReadDeadline(time.Now().Add(c.e.IdleTimeout))
	}
}

// closeIdle ends the client connection if nothing is in flight on it.
func (c *h1) closeIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle() && !c.closing {
		c.hangUp()
	}
}

// hangUp tells the client that nothing more comes, and bounds how long serve goes on reading from it, so that it can read
// what it was sent before a reset could destroy it: RFC 9112, section 9.6. Called with c.mu held.
func (c *h1) hangUp() {
	c.closing = true
	closeWrite(c.conn)
	_ = c.conn.SetReadDeadline(time.Now().Add(c.e.Linger))
}

// linger reads what the client still sends, until it ends or time is up, and drops it.
func (c *h1) linger() {
	const limit = 1 << 20
	for n := 0; n < limit; n += c.in.len() {
		c.in.r, c.in.w = 0, 0
		if c.in.fill(largeBuffer) != nil {
			return
		}
	}
}

func (c *h1) drain() { c.closeIdle() }

func (c *h1) kill() {
	_ = c.conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closing = true
	if c.current != nil {
		_ = c.current.up.conn.Close() // pinned no more, maybe
	}
}

func (c *h1) retire(gone func(string) bool) {
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
func (c *h1) refuseMalformed(err error) {
	var m *malformed
	if !errors.As(err, &m) {
		c.mu.Lock()
		told := c.closing
		c.mu.Unlock()
		if told {
			c.linger()
		}
		return
	}
	c.e.Stats.Malformed.Add(1)
	c.answer(&Refusal{Status: m.status, Reason: m.reason}, false, false, false)
}

// answer writes an answer of the engine's own, between exchanges. It returns whether the connection goes on.
func (c *h1) answer(r *Refusal, toHEAD, keep, old bool) bool {
	keep = keep && !c.e.draining.Load()
	if r.Status == 0 {
		reset(c.conn)
		return false
	}
	_, err := c.conn.Write(refusalHTTP1(r, toHEAD, keep, old))
	if err == nil && !keep {
		c.mu.Lock()
		c.hangUp()
		c.mu.Unlock()
		c.linger()
	}
	return err == nil && keep
}

// serveOne serves one request and returns whether the connection goes on.
func (c *h1) serveOne(h *head) bool {
	body := requestFraming(h)
	ex := &exchange{
		toHEAD: string(h.Method) == http.MethodHead, connect: string(h.Method) == http.MethodConnect,
		upgrade: h.upgrades && h.upgrade != nil, old: h.minor == 0, persists: h.persists(),
		bodyless: body.kind == none, decision: c.decider.Decide(&h.Head), done: make(chan struct{}),
	}
	d := &ex.decision
	if d.Refusal != nil {
		d.observe(Refused, nil)
		return c.answer(d.Refusal, ex.toHEAD, ex.persists && ex.bodyless, ex.old)
	}
	// The part of the body that is there already is looked at before anything of the request goes anywhere.
	n, sent, err := body.take(c.in.bytes())
	if err != nil {
		c.refuseMalformed(err)
		return false
	}
	if d.Tunnel != nil {
		return c.serveTunnel(ex)
	}
	out := c.request(h, d, n)
	ex.ahead = c.in.len() > n
	if ex.bodyless && idempotent(h.Method) {
		ex.whole = out
	}
	u, err := c.attach(ex)
	if err != nil {
		return c.unreachable(ex, err)
	}
	_, err = u.conn.Write(out)
	c.in.skip(n)
	switch {
	case ex.bodyless: // if it did not get there, the answering loop finds out, and may send it again
		err = nil
	case err == nil && !sent:
		err = c.sendBody(ex, &body)
	}
	return c.finish(ex, err == nil)
}

// unreachable answers a request for which no backend accepted a connection.
func (c *h1) unreachable(ex *exchange, err error) bool {
	ex.decision.observe(Refused, nil)
	r := ex.decision.Failure
	r.Reason += err.Error()
	return c.answer(&r, ex.toHEAD, ex.persists && ex.bodyless, ex.old)
}

// request returns the request's head, edited as it must be, and the first n bytes of its body.
func (c *h1) request(h *head, d *Decision, n int) []byte {
	edits := withoutH2C(d.Edits, h)
	if edits.empty() && (n == 0 || c.in.r >= len(h.raw)) {
		// As it stands in the buffer, in one piece.
		if n == 0 {
			return h.raw
		}
		return c.in.b[c.in.r-len(h.raw) : c.in.r+n]
	}
	c.scratch = appendEdited(c.scratch[:0], h, &edits)
	c.scratch = append(c.scratch, c.in.bytes()[:n]...)
	return c.scratch
}

// idempotent says whether a request may be sent again when nobody knows what became of it: RFC 9110, section 9.2.2.
func idempotent(method []byte) bool {
	switch string(method) {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// attach finds a connection to one of the exchange's backends, the pinned one or a new one, and makes ex the exchange that
// is answered there.
func (c *h1) attach(ex *exchange) (*h1Up, error) {
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
		conn, dialErr := c.e.dial(c.ctx, b)
		if dialErr != nil {
			err = dialErr
			continue
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.closing {
			_ = conn.Close()
			return nil, errClientGone
		}
		u = c.pin(b, conn)
		u.start(ex)
		return u, nil
	}
	return nil, err
}

// sendBody sends the rest of the request's body as it comes. An error means that it did not get there whole.
func (c *h1) sendBody(ex *exchange, body *framing) error {
	for done := false; !done; {
		if c.in.len() == 0 {
			if err := c.in.fill(largeBuffer); err != nil {
				c.clientEnded(ex, err)
				return err
			}
		}
		n, end, err := body.take(c.in.bytes())
		done = end
		if err != nil {
			c.mu.Lock()
			ex.fault = err
			up := ex.up
			c.mu.Unlock()
			c.e.Stats.Malformed.Add(1)
			reset(up.conn) // what got there must not look whole
			return err
		}
		if _, err := ex.up.conn.Write(c.in.bytes()[:n]); err != nil {
			return err // the answering loop finds out why
		}
		c.in.skip(n)
	}
	return nil
}

// clientEnded passes on to the backend that the client has ended its half, or broken off.
func (c *h1) clientEnded(ex *exchange, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ex.replay, ex.left = nil, true
	switch {
	case ex.answered || ex.up == nil || c.closing:
	case errors.Is(err, io.EOF):
		closeWrite(ex.up.conn)
	default:
		reset(ex.up.conn)
	}
}

// finish waits for the exchange's end and returns whether the connection goes on. whole says that the request is out.
func (c *h1) finish(ex *exchange, whole bool) bool {
	c.mu.Lock()
	ex.sent = whole
	if whole && ex.answered {
		ex.up.release()
		c.boundIdle()
	}
	over := !whole || ex.answered && !ex.keep
	c.mu.Unlock()
	ended := !whole
	if !over && c.in.len() == 0 {
		// Watch the client meanwhile. What it sends ahead stays in the buffer.
		err := c.in.fill(largeBuffer)
		c.wake()
		if err != nil {
			c.clientEnded(ex, err)
			ended = true
		}
	}
	<-ex.done
	if ex.tunnel != nil {
		if !ended {
			copyHalf(ex.tunnel.conn, c.conn, c.in.bytes())
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
func (c *h1) serveTunnel(ex *exchange) bool {
	err := errors.New("there is no backend")
	for i := range ex.decision.Backends {
		b := &ex.decision.Backends[i]
		conn, dialErr := c.e.dial(c.ctx, b)
		if dialErr != nil {
			err = dialErr
			continue
		}
		ex.decision.observe(Answered, b)
		if _, err := c.conn.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n")); err != nil {
			_ = conn.Close()
			return false
		}
		c.e.openWith(c.session, ex.decision.Tunnel, c.in, conn)
		return false
	}
	return c.unreachable(ex, err)
}

// pin makes conn the client's connection to b. Called with c.mu held.
func (c *h1) pin(b *Backend, conn net.Conn) *h1Up {
	if len(c.ups) >= maxPins {
		var oldest *h1Up
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
	u := &h1Up{c: c, backend: *b, conn: conn, in: buffer{conn: conn}, over: make(chan struct{})}
	c.ups[b.ID] = u
	go u.loop()
	return u
}
