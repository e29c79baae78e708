package http1

import (
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/session"
)

// guarded holds a client connection's state, which is only reachable while its lock is held.
type guarded struct {
	mu    sync.Mutex
	state state
}

// lock returns the state, until unlock.
func (g *guarded) lock() *state {
	g.mu.Lock()
	return &g.state
}

func (g *guarded) unlock() { g.mu.Unlock() }

// state is what the goroutines of a client connection share. Whoever has a *state holds its lock.
type state struct {
	c       *connection
	ups     map[string]*upstream // by Backend.ID: pinned connections, each for this client only
	uses    uint64               // counts attachments, to find the least recently used pin
	current *exchange            // the last one that reached a backend
	ahead   bool                 // serve has bytes of a request that is not current yet
	closing bool                 // the client was notified that no more responses follow
}

// maxPins bounds the backend connections of one client connection.
const maxPins = 32

// exchange is one request and its response.
type exchange struct {
	request  request
	decision engine.Decision
	whole    []byte // the whole request, if it is small and idempotent; valid until it is sent

	guarded progress // reached by under
	started bool     // the final response's head was sent to the client. Used by the response loop only

	done    chan struct{} // closed when answered
	outcome outcome       // valid once done is closed
}

// request holds the properties of a request that its response depends on.
type request struct {
	method    method
	version   version
	upgrades  bool // the client offered to
	persists  bool // the client wants to keep the connection
	bodyless  bool
	pipelined bool // more than this request was read
}

// method distinguishes the methods whose responses are framed differently.
type method uint8

const (
	methodOther method = iota
	methodHead
	methodConnect
)

// version is the HTTP version of a request.
type version uint8

const (
	http11 version = iota
	http10
)

// refusal formats a refusal of the request; keep means that the connection continues.
func (r request) refusal(with *engine.Refusal, keep bool) []byte {
	return FormatRefusal(with, r.method == methodHead, keep, r.version == http10)
}

func requestOf(h *head, body *framing) request {
	r := request{upgrades: h.upgrades && h.upgrade != nil, persists: h.persists(), bodyless: body.kind == none}
	switch string(h.Method) {
	case http.MethodHead:
		r.method = methodHead
	case http.MethodConnect:
		r.method = methodConnect
	}
	if h.minor == 0 {
		r.version = http10
	}
	return r
}

// progress is the state of an exchange. The state of its connection guards it.
type progress struct {
	up      *upstream
	replay  []byte // a copy of the whole request, if it was sent on a connection that may have been stale
	request requestState
	answer  answerState
	client  clientHalf
	fault   error // what is wrong with the request's body
}

type requestState uint8

const (
	requestSending requestState = iota // or cut off
	requestSent                        // sent completely
)

type answerState uint8

const (
	answerDue  answerState = iota
	answerDone             // sent completely
)

// clientHalf is the state of the client's sending half.
type clientHalf uint8

const (
	halfOpen clientHalf = iota
	halfEnded
)

// under returns the progress of ex to the holder of the lock.
func (ex *exchange) under(*state) *progress { return &ex.guarded }

// outcome is what happens to the client connection after an exchange.
type outcome struct {
	keep   bool      // the connection continues
	tunnel *upstream // the connection is now a tunnel to this backend
}

// idle reports whether nothing is in flight.
func (s *state) idle() bool {
	if s.ahead {
		return false
	}
	if s.current == nil {
		return true
	}
	p := s.current.under(s)
	return p.answer == answerDone && p.request == requestSent
}

// boundIdle bounds how long the client may be silent from now on, if nothing is in flight.
func (s *state) boundIdle() {
	if s.c.engine.IdleTimeout > 0 && s.idle() && !s.closing {
		_ = s.c.conn.SetReadDeadline(time.Now().Add(s.c.engine.IdleTimeout))
	}
}

// hangUp ends the sending half to the client, and bounds how long serve still reads from it. So the client can read
// what it was sent before a reset could destroy it: RFC 9112, section 9.6.
func (s *state) hangUp() {
	s.closing = true
	session.CloseWrite(s.c.conn)
	_ = s.c.conn.SetReadDeadline(time.Now().Add(s.c.engine.Linger))
}

// pin makes conn the client's connection to b.
func (s *state) pin(b *engine.Backend, conn net.Conn) *upstream {
	if len(s.ups) >= maxPins {
		var oldest *upstream
		for _, u := range s.ups {
			if p := u.under(s); p.ex == nil && (oldest == nil || p.used < oldest.under(s).used) {
				oldest = u
			}
		}
		if oldest != nil {
			delete(s.ups, oldest.backend.ID)
			oldest.drop()
		}
	}
	u := &upstream{c: s.c, backend: *b, conn: conn, in: session.Buffer{Conn: conn}, over: make(chan struct{})}
	s.ups[b.ID] = u
	go u.loop()
	return u
}

// pinned is the state of a connection to a backend. The state of the client's connection guards it.
type pinned struct {
	ex     *exchange // the exchange here, until both its halves have ended
	served int       // number of exchanges so far
	used   uint64    // last use, in state.uses
	last   bool      // no further exchange: removed from state.ups
}

// under returns the pinned state of u to the holder of the lock.
func (u *upstream) under(*state) *pinned { return &u.guarded }

// start makes ex the current exchange of u.
func (s *state) start(u *upstream, ex *exchange) {
	p, e := u.under(s), ex.under(s)
	if e.replay = nil; p.served > 0 && ex.whole != nil {
		e.replay = slices.Clone(ex.whole)
	}
	if e.request = requestSending; ex.request.bodyless {
		e.request = requestSent
	}
	p.served++
	s.uses++
	p.used = s.uses
	p.ex, e.up = ex, u
	s.current, s.ahead = ex, ex.request.pipelined
}

// release ends the exchange on u, both of whose halves have ended.
func (s *state) release(u *upstream) {
	p := u.under(s)
	if p.ex = nil; p.last {
		u.drop()
	}
}
