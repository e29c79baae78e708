package session

import (
	"errors"
	"net"
)

// Sizes of buffers: SmallBuffer is what an idle connection holds, LargeBuffer what one is given when plenty comes.
const (
	SmallBuffer = 4 << 10
	LargeBuffer = 64 << 10
)

// ErrFull says that a buffer has grown to its limit.
var ErrFull = errors.New("buffer is full")

// Buffer holds what was read from a connection and not yet used.
type Buffer struct {
	Conn net.Conn
	b    []byte
	r, w int
	full bool // the last read filled all there was
}

// Bytes returns what was read and not yet used.
func (b *Buffer) Bytes() []byte { return b.b[b.r:b.w] }

// Len returns how much was read and not yet used.
func (b *Buffer) Len() int { return b.w - b.r }

// Skip drops n bytes from the front. Slices of bytes stay valid until the next fill.
func (b *Buffer) Skip(n int) {
	if b.r += n; b.r == b.w {
		b.r, b.w = 0, 0
	}
}

// Since returns the bytes that were skipped last, as many as that, and n bytes that follow them, in one piece; nil when
// they are not there any more. Of those skipped with the last that was there, nothing is left.
func (b *Buffer) Since(skipped, n int) []byte {
	if b.r < skipped {
		return nil
	}
	return b.b[b.r-skipped : b.r+n]
}

// Fill reads once, and waits for it. The buffer grows up to limit bytes; errFull means that it holds that many. A read
// that gives bytes and an error gives the bytes now and the error at the next call.
func (b *Buffer) Fill(limit int) error {
	switch {
	case b.w == 0 && b.full && len(b.b) < min(limit, LargeBuffer): // plenty comes
		b.b = make([]byte, min(limit, LargeBuffer))
	case b.w < len(b.b):
	case b.r > 0:
		b.w = copy(b.b, b.Bytes())
		b.r = 0
	case len(b.b) >= limit:
		return ErrFull
	default:
		grown := make([]byte, min(limit, max(SmallBuffer, 2*len(b.b))))
		b.w = copy(grown, b.b)
		b.b = grown
	}
	n, err := b.Conn.Read(b.b[b.w:])
	b.w += n
	b.full = b.w == len(b.b)
	if n > 0 {
		return nil
	}
	return err
}

// Shrink gives memory back while nothing is in the buffer.
func (b *Buffer) Shrink() {
	if b.Len() == 0 && len(b.b) > SmallBuffer {
		b.b = make([]byte, SmallBuffer)
	}
}
