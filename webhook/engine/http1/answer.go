package http1

import (
	"bytes"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/message"
)

// parseAnswer parses a complete response head. It is as lax as clients are: an app that its clients understand must
// still be understood through a router. Lines that do not affect framing are forwarded as received: names that are no
// tokens, lines without a colon, folded lines, bare LF, control characters. Of those that do, it accepts what all
// parsers read alike, and refuses what two could frame differently (RFC 9112, sections 6.3 and 11.1).
//
// Some clients stop parsing a head at a line that they do not understand, and so miss a length after it: they read to
// the end of the connection. Such a response is nonstandard: the client's connection then ends when the backend's does,
// as it would without the engine.
func parseAnswer(raw []byte) (*head, error) {
	h := &head{raw: raw, length: -1}
	line, rest, err := cutLine(raw, false)
	if err != nil {
		return nil, err
	}
	h.start = raw[:len(raw)-len(rest)]
	if err := h.parseStatus(line); err != nil {
		return nil, err
	}
	return h, h.parseLax(rest)
}

// parseStatus parses a status line. The phrase, and the space before it, may be missing.
func (h *head) parseStatus(line []byte) error {
	malformed := message.Malformedf("malformed status line")
	end := bytes.IndexAny(line, " \t")
	if end < 0 {
		return malformed
	}
	version, after := line[:end], bytes.TrimLeft(line[end:], " \t")
	var err error
	if h.minor, err = parseVersion(version); err != nil {
		of1 := len(version) == len("HTTP/1.1") && bytes.HasPrefix(version, []byte("HTTP/1."))
		if !of1 || version[7] < '2' || '9' < version[7] {
			return err
		}
		h.minor = 1 // RFC 9110, section 2.5
	}
	if len(after) < 3 || len(after) > 3 && after[3] != ' ' && after[3] != '\t' {
		return malformed
	}
	for _, c := range after[:3] {
		if c < '0' || '9' < c {
			return malformed
		}
		h.status = h.status*10 + int(c-'0')
	}
	if h.status < 100 {
		return malformed
	}
	return nil
}

func (h *head) parseLax(b []byte) error {
	h.Fields = make([]engine.Field, 0, 16)
	h.lines = make([][]byte, 0, 16)
	for {
		line, rest, err := cutLine(b, false)
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return nil
		}
		raw := b[:len(b)-len(rest)]
		b = rest
		if err := h.takeLine(line, raw); err != nil {
			return err
		}
	}
}

// takeLine parses one line of a response's fields; raw includes its line end.
func (h *head) takeLine(line, raw []byte) error {
	if i := bytes.IndexByte(line, '\r'); i >= 0 { // which some parsers take as a line end
		h.nonstandard = true
		for part := range bytes.SplitSeq(line[i+1:], []byte{'\r'}) {
			if framingName(part) {
				return message.Malformedf("line that ends in CR without LF before %s", nameOf(part))
			}
		}
	}
	if line[0] == ' ' || line[0] == '\t' {
		return h.fold(line, raw)
	}
	colon := bytes.IndexByte(line, ':')
	if colon < 0 || !message.IsToken(line[:colon]) {
		return h.keep(line, raw)
	}
	name, value := line[:colon], bytes.Trim(line[colon+1:], " \t")
	h.add(name, value, raw)
	switch {
	case message.NameIs(name, "content-length"):
		return h.noteLengths(value)
	case message.NameIs(name, "transfer-encoding"):
		h.noteCodings(value)
	}
	return nil
}

// keep keeps a line that is not a field, so that it is forwarded as received.
func (h *head) keep(line, raw []byte) error {
	if framingName(line) {
		return message.Malformedf("malformed %s", nameOf(line))
	}
	h.nonstandard = true
	h.Fields = append(h.Fields, engine.Field{})
	h.lines = append(h.lines, raw)
	return nil
}

// fold appends a line that continues the one before: RFC 9112, section 5.2.
func (h *head) fold(line, raw []byte) error {
	if len(h.Fields) == 0 {
		return h.keep(line, raw) // RFC 9112, section 2.2
	}
	last := len(h.Fields) - 1
	name, more := h.Fields[last].Name, bytes.Trim(line, " \t\r")
	switch {
	case framingName(line):
		return message.Malformedf("%s in a folded line", nameOf(line))
	case len(more) > 0 && (message.NameIs(name, "content-length") || message.NameIs(name, "transfer-encoding")):
		return message.Malformedf("folded %s", name)
	case message.NameIs(name, "connection"):
		h.noteConnection(more)
	}
	h.lines[last] = h.lines[last][:len(h.lines[last])+len(raw)]
	return nil
}

// noteLengths records a Content-Length. A repeated equal value counts once: RFC 9110, section 8.6.
func (h *head) noteLengths(value []byte) error {
	for i, v := range bytes.Split(value, []byte{','}) {
		n, err := message.ParseLength(bytes.Trim(v, " \t"))
		switch {
		case err != nil:
			return err
		case h.length >= 0 && h.length != n:
			return message.Malformedf("two different values of Content-Length")
		}
		h.length, h.listed = n, h.listed || i > 0
	}
	return nil
}

// noteCodings records a Transfer-Encoding. "identity" is ignored, and the last other coding counts: RFC 9112, section
// 6.3. A body that is declared chunked twice is chunked once, which is what its senders mean.
func (h *head) noteCodings(value []byte) {
	h.nonstandard = h.nonstandard || len(value) == 0
	for coding := range message.Tokens(value) {
		switch {
		case message.FoldEqual(coding, "identity"):
			h.nonstandard = true
			continue
		case !message.FoldEqual(coding, "chunked"):
			h.nonstandard, h.chunked, h.encoding = true, false, true
		default:
			h.nonstandard = h.nonstandard || h.chunked
			h.chunked, h.encoding = true, false
		}
	}
}

// framingName reports whether a lax parser could take a malformed line for a field that determines the message's
// length.
func framingName(line []byte) bool {
	name := nameOf(line)
	return message.NameIs(name, "content-length") || message.NameIs(name, "transfer-encoding")
}

// nameOf returns a line's name without the bytes that no name may contain; nil if the line has no colon.
func nameOf(line []byte) []byte {
	name, _, ok := bytes.Cut(line, []byte{':'})
	if !ok {
		return nil
	}
	left := make([]byte, 0, len(name))
	for _, c := range name {
		if message.TokenByte(c) {
			left = append(left, c)
		}
	}
	return left
}
