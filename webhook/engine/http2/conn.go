package http2

import (
	"bytes"
	"io"
	"math"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/session"
)

const (
	maxFrame    = 16 << 10
	headerTable = 4 << 10
)

const (
	// maxControls bounds the queued frames that respond to the peer's (acknowledgements, resets).
	maxControls = 10_000
	// maxBatch is the most that is written at once, in bytes.
	maxBatch = 64 << 10
	// maxQueued bounds what is queued for a peer that does not read, in bytes, beyond what windows bound: heads.
	maxQueued = 1 << 20
	// maxHeads bounds the heads of requests that wait for backends, in bytes, for one client connection.
	maxHeads = 32 << 20
	// stuckAfter is how long a write to a backend may block before the backend is reported as not reading.
	stuckAfter = 5 * time.Second
)

// frameConn is one HTTP/2 connection, to the client or to a backend. The relay's mutex guards all of it but fr.
type frameConn struct {
	mu   *sync.Mutex // the relay's
	conn net.Conn
	fr   *http2.Framer // for reading

	wr       *http2.Framer // writes to out
	out      bytes.Buffer  // frames in sending order
	enc      *hpack.Encoder
	block    bytes.Buffer // what enc writes to
	sendable *sync.Cond   // signals that there may be something to send
	room     *sync.Cond   // signals that out was taken
	ready    []*outgoing  // halves that have data and, as far as known, a window to send it
	control  int          // controls in out
	writing  time.Time    // since when a write has been in progress; zero: none is
	taken    func()       // called when out was taken, if not nil
	state    connState
	sent     chan struct{} // closed when writeLoop has ended

	sendWindow int64 // of the connection
	initial    int64 // the peer's initial stream window
	frame      int   // the peer's largest frame
	holding
	settingsSent int // SETTINGS that the peer has not acknowledged yet

	streams map[uint32]*stream // by ID on this connection
}

// connState is what may still be sent on a connection.
type connState uint8

const (
	sending connState = iota
	ending            // nothing is added to out any more: send it, and then the end
	dead              // nothing is sent any more
)

// outgoing is the half of a stream that is sent on one connection. The relay's mutex guards it.
type outgoing struct {
	stream  *stream
	conn    *frameConn // nil: not known yet
	id      uint32     // of the stream on conn
	window  int64      // what the peer still accepts, in bytes
	data    bytes.Buffer
	trailer []hpack.HeaderField
	end     bool           // nothing follows data and trailer
	queued  bool           // in conn.ready
	ended   bool           // the end was sent, or the stream was reset
	reset   *http2.ErrCode // to be sent after the end
}

func newFrameConn(mu *sync.Mutex, conn net.Conn, r io.Reader, maxHead int, held holding) *frameConn {
	c := &frameConn{
		mu: mu, conn: conn, sendable: sync.NewCond(mu), room: sync.NewCond(mu), streams: make(map[uint32]*stream),
		sendWindow: 65535, initial: 65535, frame: maxFrame, holding: held, sent: make(chan struct{}),
	}
	c.recvWindow = connWindow
	c.fr = http2.NewFramer(nil, r)
	c.fr.SetReuseFrames()
	c.fr.SetMaxReadFrameSize(maxFrame)
	c.fr.ReadMetaHeaders = hpack.NewDecoder(headerTable, nil)
	c.fr.MaxHeaderListSize = uint32(min(maxHead, math.MaxInt32)) //nolint:gosec // bounded
	c.wr = http2.NewFramer(&c.out, nil)
	c.enc = hpack.NewEncoder(&c.block)
	c.enc.SetMaxDynamicTableSizeLimit(headerTable)
	return c
}

// writeLoop sends what is queued, until the connection is dead. Readers never write, so a peer that does not read
// delays only itself.
func (c *frameConn) writeLoop() {
	defer close(c.sent)
	var batch []byte
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.state != dead {
		c.schedule()
		if c.out.Len() == 0 {
			if c.state == ending {
				session.CloseWrite(c.conn)
				return
			}
			c.sendable.Wait()
			continue
		}
		batch = append(batch[:0], c.out.Bytes()...)
		c.out.Reset()
		c.control = 0
		c.room.Broadcast()
		if c.taken != nil {
			c.taken()
		}
		c.writing = time.Now()
		c.mu.Unlock()
		_, err := c.conn.Write(batch)
		c.mu.Lock()
		c.writing = time.Time{}
		if err != nil {
			c.kill()
		}
		if cap(batch) > 4*maxBatch {
			batch = nil
		}
	}
}

// kill ends the connection at once; its reader gets an error.
func (c *frameConn) kill() {
	if c.state != dead {
		c.state = dead
		_ = c.conn.Close()
		c.sendable.Signal()
		c.room.Broadcast()
	}
}

// awaitRoom waits while the peer does not read what is queued for it. Meanwhile nothing is read that could add to it.
func (c *frameConn) awaitRoom() {
	for c.out.Len() > maxQueued && c.state == sending {
		c.room.Wait()
	}
}

// stuck reports whether the peer has not read for long.
func (c *frameConn) stuck() bool { return !c.writing.IsZero() && time.Since(c.writing) > stuckAfter }

// schedule moves data of the ready halves to out, one frame each in turn.
func (c *frameConn) schedule() {
	for c.out.Len() < maxBatch && len(c.ready) > 0 && c.state != ending {
		h := c.ready[0]
		if h.data.Len() > 0 && h.window > 0 && c.sendWindow <= 0 {
			if !c.someEnd() {
				return
			}
			continue
		}
		c.ready = c.ready[1:]
		h.queued = false
		if !h.ended {
			c.send(h)
			h.offer()
		}
	}
	if len(c.ready) == 0 {
		c.ready = nil
	}
}

