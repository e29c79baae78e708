package session

import (
	"errors"
	"net"
)

// Sizes of buffers, in bytes: SmallBuffer of an idle connection, LargeBuffer of one that receives much.
const (
	SmallBuffer = 4 << 10
	LargeBuffer = 64 << 10
)

// ErrFull means that a buffer has reached its limit.
var ErrFull = errors.New("buffer is full")

// Buffer holds what was read from a connection and not used yet.
type Buffer struct {
	Conn net.Conn
	b    []byte
	r, w int
	full bool // the last read filled the whole buffer
}

// Bytes returns what was read and not used yet.
func (b *Buffer) Bytes() []byte { return b.b[b.r:b.w] }

// Len returns how many bytes were read and not used yet.
func (b *Buffer) Len() int { return b.w - b.r }

// Skip drops n bytes from the front. Slices of Bytes stay valid until the next Fill.
func (b *Buffer) Skip(n int) {
	if b.r += n; b.r == b.w {
		b.r, b.w = 0, 0
	}
}

// Since returns the last skipped bytes, and the n bytes after them, as one slice; nil if they are overwritten. Skipping
// the last byte in the buffer drops all skipped bytes.
func (b *Buffer) Since(skipped, n int) []byte {
	if b.r < skipped {
		return nil
	}
	return b.b[b.r-skipped : b.r+n]
}

// Fill waits for one read. The buffer grows up to limit bytes; ErrFull means that it holds that many. If a read returns
// both bytes and an error, the next call returns the error.
func (b *Buffer) Fill(limit int) error {
	switch {
	case b.w == 0 && b.full && len(b.b) < min(limit, LargeBuffer): // much is coming
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

// Shrink releases memory while the buffer is empty.
func (b *Buffer) Shrink() {
	if b.Len() == 0 && len(b.b) > SmallBuffer {
		b.b = make([]byte, SmallBuffer)
	}
}
