package http2

import (
	"bytes"

	"golang.org/x/net/http2"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/message"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/session"
)

// used records that n bytes of h were sent or dropped, and grants their sender as much window.
func (st *stream) used(h *outgoing, n int) {
	if n == 0 {
		return
	}
	if h == &st.toUp {
		c := st.r.client
		st.fromClient.owed += int64(n)
		c.usedUp(n)
		st.fromClient.lend(c, h)
		st.grantClient()
		return
	}
	if st.up == nil {
		return // a response of the engine's own
	}
	own := min(n, st.inserted)
	st.inserted -= own
	n -= own
	st.fromUp.owed += int64(n)
	st.up.usedUp(n)
	st.fromUp.lend(st.up.frameConn, h)
	st.grantUp()
}

// discard drops what was to be sent by h.
func (st *stream) discard(h *outgoing) {
	n := h.data.Len()
	h.data.Reset()
	h.data = bytes.Buffer{}
	h.ended = true
	st.used(h, n)
}

// halfEnded is called when the end of h was sent.
func (st *stream) halfEnded(h *outgoing) {
	if h == &st.toUp {
		st.upMayBeDone()
		return
	}
	if h.reset != nil {
		st.request = requestWhole // nothing more is accepted from the client
	}
	st.clientMayBeDone()
}

// clientMayBeDone closes the client's stream when both its halves have ended.
func (st *stream) clientMayBeDone() {
	if st.request == requestWhole && st.toClient.ended {
		st.closeClient()
	}
}

func (st *stream) closeClient() {
	if st.clientClosed {
		return
	}
	st.clientClosed = true
	delete(st.r.client.streams, st.id)
	if st.r.client.tight {
		st.dropRequest()
	}
	st.fromClient.endLoan()
	st.fromUp.endLoan()
	st.r.endIfOver()
}

// upMayBeDone closes the backend's stream when both its halves have ended.
func (st *stream) upMayBeDone() {
	if st.answered == answerWhole && st.toUp.ended {
		st.closeUp()
	}
}

// closeUp ends the stream at the backend, in whatever state it is.
func (st *stream) closeUp() {
	if st.upClosed || st.up == nil {
		return
	}
	st.upClosed = true
	st.up.closed(st)
}

// abandon ends a stream that the client has reset, or whose client has disconnected.
func (st *stream) abandon(code http2.ErrCode) {
	st.request = requestWhole
	st.discard(&st.toClient)
	if st.up != nil && !st.upClosed && st.toUp.id != 0 {
		st.up.cancelStream(st.toUp.id, code)
	}
	st.discard(&st.toUp) // of a stream that the backend has ended as well: it counts against the client's connection
	st.closeUp()
	st.closeClient()
}

// refuse ends a stream that no backend responds to. unseen means that no backend received the request.
func (st *stream) refuse(r engine.Refusal, unseen bool) {
	if r.Status == 0 {
		st.breakOff(unseen)
		return
	}
	st.answer(&r)
}

// lost ends a stream whose backend failed or broke the protocol; cause is the error.
func (st *stream) lost(cause error) {
	st.decision.Observe(engine.Broken, st.backend())
	st.discard(&st.toUp)
	st.closeUp()
	r := st.decision.Failure
	r.Reason += message.DescribeFailure(cause)
	switch {
	case st.answered == answerWhole: // only the request was cut, and nobody waits for it
		st.wantNoMore()
	case st.answered < answerStarted:
		st.refuse(r, false)
	case st.grpc:
		st.answered = answerWhole
		st.toClient.trailer = grpcFailure(grpcStatus(r.Status), engine.CleanReason(r.Reason))[2:]
		st.toClient.end = true
		st.wantNoMore()
		st.toClient.offer()
	default:
		st.breakOff(false)
	}
}

// breakOff ends a stream as it would end without the engine: with the connection, unless other streams on it go
// elsewhere. unseen means that no backend received the request.
func (st *stream) breakOff(unseen bool) {
	r := st.r
	// A client may have opened this stream before it read the GOAWAY; then it may retry.
	alone := !unseen || !r.leaving
	for _, other := range r.client.streams {
		alone = alone && (other == st || other.up != nil && other.backend().ID == st.backendID())
	}
	if alone {
		session.Reset(r.client.conn)
		r.client.kill()
		return
	}
	code := http2.ErrCodeInternal
	if unseen {
		code = http2.ErrCodeRefusedStream
	}
	r.client.rst(st.id, code)
	st.abandon(http2.ErrCodeCancel)
	r.shutdown()
}
