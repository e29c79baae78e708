package http2

import (
	"golang.org/x/net/http2"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/session"
)

// Flow control of what peers send: RFC 9113, section 5.2. A connection's window is granted again as soon as bytes are
// received, not when they are forwarded. So a stream that nobody reads stops itself, by its own window, and no other.
//
// What is held for such streams is bounded all the same. Beyond looseHold, the connection is tight: each stream gets a
// small window (SETTINGS_INITIAL_WINDOW_SIZE, which reaches the peer before any further connection window). The window
// is so small that all possible streams hold at most sharedHold. Streams whose data is forwarded at once borrow a
// larger window, within lentHold, so that they stay fast. So a peer that keeps to its windows never makes the engine
// hold more than looseHold + connWindow (in flight when the connection became tight) + sharedHold + lentHold, and
// always has connection window. A peer that does not stops at maxHold.
const (
	streamWindow = 64 << 10 // of a stream, unless the connection is tight
	connWindow   = 1 << 20  // of a connection: what may be in flight

	looseHold  = 2 << 20
	sharedHold = 3 << 20
	lentHold   = 1 << 20
	maxHold    = looseHold + connWindow + sharedHold + lentHold + connWindow

	minWindow = 256      // of a stream of a tight connection
	loan      = 32 << 10 // what one stream borrows
)

// holding tracks what a connection's peer may send, and what is held of it until it is forwarded. The relay's mutex
// guards it.
type holding struct {
	recvWindow int64 // what the peer may still send, over all streams
	held       int64 // bytes received and not forwarded yet
	tight      bool  // held is so large that streams have small windows

	lent int64 // of lentHold

	share     func() int64  // the window of a stream when the connection is tight
	grant     func(*stream) // grants a stream's window again, if it is time to
	tightened func()        // called when the connection has become tight
}

// granting tracks what one peer may send on a stream. The relay's mutex guards it.
type granting struct {
	may  int64      // what it may still send, if the connection is not tight
	owed int64      // what it sent, and was forwarded, and was not granted again yet
	from *frameConn // that lent a larger window; nil: none did
}

// lend lends the sender a larger window if the connection is tight, and h forwards its data at once.
func (g *granting) lend(c *frameConn, h *outgoing) {
	if !c.tight || g.from != nil || c.lent+loan > lentHold || h.data.Len() > 0 || h.conn == nil || h.conn.sendWindow <= 0 {
		return
	}
	c.lent += loan
	g.from = c
	g.owed += loan
}

// endLoan ends a loan.
func (g *granting) endLoan() {
	if g.from != nil {
		g.from.lent -= loan
		g.from = nil
	}
}

// due takes the amount to grant again, if it is large enough to announce.
func (g *granting) due(c *frameConn) (n uint32, ok bool) {
	window := c.streamWindow()
	if g.from != nil {
		window += loan
	}
	if g.owed == 0 || g.owed < window/2 || c.state != sending {
		return 0, false
	}
	n = uint32(g.owed) //nolint:gosec // at most streamWindow and a loan
	g.may += g.owed
	g.owed = 0
	c.sendable.Signal()
	return n, true
}

// tightWindow is the window of a stream of a tight connection, to the client or to a backend.
func (r *relay) tightWindow() int64 {
	return max(minWindow, min(streamWindow, sharedHold/int64(max(r.maxStreams, 1))))
}

// streamWindow is what one stream of the connection may have in flight and held, in bytes.
func (c *frameConn) streamWindow() int64 {
	if c.tight {
		return c.share()
	}
	return streamWindow
}

// received subtracts n bytes from the peer's connection window, and holds them. False: the peer exceeded its window.
func (c *frameConn) received(n int) bool {
	c.recvWindow -= int64(n)
	c.held += int64(n)
	if c.recvWindow < 0 {
		return false
	}
	c.balance()
	return true
}

// usedUp records that n received bytes are no longer held.
func (c *frameConn) usedUp(n int) {
	c.held -= int64(n)
	c.balance()
}

// balance grants windows according to what is held.
func (c *frameConn) balance() {
	if c.state != sending {
		return
	}
	switch {
	case !c.tight && c.held > looseHold:
		c.tight = true
		c.resizeStreams()
		if c.tightened != nil {
			c.tightened()
		}
	case c.tight && c.held <= looseHold/2:
		c.tight = false
		c.resizeStreams()
	}
	n := min(connWindow, maxHold-c.held) - c.recvWindow
	if n >= connWindow/4 {
		_ = c.wr.WriteWindowUpdate(0, uint32(n)) //nolint:gosec // at most connWindow
		c.recvWindow += n
		c.sendable.Signal()
	}
}

// resizeStreams announces a new window of all streams. What was not granted again to a stream, because it had enough,
// may exceed a smaller window.
func (c *frameConn) resizeStreams() {
	c.writeWindowSetting()
	for _, st := range c.streams {
		c.grant(st)
	}
	c.sendable.Signal()
}

// writeWindowSetting announces the window of all streams.
func (c *frameConn) writeWindowSetting() {
	window := uint32(c.streamWindow()) //nolint:gosec // small
	_ = c.wr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
	c.settingsSent++
	c.sendable.Signal()
}

// keptBuffer is how much memory a half keeps while it is empty: one frame's, or less if there are many halves.
func (c *frameConn) keptBuffer() int {
	const many = 64
	if len(c.streams) > many {
		return session.SmallBuffer
	}
	return maxFrame
}

// grantClient lets the client send as much on the stream as was forwarded. Small amounts are collected first.
func (st *stream) grantClient() {
	if st.request == requestWhole || st.clientClosed {
		return
	}
	if n, ok := st.fromClient.due(st.r.client); ok {
		_ = st.r.client.wr.WriteWindowUpdate(st.id, n)
	}
}

// grantUp lets the backend send as much on the stream as was forwarded. Small amounts are collected first.
func (st *stream) grantUp() {
	if st.answered == answerWhole || st.upClosed {
		return
	}
	if n, ok := st.fromUp.due(st.up.frameConn); ok {
		_ = st.up.wr.WriteWindowUpdate(st.toUp.id, n)
	}
}

// dropLeftovers drops what is held of requests whose clients have their responses. It belongs to no stream of the
// client any more, so no limit of streams bounds it.
func (r *relay) dropLeftovers() {
	for up := range r.all {
		if up.frameConn == nil {
			continue
		}
		for _, st := range up.streams {
			if st.clientClosed {
				st.dropRequest()
			}
		}
	}
}

// dropRequest ends the rest of a request whose response was sent.
func (st *stream) dropRequest() {
	if st.up == nil || st.upClosed || st.toUp.ended || st.toUp.id == 0 {
		return
	}
	st.up.cancelStream(st.toUp.id, http2.ErrCodeCancel)
	st.discard(&st.toUp)
	st.closeUp()
}
