package session

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// Relay copies bytes both ways, beginning with what was read from either, until both have ended; each end of one half
// is passed on by itself. A broken connection breaks the other. Both are closed when it returns.
func Relay(a net.Conn, fromA []byte, b net.Conn, fromB []byte) {
	over := make(chan struct{})
	go func() {
		defer close(over)
		CopyHalf(a, b, fromB)
	}()
	CopyHalf(b, a, fromA)
	<-over
	_ = a.Close()
	_ = b.Close()
}

// CopyHalf sends first, and then all that comes from src, to dst, and then the end.
func CopyHalf(dst, src net.Conn, first []byte) {
	if len(first) > 0 {
		if _, err := dst.Write(first); err != nil {
			Reset(src)
			return
		}
	}
	if _, err := io.Copy(dst, src); err != nil {
		Reset(dst)
		Reset(src)
		return
	}
	CloseWrite(dst)
}

// Reset ends a connection the way a refused or crashed one ends: with RST where that can be.
func Reset(conn net.Conn) {
	if c, ok := conn.(interface{ SetLinger(int) error }); ok {
		_ = c.SetLinger(0)
	}
	_ = conn.Close()
}

// CloseWrite ends the sending half of a connection, where it has halves.
func CloseWrite(conn net.Conn) {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
		return
	}
	_ = conn.Close()
}

// IsReset says whether a connection was reset.
func IsReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }

// IsTimeout says whether a deadline was missed.
func IsTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
