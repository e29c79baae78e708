package http1

import (
	"bytes"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/message"
)

// parseAnswer reads a whole answer head. It is lax where clients are: an app that its clients understood before must be
// understood by them with a router in front. What says nothing of the framing passes as it came: names that are no
// tokens, lines without a colon, folded lines, bare LF, control characters. Of what does, it takes what all read alike,
// and refuses what two readers could frame differently (RFC 9112, sections 6.3 and 11.1).
//
// Some clients stop reading a head at a line that they do not understand, and so miss the length that comes after it:
// they read to the end of the connection. Such an answer is odd: the client's connection then ends when the backend's
// does, as it would without the engine between.
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

// parseStatus reads a status line. The phrase, and the blank before it, may be missing.
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

// takeLine takes in one line of an answer's fields; raw is the same with its end.
func (h *head) takeLine(line, raw []byte) error {
	if i := bytes.IndexByte(line, '\r'); i >= 0 { // which ends a line for some
		h.odd = true
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

// keep keeps a line that is no field, so that it passes as it came.
func (h *head) keep(line, raw []byte) error {
	if framingName(line) {
		return message.Malformedf("malformed %s", nameOf(line))
	}
	h.odd = true
	h.Fields = append(h.Fields, engine.Field{})
	h.lines = append(h.lines, raw)
	return nil
}

// fold takes in a line that goes on with the one before: RFC 9112, section 5.2.
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

// noteLengths takes in a Content-Length. One that is said more than once counts once: RFC 9110, section 8.6.
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

// noteCodings takes in a Transfer-Encoding. Of what is left without "identity", which says nothing, the last coding
// counts: RFC 9112, section 6.3. A body that is said to be chunked twice is chunked once, as all senders of it mean.
func (h *head) noteCodings(value []byte) {
	h.odd = h.odd || len(value) == 0
	for coding := range message.Tokens(value) {
		switch {
		case message.FoldEqual(coding, "identity"):
			h.odd = true
			continue
		case !message.FoldEqual(coding, "chunked"):
			h.odd, h.chunked, h.encoding = true, false, true
		default:
			h.odd = h.odd || h.chunked
			h.chunked, h.encoding = true, false
		}
	}
}

// framingName says whether a line that is no field could be taken for one that says how long the message is: by who
// overlooks what is wrong with its name.
func framingName(line []byte) bool {
	name := nameOf(line)
	return message.NameIs(name, "content-length") || message.NameIs(name, "transfer-encoding")
}

// nameOf returns what is left of a line's name when all is left out that no name may hold; nil when the line has no
// colon.
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
