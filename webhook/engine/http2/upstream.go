package http2

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"time"

	"golang.org/x/net/http2"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/message"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/session"
)

// upstream is a connection to a backend that speaks HTTP/2, for the streams of one client. The relay's mutex guards it.
type upstream struct {
	*frameConn // nil until connected
	r          *relay
	backend    engine.Backend
	waiting    []*stream     // for the backend's SETTINGS, or for it to allow more streams
	held       int           // size of their heads, in bytes
	settled    chan struct{} // closed when it has sent its SETTINGS, or cannot, or takes too long
	waited     bool          // settled is closed
	ready      bool          // it has sent its SETTINGS
	leaving    bool          // it accepts no new streams
	over       bool          // it is closed

	nextID        uint32
	maxStreams    uint32 // that it allows
	extended      bool   // it supports CONNECT for other protocols
	answered      int    // streams that it responded to
	pendingResets pendingResets
	cancel        context.CancelFunc
}

// accept queues st until a stream can be opened. An error says why it cannot be queued. The bound is in bytes, and
// depends on what other backends leave, so that no backend takes all that a client connection may hold. The error
// blames only a backend that does not read.
func (up *upstream) accept(st *stream) error {
	switch held := up.held + st.size; {
	case held > maxQueued && up.frameConn != nil && up.stuck():
		return fmt.Errorf("%s does not read what it is sent", up.backend.Addr)
	case held > 2*(maxHeads-up.r.held):
		return fmt.Errorf("requests of more than %d bytes wait for %s, as many as a router holds", up.held, up.backend.Addr)
	}
	up.hold(st.size)
	up.waiting = append(up.waiting, st)
	return nil
}

// hold adds n bytes of waiting heads.
func (up *upstream) hold(n int) {
	up.held += n
	up.r.held += n
}

var errNotHTTP2 = errors.New("it does not speak HTTP/2")

// connect starts a connection to b. If conn is not nil, it uses that; spoke was read from it already.
func (r *relay) connect(b *engine.Backend, conn net.Conn, spoke []byte) *upstream {
	ctx, cancel := context.WithCancel(r.ctx)
	up := &upstream{r: r, backend: *b, settled: make(chan struct{}), nextID: 1, maxStreams: math.MaxUint32, cancel: cancel}
	r.ups[b.ID] = up
	r.all[up] = struct{}{}
	r.guard.pool.Go(func() { up.run(ctx, r.guard, conn, spoke) })
	return up
}

// run connects, and reads until the connection has ended.
func (up *upstream) run(ctx context.Context, g *guarded, conn net.Conn, spoke []byte) {
	defer up.cancel()
	var err error
	if conn == nil {
		conn, err = session.Dial(ctx, &up.backend)
	}
	r := g.lock()
	defer g.unlock()
	if err != nil {
		up.failed(err)
		return
	}
	from := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(spoke), conn), maxFrame)
	up.frameConn = newFrameConn(&g.mu, conn, from, r.engine.MaxHead, holding{
		share: r.tightWindow, grant: (*stream).grantUp,
	})
	if r.gone {
		up.kill()
		up.failed(session.ErrClientGone)
		return
	}
	up.taken = up.openWaiting
	_, _ = up.out.WriteString(http2.ClientPreface)
	_ = up.wr.WriteSettings(
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: up.fr.MaxHeaderListSize},
	)
	up.settingsSent = 1
	_ = up.wr.WriteWindowUpdate(0, connWindow-65535)
	g.pool.Go(up.writeLoop)
	if t := up.backend.Timeout; t > 0 {
		_ = conn.SetReadDeadline(time.Now().Add(t)) // until it is ready
	}
	g.unlock()
	err = up.read(g)
	g.lock()
	up.kill()
	up.failed(err)
}

// read reads the backend's frames until the connection ends.
func (up *upstream) read(g *guarded) error {
	for {
		f, err := up.fr.ReadFrame()
		g.lock().client.awaitRoom()
		if err == nil {
			err = up.take(f)
		}
		var se http2.StreamError
		var ce http2.ConnectionError
		switch {
		case err == nil:
		case errors.As(err, &se) && up.ready:
			up.rst(se.StreamID, se.Code)
			if st := up.streams[se.StreamID]; st != nil {
				st.lost(fmt.Errorf("its answer breaks the protocol: %w", se))
			}
		case errors.As(err, &ce):
			up.goAway(0, http2.ErrCode(ce), "")
			up.end()
			g.unlock()
			return fmt.Errorf("it breaks the protocol: %w", err)
		default:
			g.unlock()
			return err
		}
		g.unlock()
	}
}

