package engine

import (
	"errors"
	"net"
)

const (
	smallBuffer = 4 << 10
	largeBuffer = 64 << 10
)

var errFull = errors.New("buffer is full")

// buffer holds what was read from a connection and not yet used.
type buffer struct {
	conn net.Conn
	b    []byte
	r, w int
	full bool // the last read filled all there was
}

func (b *buffer) bytes() []byte { return b.b[b.r:b.w] }
func (b *buffer) len() int      { return b.w - b.r }

// skip drops n bytes from the front. Slices of bytes stay valid until the next fill.
func (b *buffer) skip(n int) {
	if b.r += n; b.r == b.w {
		b.r, b.w = 0, 0
	}
}

// fill reads once, and waits for it. The buffer grows up to limit bytes; errFull means that it holds that many. A read that
// gives bytes and an error gives the bytes now and the error at the next call.
func (b *buffer) fill(limit int) error {
	switch {
	case b.w == 0 && b.full && len(b.b) < min(limit, largeBuffer): // plenty comes
		b.b = make([]byte, min(limit, largeBuffer))
	case b.w < len(b.b):
	case b.r > 0:
		b.w = copy(b.b, b.bytes())
		b.r = 0
	case len(b.b) >= limit:
		return errFull
	default:
		grown := make([]byte, min(limit, max(smallBuffer, 2*len(b.b))))
		b.w = copy(grown, b.b)
		b.b = grown
	}
	n, err := b.conn.Read(b.b[b.w:])
	b.w += n
	b.full = b.w == len(b.b)
	if n > 0 {
		return nil
	}
	return err
}

// shrink gives memory back while nothing is in the buffer.
func (b *buffer) shrink() {
	if b.len() == 0 && len(b.b) > smallBuffer {
		b.b = make([]byte, smallBuffer)
	}
}
