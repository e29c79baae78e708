package http1

import (
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/message"
)

// framing finds the end of an HTTP/1 message's body: RFC 9112, section 6.3.
type framing struct {
	kind      framingKind
	remaining int64 // fixed: bytes still to come
	chunks    chunks
}

type framingKind uint8

const (
	none  framingKind = iota // no body
	fixed                    // Content-Length
	chunk                    // chunked
	toEOF                    // ends with the connection
)

// requestFraming returns the framing of the body of a request with head h.
func requestFraming(h *head) framing {
	switch {
	case h.chunked:
		return framing{kind: chunk}
	case h.length > 0:
		return framing{kind: fixed, remaining: h.length}
	}
	return framing{}
}

// answerFraming returns the framing of the body of a response with head h, to a HEAD request if toHEAD.
func answerFraming(h *head, toHEAD bool) framing {
	switch {
	case toHEAD || h.status == 204 || h.status == 304:
		return framing{}
	case h.encoding:
		return framing{kind: toEOF}
	case h.chunked:
		return framing{kind: chunk, chunks: chunks{lax: true}}
	case h.length > 0:
		return framing{kind: fixed, remaining: h.length}
	case h.length == 0:
		return framing{}
	}
	return framing{kind: toEOF}
}

// take returns how many of the bytes b belong to the body, and whether the body ends with them.
func (f *framing) take(b []byte) (n int, done bool, err error) {
	switch f.kind {
	case fixed:
		n = int(min(int64(len(b)), f.remaining))
		f.remaining -= int64(n)
		return n, f.remaining == 0, nil
	case chunk:
		return f.chunks.take(b)
	case toEOF:
		return len(b), false, nil
	}
	return 0, true, nil
}

// Bounds of chunk extensions and trailers in a chunked body: without them, these could cost far more than the data.
const (
	maxChunkLine = 1 << 10
	maxTrailers  = 64 << 10
)

// chunks parses a chunked body (RFC 9112, section 7.1) incrementally and strictly.
type chunks struct {
	// lax is set for responses: LF alone ends a line, spaces may pad sizes, and extensions and trailers are not checked.
	lax       bool
	state     chunkState
	remaining int64 // data still to come in this chunk
	line      int   // length so far of the chunk line, or of all trailers
	digit     int   // hexadecimal digits so far
}

type chunkState uint8

const (
	inSize chunkState = iota
	inPad
	inExt
	sizeLF
	inData
	dataCR
	dataLF
	trailerStart // at the start of a trailer line, or of the last line
	trailerName
	trailerValue
	trailerLF
	lastLF
)

func (c *chunks) take(b []byte) (n int, done bool, err error) {
	for n < len(b) {
		if c.state == inData {
			k := int(min(int64(len(b)-n), c.remaining))
			n += k
			if c.remaining -= int64(k); c.remaining == 0 {
				c.state = dataCR
			}
			continue
		}
		done, err := c.next(b[n])
		if err != nil {
			return n, false, err
		}
		n++
		if done {
			return n, true, nil
		}
	}
	return n, false, nil
}

// next consumes one byte that is not data.
func (c *chunks) next(b byte) (done bool, err error) {
	c.line++
	if c.lax && b == '\n' { // without the CR before it
		switch c.state {
		case inSize:
			if c.digit == 0 {
				return false, message.Malformedf("malformed chunk size")
			}
			c.state = sizeLF
		case inPad, inExt:
			c.state = sizeLF
		case dataCR:
			c.state = dataLF
		case trailerStart:
			c.state = lastLF
		case trailerName, trailerValue:
			c.state = trailerLF
		}
	}
	switch {
	case c.state >= trailerStart && c.line > maxTrailers:
		return false, &message.Malformed{Status: 431, Reason: "trailers are too long"}
	case c.state < inData && c.line > maxChunkLine:
		return false, message.Malformedf("chunk line is too long")
	}
	switch c.state {
	case inSize:
		return false, c.size(b)
	case inPad:
		switch {
		case b == '\r':
			c.state = sizeLF
		case b == ';' && c.lax:
			c.state = inExt
		case b != ' ' && b != '\t':
			return false, message.Malformedf("malformed chunk size")
		}
	case inExt:
		switch {
		case b == '\r':
			c.state = sizeLF
		case !c.lax && (b < ' ' && b != '\t' || b == 0x7f):
			return false, message.Malformedf("malformed chunk extension")
		}
	case sizeLF:
		if b != '\n' {
			return false, message.Malformedf("malformed chunk line")
		}
		c.line, c.digit = 0, 0
		if c.state = inData; c.remaining == 0 {
			c.state = trailerStart
		}
	case dataCR:
		if b != '\r' {
			return false, message.Malformedf("chunk is longer than its size")
		}
		c.state = dataLF
	case dataLF:
		if b != '\n' {
			return false, message.Malformedf("malformed chunk end")
		}
		c.line, c.state = 0, inSize
	default:
		return c.trailer(b)
	}
	return false, nil
}

func (c *chunks) size(b byte) error {
	d, hex := unhex(b)
	switch {
	case hex:
		if c.digit++; c.digit > 15 {
			return message.Malformedf("chunk size is too large")
		}
		c.remaining = c.remaining<<4 | int64(d)
	case c.digit == 0 && c.lax && (b == ' ' || b == '\t'): // before the size
	case c.digit == 0:
		return message.Malformedf("malformed chunk size")
	case b == '\r':
		c.state = sizeLF
	case b == ';':
		c.state = inExt
	case (b == ' ' || b == '\t') && c.lax:
		c.state = inPad
	default:
		return message.Malformedf("malformed chunk size")
	}
	return nil
}

func (c *chunks) trailer(b byte) (done bool, err error) {
	switch c.state {
	case trailerStart:
		switch {
		case b == '\r':
			c.state = lastLF
		case message.TokenByte(b) || c.lax:
			c.state = trailerName
		default:
			return false, message.Malformedf("malformed trailer")
		}
	case trailerName:
		switch {
		case b == ':' || b == '\r' && c.lax:
			c.state = trailerValue
			if b == '\r' {
				c.state = trailerLF
			}
		case !message.TokenByte(b) && !c.lax:
			return false, message.Malformedf("malformed trailer")
		}
	case trailerValue:
		switch {
		case b == '\r':
			c.state = trailerLF
		case !c.lax && (b < ' ' && b != '\t' || b == 0x7f):
			return false, message.Malformedf("control character in trailer")
		}
	case trailerLF:
		if b != '\n' {
			return false, message.Malformedf("malformed trailer")
		}
		c.state = trailerStart
	case lastLF:
		if b != '\n' {
			return false, message.Malformedf("malformed end of chunks")
		}
		return true, nil
	}
	return false, nil
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return c | 0x20 - 'a' + 10, true
	}
	return 0, false
}
