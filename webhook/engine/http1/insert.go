package http1

import (
	"strconv"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
)

// A bodyInserter makes an insertion into a body with any framing.
type bodyInserter struct{ engine.Inserter }

// startInsertion returns an inserter of e's insertion into the body of an HTTP/1 response, and adds its effect on the
// head to e. Nil: there is no insertion.
func startInsertion(e *engine.Edits, h *head, body *framing) *bodyInserter {
	if e.Insert == nil || len(e.Insert.What) == 0 || body.kind == none || h.encoding {
		return nil
	}
	if body.kind == fixed {
		e.AddLength(h.length)
	}
	return &bodyInserter{engine.Inserter{Insertion: *e.Insert}}
}

// take is like framing.take, and appends the body's bytes with the insertion to dst.
func (w *bodyInserter) take(dst []byte, body *framing, b []byte) (out []byte, n int, done bool, err error) {
	if body.kind == chunk {
		return w.takeChunks(dst, &body.chunks, b)
	}
	n, done, err = body.take(b)
	dst = w.Data(dst, b[:n])
	if done {
		dst = w.Last(dst)
	}
	return dst, n, done, err
}

// takeChunks writes its own chunks until the insertion is made. After that it forwards chunks as received.
func (w *bodyInserter) takeChunks(dst []byte, c *chunks, b []byte) (out []byte, n int, done bool, err error) {
	for n < len(b) && !w.Placed {
		if c.state != inData {
			if _, err := c.next(b[n]); err != nil {
				return dst, n, false, err
			}
			if n++; c.state == trailerStart {
				dst = append(appendChunk(dst, w.Last(nil)), "0\r\n"...)
			}
			continue
		}
		part := b[n : n+int(min(int64(len(b)-n), c.remaining))]
		if at, ok := w.Place(part); ok { // into the rest of this chunk
			dst = appendChunkSize(dst, c.remaining+int64(len(w.What)))
			part = part[:at]
			dst = append(append(dst, part...), w.What...)
		} else {
			dst = appendChunk(dst, part)
		}
		n += len(part)
		if c.remaining -= int64(len(part)); c.remaining == 0 {
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