// take processes one frame from the backend.
func (up *upstream) take(f http2.Frame) error {
	id := f.Header().StreamID
	s, isSettings := f.(*http2.SettingsFrame)
	if !up.ready && (!isSettings || s.IsAck()) {
		return errNotHTTP2
	}
	st := up.streams[id]
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		if up.pendingResets.answered(id, up.nextID) {
			up.openWaiting()
		}
		if st == nil {
			return nil // was reset
		}
		return st.answerHead(f)
	case *http2.DataFrame:
		n := int(f.Length)
		if !up.received(n) {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		if st == nil {
			up.usedUp(n)
			return nil
		}
		return st.answerBody(f, n)
	case *http2.SettingsFrame:
		return up.takeSettings(f)
	case *http2.WindowUpdateFrame:
		if st == nil {
			return up.windowUpdate(f, nil)
		}
		return up.windowUpdate(f, &st.toUp)
	case *http2.RSTStreamFrame:
		if st != nil {
			up.resetBy(st, f.ErrCode)
		}
	case *http2.PingFrame:
		up.ping(f)
	case *http2.GoAwayFrame:
		up.goneAway(f)
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil
}

func (up *upstream) takeSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		up.settingsSent = max(up.settingsSent-1, 0)
		if up.pendingResets.acknowledged(up.nextID) {
			up.openWaiting()
		}
		return nil
	}
	if n, ok := f.Value(http2.SettingMaxConcurrentStreams); ok {
		up.maxStreams = n
	}
	if n, ok := f.Value(http2.SettingEnableConnectProtocol); ok {
		up.extended = n == 1
	}
	if err := up.settings(f, func(st *stream) *outgoing { return &st.toUp }); err != nil {
		return err
	}
	if !up.ready {
		up.ready = true
		_ = up.conn.SetReadDeadline(time.Time{})
		up.settle()
	}
	up.openWaiting()
	return nil
}

// settle releases those that wait for the backend's SETTINGS.
func (up *upstream) settle() {
	if !up.waited {
		up.waited = true
		close(up.settled)
	}
}

// openWaiting opens streams for waiting requests, as far as the backend allows and reads.
func (up *upstream) openWaiting() {
	for up.ready && !up.leaving && len(up.waiting) > 0 && up.mayOpen() {
		st := up.waiting[0]
		up.waiting = up.waiting[1:]
		up.hold(-st.size)
		if st.extended && !up.extended {
			st.next++
			st.place(fmt.Errorf("%s does not take CONNECT for other protocols", up.backend.Addr))
			continue
		}
		up.open(st)
	}
	if up.leaving {
		up.moveWaiting()
		up.endIfLeft()
	}
}

// mayOpen reports whether the backend accepts another stream now.
func (up *upstream) mayOpen() bool {
	return uint64(len(up.streams)) < uint64(up.maxStreams) && up.out.Len() < maxBatch && up.mayCancel()
}

// moveWaiting places the waiting requests again.
func (up *upstream) moveWaiting() {
	waiting := up.waiting
	up.waiting = nil
	up.hold(-up.held)
	for _, st := range waiting {
		st.place(errors.New("it takes no more requests"))
	}
}

// open sends st's request as a new stream.
func (up *upstream) open(st *stream) {
	h := &st.toUp
	h.conn, h.id, h.window = up.frameConn, up.nextID, up.initial
	up.nextID += 2
	up.streams[h.id] = st
	bare := h.end && h.data.Len() == 0 && h.trailer == nil
	up.headers(h.id, st.head, bare)
	if bare {
		h.ended = true
	} else {
		st.head = nil // no copy of a body is kept, so a request with one cannot be sent again
		h.offer()
	}
	if up.nextID > math.MaxInt32 {
		up.leave()
	}
}

