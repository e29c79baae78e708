package session

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// Relay copies bytes in both directions, starting with what was already read from either, until both have ended. It
// propagates the end of each half by itself. A broken connection breaks the other. Both are closed when it returns.
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

// CopyHalf sends first to dst, then everything from src, and then the end.
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

// Reset ends a connection like a refused or crashed one: with RST if possible.
func Reset(conn net.Conn) {
	if c, ok := conn.(interface{ SetLinger(int) error }); ok {
		_ = c.SetLinger(0)
	}
	_ = conn.Close()
}

// CloseWrite ends the sending half of a connection, if it has halves.
func CloseWrite(conn net.Conn) {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
		return
	}
	_ = conn.Close()
}

// IsReset reports whether err means that a connection was reset.
func IsReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }

// IsTimeout reports whether err means that a deadline was exceeded.
func IsTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
