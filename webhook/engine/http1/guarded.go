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

// guarded holds a client connection's state, which only who holds the lock has at hand.
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
	request  request
	decision engine.Decision
	whole    []byte // the whole request, when it is small and idempotent; valid until it is out

	guarded progress // reached by under
	begun   bool     // the final answer's head is at the client. Of the answering loop

	done    chan struct{} // closed when answered
	outcome outcome       // valid once done is closed
}

// request is what is to be known of a request while it is answered.
type request struct {
	method    method
	version   version
	upgrades  bool // the client offered to
	persists  bool // the client wants to go on after it
	bodyless  bool
	pipelined bool // more than this request was read
}

// method tells apart the methods whose answers are framed in ways of their own.
type method uint8

const (
	methodOther method = iota
	methodHead
	methodConnect
)

// version is that of a request.
type version uint8

const (
	http11 version = iota
	http10
)

// refusal returns the answer r to the request; keep says whether the connection goes on.
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

// progress is how far an exchange is. It is guarded by the state of its connection.
type progress struct {
	up      *upstream
	replay  []byte // a copy of the whole request, when it went out on a connection that may have been stale
	request requestState
	answer  answerState
	client  clientHalf
	fault   error // what is wrong with the request's body
}

type requestState uint8

const (
	requestSending requestState = iota // or cut off
	requestSent                        // it is out whole
)

type answerState uint8

const (
	answerDue  answerState = iota
	answerDone             // it is out whole
)

// clientHalf is what became of the half of the connection that the client sends by.
type clientHalf uint8

const (
	halfOpen clientHalf = iota
	halfEnded
)

// under returns the progress of ex to who holds the lock.
func (ex *exchange) under(*state) *progress { return &ex.guarded }

// outcome says what becomes of the client connection after an exchange.
type outcome struct {
	keep   bool      // the connection goes on
	tunnel *upstream // the connection is a tunnel to there now
}

// idle says whether nothing is in flight.
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

// hangUp tells the client that nothing more comes, and bounds how long serve goes on reading from it, so that it can
// read what it was sent before a reset could destroy it: RFC 9112, section 9.6.
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

// pinned is what is known of a connection to a backend. It is guarded by the state of the client's connection.
type pinned struct {
	ex     *exchange // that is answered here, until it is over on both sides
	served int       // exchanges begun
	used   uint64    // when last, in state.uses
	last   bool      // no further exchange: gone from state.ups
}

// under returns what is known of u to who holds the lock.
func (u *upstream) under(*state) *pinned { return &u.guarded }

// start makes ex the exchange that is answered on u.
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

// release ends the exchange on u, both of whose halves are over.
func (s *state) release(u *upstream) {
	p := u.under(s)
	if p.ex = nil; p.last {
		u.drop()
	}
}
