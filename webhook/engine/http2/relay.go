// Package http2 forwards requests of clients that speak HTTP/2: RFC 9113.
package http2

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/session"
)

// relay relays a client connection that speaks HTTP/2. It multiplexes the streams again, over one connection to each of
// their backends. Each half of a stream has its own window on either side, and is buffered while the receiver's window
// is closed. So a slow backend delays only its own streams, and the windows bound what is held.
//
// One goroutine reads each connection and one writes to it. They share the relay under its lock: see guarded.
type relay struct {
	ctx     context.Context // of dialing
	engine  *session.Shared
	decider engine.Decider
	def     engine.Backend
	scratch []byte // for heads shown to the Decider

	client     *frameConn
	ups        map[string]*upstream // by Backend.ID: those that accept new streams
	all        map[*upstream]struct{}
	held       int    // bytes of heads that wait for backends
	last       uint32 // the client's last stream
	maxStreams uint32 // that the client may have open
	budget     budget
	leaving    bool     // a first GOAWAY asked the client to open no more streams
	final      bool     // a second GOAWAY named the last stream
	gone       bool     // the client has disconnected
	guard      *guarded // of this relay
}

// guarded holds a relay, its connections and their streams. Whoever has one of these holds the lock. Goroutines and
// timers have the guarded, and lock it.
type guarded struct {
	mu    sync.Mutex
	relay relay
	pool  sync.WaitGroup // of goroutines
}

// lock returns the relay, until unlock.
func (g *guarded) lock() *relay {
	g.mu.Lock()
	return &g.relay
}

func (g *guarded) unlock() { g.mu.Unlock() }

const (
	// maxStreams bounds the streams of one connection if the default backend does not.
	maxStreams = 8 << 10
	// settleWait bounds how long the client waits for its SETTINGS until the default backend has sent its own.
	settleWait = time.Second
	// goAwayWait is how long a client may take to read the first GOAWAY.
	goAwayWait = time.Second
)

// drainPing is the payload of the PING after a GOAWAY: a response to it means that the GOAWAY was read.
const drainPing = "draining"

// budget limits, by burst and rate, what costs the engine or a backend more than the client, such as causing resets of
// streams (CVE-2025-8671). Clients that keep to the protocol do not exceed it.
type budget struct {
	spent float64
	at    time.Time
}

const (
	budgetBurst = 2000
	budgetRate  = 200 // a second
)

func (b *budget) spend() bool {
	now := time.Now()
	b.spent = max(0, b.spent-budgetRate*now.Sub(b.at).Seconds()) + 1
	b.at = now
	return b.spent <= budgetBurst
}

// Serve serves a client that speaks HTTP/2, whose preface was read.
func Serve(engine *session.Shared, c *session.Client) {
	c.In.Skip(len(http2.ClientPreface))
	from := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(c.In.Bytes()), c.Conn), maxFrame)
	g := &guarded{relay: relay{
		ctx: c.Context, engine: engine, decider: c.Decider, def: c.Backend,
		ups: make(map[string]*upstream), all: make(map[*upstream]struct{}), maxStreams: maxStreams,
	}}
	r := g.lock()
	r.guard = g
	r.client = newFrameConn(&g.mu, c.Conn, from, engine.MaxHead, holding{
		share: r.tightWindow, grant: (*stream).grantClient, tightened: r.dropLeftovers,
	})
	client := r.client
	g.unlock()
	settings := []http2.Setting{
		{ID: http2.SettingInitialWindowSize, Val: streamWindow},
		{ID: http2.SettingMaxHeaderListSize, Val: client.fr.MaxHeaderListSize},
	}
	if c.HasBackend && g.settleDefault(c.App, c.Spoke) {
		settings = append(settings, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
	}
	r = g.lock()
	settings = append(settings, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: r.maxStreams})
	early := bytes.Clone(client.out.Bytes()) // of a default backend that is already closing
	client.out.Reset()
	_ = client.wr.WriteSettings(settings...)
	_ = client.wr.WriteWindowUpdate(0, connWindow-65535)
	_, _ = client.out.Write(early)
	g.unlock()
	g.pool.Go(client.writeLoop)
	c.Serves(g)
	g.lock().watchIdle(0)
	g.unlock()
	err := g.readClient(client)
	g.close(err)
	g.pool.Wait()
}

// settleDefault connects the default backend, and waits for its SETTINGS, at most settleWait. It adopts the backend's
// limit of streams, so that a client may open as many as without the engine. It reports whether extended CONNECT is
// supported.
func (g *guarded) settleDefault(app net.Conn, spoke []byte) (extended bool) {
	r := g.lock()
	defer g.unlock()
	up := r.connect(&r.def, app, spoke)
	timer := time.AfterFunc(settleWait, func() {
		g.lock()
		defer g.unlock()
		up.settle()
	})
	defer timer.Stop()
	settled := up.settled
	g.unlock()
	<-settled
	g.lock()
	r.maxStreams = min(up.maxStreams, maxStreams)
	return up.extended
}

// close ends everything that belongs to the client, whose connection has ended.
func (g *guarded) close(err error) {
	r := g.lock()
	defer g.unlock()
	r.gone = true
	r.client.kill()
	for up := range r.all {
		up.clientGone(session.IsReset(err))
	}
}

