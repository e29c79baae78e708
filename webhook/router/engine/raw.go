package engine

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// bytesSession is a client connection that is passed through as bytes: it ends when its ends end it.
type bytesSession struct{ client, app net.Conn }

func (bytesSession) drain()                   {}
func (bytesSession) retire(func(string) bool) {}

func (b bytesSession) kill() {
	_ = b.client.Close()
	_ = b.app.Close()
}

// passThrough relays bytes between the client and app, beginning with what was read from either.
func (e *Engine) passThrough(s *session, in *buffer, app net.Conn, spoke []byte) {
	e.Stats.Raw.Add(1)
	e.became(s, bytesSession{s.conn, app})
	relay(s.conn, in.bytes(), app, spoke)
}

// relay copies bytes both ways, beginning with what was read from either, until both have ended; each end of one half is
// passed on by itself. A broken connection breaks the other. Both are closed when it returns.
func relay(a net.Conn, fromA []byte, b net.Conn, fromB []byte) {
	over := make(chan struct{})
	go func() {
		defer close(over)
		copyHalf(a, b, fromB)
	}()
	copyHalf(b, a, fromA)
	<-over
	_ = a.Close()
	_ = b.Close()
}

// copyHalf sends first, and then all that comes from src, to dst, and then the end.
func copyHalf(dst, src net.Conn, first []byte) {
	if len(first) > 0 {
		if _, err := dst.Write(first); err != nil {
			reset(src)
			return
		}
	}
	if _, err := io.Copy(dst, src); err != nil {
		reset(dst)
		reset(src)
		return
	}
	closeWrite(dst)
}

func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
