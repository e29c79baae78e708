package engine

import (
	"slices"
	"strconv"
)

// An Insertion puts something into the body of an answer, once. It is for answers that have a body and are coded in no way that the
// engine would have to undo; others go on as they are.
type Insertion struct {
	What []byte
	// Find is told the body, part by part as it goes by, and returns how many bytes of the part go before What. False: it does not
	// belong into this part. Where it belongs into none, it goes last.
	Find func(part []byte) (before int, ok bool)
}

// A weaver makes an insertion, without holding anything of the body back.
type weaver struct {
	Insertion
	placed bool
}

// startInsertion returns what makes the insertion of e into the body of an answer of HTTP/1, and adds to e what that changes in the
// head. Nil: there is none.
func startInsertion(e *Edits, h *head, body *framing) *weaver {
	if e.Insert == nil || len(e.Insert.What) == 0 || body.kind == none || h.encoding {
		return nil
	}
	if body.kind == fixed {
		e.addLength(h.length)
	}
	return &weaver{Insertion: *e.Insert}
}

// addLength adds the length of what is inserted to that of the body.
func (e *Edits) addLength(n int64) {
	e.Set = append(slices.Clip(e.Set), Field{[]byte("content-length"), strconv.AppendInt(nil, n+int64(len(e.Insert.What)), 10)})
}

// take is framing.take, and adds what goes on instead of the bytes that belong to the body to dst.
func (w *weaver) take(dst []byte, body *framing, b []byte) (out []byte, n int, done bool, err error) {
	if body.kind == chunk {
		return w.takeChunks(dst, &body.chunks, b)
	}
	n, done, err = body.take(b)
	dst = w.data(dst, b[:n])
	if done {
		dst = w.last(dst)
	}
	return dst, n, done, err
}

// data adds a part of the body to dst.
func (w *weaver) data(dst, part []byte) []byte {
	if at, ok := w.find(part); ok {
		dst = append(append(dst, part[:at]...), w.What...)
		part = part[at:]
	}
	return append(dst, part...)
}

// last adds what is inserted to dst, if it was not before.
func (w *weaver) last(dst []byte) []byte {
	if w.placed {
		return dst
	}
	w.placed = true
	return append(dst, w.What...)
}

func (w *weaver) find(part []byte) (int, bool) {
	if w.placed {
		return 0, false
	}
	at, ok := w.Find(part)
	w.placed = ok
	return min(max(at, 0), len(part)), ok
}

// takeChunks makes chunks of its own until the insertion is made. From there on they go on as they come.
func (w *weaver) takeChunks(dst []byte, c *chunks, b []byte) (out []byte, n int, done bool, err error) {
	for n < len(b) && !w.placed {
		if c.state != inData {
			if _, err := c.next(b[n]); err != nil {
				return dst, n, false, err
			}
			if n++; c.state == trailerStart {
				dst = append(appendChunk(dst, w.last(nil)), "0\r\n"...)
			}
			continue
		}
		part := b[n : n+int(min(int64(len(b)-n), c.left))]
		if at, ok := w.find(part); ok { // into the rest of this chunk
			dst = appendChunkSize(dst, c.left+int64(len(w.What)))
			part = part[:at]
			dst = append(append(dst, part...), w.What...)
		} else {
			dst = appendChunk(dst, part)
		}
		n += len(part)
		if c.left -= int64(len(part)); c.left == 0 {
			c.state = dataCR
		}
	}
	m, done, err := c.take(b[n:])
	return append(dst, b[n:n+m]...), n + m, done, err
}

func appendChunk(dst, data []byte) []byte {
	return append(append(appendChunkSize(dst, int64(len(data))), data...), "\r\n"...)
}

func appendChunkSize(dst []byte, n int64) []byte {
	return append(strconv.AppendInt(dst, n, 16), "\r\n"...)
}