// readClient reads the client's frames until the connection ends.
func (g *guarded) readClient(client *frameConn) error {
	for first := true; ; {
		f, err := client.fr.ReadFrame()
		r := g.lock()
		client.awaitRoom()
		if client.state != sending {
			g.unlock()
			_, err := io.Copy(io.Discard, client.conn)
			<-client.sent // a client that closes its sending half at once still gets its responses
			return err
		}
		if err == nil {
			err = r.fromClient(f, first)
			first = false
		}
		var se http2.StreamError
		var ce http2.ConnectionError
		switch {
		case err == nil:
		case errors.As(err, &se):
			r.resetClient(se)
		case errors.As(err, &ce):
			r.refuseConn(http2.ErrCode(ce))
		case errors.Is(err, http2.ErrFrameTooLarge):
			r.refuseConn(http2.ErrCodeFrameSize)
		default:
			g.unlock()
			return err
		}
		g.unlock()
	}
}

// refuseConn ends the connection to a client that breaks the protocol.
func (r *relay) refuseConn(code http2.ErrCode) {
	r.engine.Stats.Malformed.Add(1)
	why := ""
	if err := r.client.fr.ErrorDetail(); err != nil {
		why = err.Error()
	}
	r.client.goAway(r.last, code, why)
	r.endClient()
}

// endClient sends what is queued for the client, and then the end.
func (r *relay) endClient() {
	r.client.end()
	_ = r.client.conn.SetDeadline(time.Now().Add(r.engine.Linger))
}

// resetClient resets a stream on which the client broke the protocol.
func (r *relay) resetClient(se http2.StreamError) {
	r.engine.Stats.Malformed.Add(1)
	r.last = max(r.last, se.StreamID&^(1<<31))
	r.client.rst(se.StreamID, se.Code)
	if st := r.client.streams[se.StreamID]; st != nil {
		st.abandon(http2.ErrCodeCancel)
	}
	if !r.budget.spend() {
		r.refuseConn(http2.ErrCodeEnhanceYourCalm)
	}
}

// fromClient processes one frame from the client.
func (r *relay) fromClient(f http2.Frame, first bool) error {
	id := f.Header().StreamID
	if s, ok := f.(*http2.SettingsFrame); first && (!ok || s.IsAck()) {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	st := r.client.streams[id]
	idle := id > r.last || id%2 == 0 // never opened
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		if st != nil {
			return st.trailers(f)
		}
		return r.request(f)
	case *http2.DataFrame:
		return r.data(f, st, idle)
	case *http2.SettingsFrame:
		if f.IsAck() {
			return nil
		}
		return r.client.settings(f, func(st *stream) *outgoing { return &st.toClient })
	case *http2.WindowUpdateFrame:
		switch {
		case id == 0 || st == nil && !idle:
			return r.client.windowUpdate(f, nil)
		case st == nil:
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		return r.client.windowUpdate(f, &st.toClient)
	case *http2.RSTStreamFrame:
		switch {
		case st == nil && idle:
			return http2.ConnectionError(http2.ErrCodeProtocol)
		case st == nil:
			return nil
		}
		st.abandon(f.ErrCode) // which the protocol allows: pendingResets bounds it
	case *http2.PingFrame:
		if f.IsAck() && string(f.Data[:]) == drainPing {
			r.sendLastStreamID()
		}
		r.client.ping(f)
	case *http2.PriorityFrame:
		if f.StreamDep == id {
			return http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
		}
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil
}

// data processes a DATA frame from the client. st is nil if no such stream is open.
func (r *relay) data(f *http2.DataFrame, st *stream, idle bool) error {
	n := int(f.Length)
	switch {
	case st == nil && idle:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case !r.client.received(n):
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	case n == 0 && !f.StreamEnded() && !r.budget.spend():
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	case st == nil:
		// It may have been sent before the client read the reset, so this is no error of the client.
		r.client.usedUp(n)
		r.client.rst(f.StreamID, http2.ErrCodeStreamClosed)
		return nil
	}
	return st.body(f, n)
}

// watchIdle ends the connection if no stream is open, and none was opened after last for IdleTimeout.
func (r *relay) watchIdle(last uint32) {
	if r.engine.IdleTimeout <= 0 {
		return
	}
	g := r.guard
	time.AfterFunc(r.engine.IdleTimeout, func() {
		r := g.lock()
		defer g.unlock()
		switch {
		case r.gone || r.leaving:
		case r.last == last && len(r.client.streams) == 0:
			r.shutdown()
		default:
			r.watchIdle(r.last)
		}
	})
}

// shutdown lets the client open no more streams, and ends the connection when the open ones have ended: RFC 9113,
// section 6.8.
func (r *relay) shutdown() {
	if r.leaving || r.gone {
		return
	}
	r.leaving = true
	r.client.goAway(1<<31-1, http2.ErrCodeNo, "")
	_ = r.client.wr.WritePing(false, [8]byte([]byte(drainPing)))
	r.client.sendable.Signal()
	g := r.guard
	time.AfterFunc(goAwayWait, func() {
		defer g.unlock()
		g.lock().sendLastStreamID()
	})
}

// sendLastStreamID sends the client the ID of its last stream.
func (r *relay) sendLastStreamID() {
	if !r.leaving || r.final || r.gone {
		return
	}
	r.final = true
	r.client.goAway(r.last, http2.ErrCodeNo, "")
	r.endIfOver()
}

func (r *relay) endIfOver() {
	if r.final && len(r.client.streams) == 0 && r.client.state == sending {
		r.endClient()
	}
}

// Drain lets the client open no more streams, and ends its connection when the open ones have ended.
func (g *guarded) Drain() {
	r := g.lock()
	defer g.unlock()
	r.shutdown()
}

// Kill ends the connection at once.
func (g *guarded) Kill() {
	r := g.lock()
	defer g.unlock()
	r.client.kill()
}

// Retire ends the connections to backends that are gone, as soon as nothing is in flight on them.
func (g *guarded) Retire(gone func(string) bool) {
	r := g.lock()
	defer g.unlock()
	for id, up := range r.ups {
		if gone(id) {
			up.leave()
		}
	}
}