// someEnd moves a half to the front that needs no connection window.
func (c *frameConn) someEnd() bool {
	for i, h := range c.ready {
		if h.data.Len() == 0 {
			c.ready[0], c.ready[i] = h, c.ready[0]
			return true
		}
	}
	return false
}

// send moves one frame of h to out.
func (c *frameConn) send(h *outgoing) {
	n := int(min(int64(h.data.Len()), int64(min(c.frame, maxFrame)), h.window, c.sendWindow))
	if n > 0 || h.data.Len() == 0 && h.end && h.trailer == nil && !h.ended {
		last := n == h.data.Len() && h.end && h.trailer == nil
		_ = c.wr.WriteData(h.id, last, h.data.Next(n))
		h.window -= int64(n)
		c.sendWindow -= int64(n)
		h.ended = last
		h.stream.used(h, n)
		if h.data.Len() == 0 && h.data.Cap() > c.keptBuffer() {
			h.data = bytes.Buffer{}
		}
	}
	if h.data.Len() == 0 && h.end && !h.ended {
		c.headers(h.id, h.trailer, true)
		h.ended = true
	}
	if h.ended {
		h.over()
	}
}

// over records that the end of h is in out.
func (h *outgoing) over() {
	h.end, h.ended = true, true
	if h.reset != nil {
		h.conn.rst(h.id, *h.reset)
	}
	h.stream.halfEnded(h)
}

// offer adds h to the ready halves, if it is ready.
func (h *outgoing) offer() {
	switch {
	case h.conn == nil || h.queued || h.ended || h.conn.state == dead:
	case h.data.Len() > 0 && h.window > 0, h.data.Len() == 0 && h.end:
		h.queued = true
		h.conn.ready = append(h.conn.ready, h)
		h.conn.sendable.Signal()
	}
}

// headers adds a header block to out.
func (c *frameConn) headers(id uint32, fields []hpack.HeaderField, end bool) {
	if c.state != sending {
		return
	}
	c.block.Reset()
	for _, f := range fields {
		_ = c.enc.WriteField(f)
	}
	block := c.block.Bytes()
	for first := true; first || len(block) > 0; first = false {
		n := min(len(block), c.frame, maxFrame)
		frag, last := block[:n], n == len(block)
		block = block[n:]
		if first {
			_ = c.wr.WriteHeaders(http2.HeadersFrameParam{
				StreamID: id, BlockFragment: frag, EndStream: end, EndHeaders: last,
			})
		} else {
			_ = c.wr.WriteContinuation(id, last, frag)
		}
	}
	c.sendable.Signal()
}

// rst adds a RST_STREAM to out.
func (c *frameConn) rst(id uint32, code http2.ErrCode) {
	if c.state == sending {
		_ = c.wr.WriteRSTStream(id, code)
		c.controlled()
	}
}

// controlled counts a control frame in out, and gives up on a peer that does not read the responses it causes.
func (c *frameConn) controlled() {
	if c.control++; c.control > maxControls {
		c.kill()
	}
	c.sendable.Signal()
}

func (c *frameConn) goAway(last uint32, code http2.ErrCode, why string) {
	if c.state == sending {
		_ = c.wr.WriteGoAway(last, code, []byte(why))
		c.sendable.Signal()
	}
}

// end sends what is in out, and then the end.
func (c *frameConn) end() {
	if c.state == sending {
		c.state = ending
	}
	c.sendable.Signal()
	c.room.Broadcast()
}

// settings applies the peer's SETTINGS and acknowledges them. half returns the half of a stream that is sent on c.
func (c *frameConn) settings(f *http2.SettingsFrame, half func(*stream) *outgoing) error {
	if f.HasDuplicates() && f.NumSettings() > 100 {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		switch s.ID {
		case http2.SettingHeaderTableSize:
			c.enc.SetMaxDynamicTableSize(min(s.Val, headerTable))
		case http2.SettingMaxFrameSize:
			c.frame = int(s.Val)
		case http2.SettingInitialWindowSize:
			delta := int64(s.Val) - c.initial
			c.initial = int64(s.Val)
			for _, st := range c.streams {
				h := half(st)
				if h.window += delta; h.window > math.MaxInt32 {
					return http2.ConnectionError(http2.ErrCodeFlowControl)
				}
				h.offer()
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if c.state == sending {
		_ = c.wr.WriteSettingsAck()
		c.controlled()
	}
	return nil
}

// windowUpdate applies the peer's WINDOW_UPDATE. half is the half of the stream that is sent on c, nil if the stream
// has ended.
func (c *frameConn) windowUpdate(f *http2.WindowUpdateFrame, half *outgoing) error {
	n := int64(f.Increment)
	switch {
	case f.StreamID == 0:
		if c.sendWindow += n; c.sendWindow > math.MaxInt32 {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		c.sendable.Signal()
	case half != nil:
		if half.window += n; half.window > math.MaxInt32 {
			return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
		}
		half.offer()
	}
	return nil
}

// ping responds to a PING.
func (c *frameConn) ping(f *http2.PingFrame) {
	if !f.IsAck() && c.state == sending {
		_ = c.wr.WritePing(true, f.Data)
		c.controlled()
	}
}