// closed forgets a stream that has ended, or that no longer waits.
func (up *upstream) closed(st *stream) {
	for i, w := range up.waiting {
		if w == st {
			up.waiting = append(up.waiting[:i:i], up.waiting[i+1:]...)
			up.hold(-st.size)
			return
		}
	}
	if up.frameConn == nil || up.streams[st.toUp.id] != st {
		return
	}
	delete(up.streams, st.toUp.id)
	up.answered++
	up.openWaiting()
	up.endIfLeft()
}

// leave stops using up for new streams, and ends it when it has none left.
func (up *upstream) leave() {
	up.leaving = true
	if up.r.ups[up.backend.ID] == up {
		delete(up.r.ups, up.backend.ID)
	}
	if up.ready {
		up.moveWaiting()
		up.endIfLeft()
	}
}

func (up *upstream) endIfLeft() {
	if up.leaving && up.ready && len(up.streams) == 0 && up.state == sending {
		up.goAway(0, http2.ErrCodeNo, "")
		up.end()
		_ = up.conn.SetReadDeadline(time.Now().Add(up.r.engine.Linger))
	}
}

// goneAway processes a GOAWAY: streams that the backend will not process go elsewhere.
func (up *upstream) goneAway(f *http2.GoAwayFrame) {
	last, code := f.LastStreamID, f.ErrCode
	up.leave()
	if up.backend.Anchor {
		up.r.shutdown()
	}
	for id, st := range up.streams {
		if id <= last {
			continue
		}
		delete(up.streams, id)
		if code == http2.ErrCodeNo && st.again() {
			continue
		}
		st.upClosed = true
		up.r.client.rst(st.id, http2.ErrCodeRefusedStream)
		st.abandon(http2.ErrCodeCancel)
	}
	up.endIfLeft()
}

// again places a request again that the backend did not process. False: it cannot be sent again.
func (st *stream) again() bool {
	if st.head == nil || st.answered >= answerReceived || st.clientClosed || st.request != requestWhole {
		return false
	}
	st.toUp = outgoing{stream: st, end: true}
	st.upClosed = false
	st.place(errors.New("it takes no more requests"))
	return true
}

// resetBy propagates a reset of st by the backend.
func (up *upstream) resetBy(st *stream, code http2.ErrCode) {
	if st.answered < answerWhole {
		st.decision.Observe(engine.Broken, &up.backend)
		st.upClosed = true
		delete(up.streams, st.toUp.id)
		up.r.client.rst(st.id, code)
		st.abandon(code)
		up.openWaiting()
		up.endIfLeft()
		return
	}
	// The response is complete, and the backend wants no more of the request.
	st.discard(&st.toUp)
	st.closeUp()
	if st.request != requestWhole && !st.clientClosed {
		if st.toClient.ended {
			up.r.client.rst(st.id, code)
			st.abandon(code)
		} else {
			st.toClient.reset = &code
		}
	}
}

// failed ends up, whose connection could not be made or has ended.
func (up *upstream) failed(cause error) {
	if up.over {
		return
	}
	up.over = true
	r := up.r
	if r.ups[up.backend.ID] == up {
		delete(r.ups, up.backend.ID)
	}
	delete(r.all, up)
	up.settle()
	if r.gone {
		return
	}
	waiting := up.waiting
	up.waiting = nil
	up.hold(-up.held)
	if !up.ready {
		if up.frameConn != nil {
			cause = fmt.Errorf("%s: %w", up.backend.Addr, notHTTP2(cause))
		}
		for _, st := range waiting {
			st.next++
			st.place(cause)
		}
		return
	}
	stale := up.answered > 0 && (errors.Is(cause, io.EOF) || session.IsReset(cause))
	for _, st := range up.streams {
		if stale && message.Idempotent([]byte(st.method)) && st.again() {
			continue
		}
		st.lost(cause)
	}
	for _, st := range waiting {
		st.place(cause)
	}
	if up.backend.Anchor {
		r.shutdown()
	}
}

func notHTTP2(cause error) error {
	if session.IsTimeout(cause) || session.IsReset(cause) || errors.Is(cause, errNotHTTP2) {
		return cause
	}
	return fmt.Errorf("%w: %w", errNotHTTP2, cause)
}

// clientGone ends up, whose client has disconnected, in the same way as the client did.
func (up *upstream) clientGone(hard bool) {
	up.cancel()
	if up.frameConn == nil {
		return
	}
	if hard {
		session.Reset(up.conn)
	}
	up.kill()
}
