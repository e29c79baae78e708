package http1

import (
	"bytes"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/message"
)

// head is the head of an HTTP/1 message, parsed in place: all its slices point into the buffer it was read into.
type head struct {
	engine.Head
	raw    []byte   // all of it, from the start line to the empty line
	start  []byte   // start line with its line end
	lines  [][]byte // of each field, with line ends
	status int      // of a response
	minor  int      // of the version HTTP/1.minor

	length      int64 // Content-Length; -1: none
	chunked     bool
	encoding    bool // a Transfer-Encoding that does not end in chunked: a response that ends with the connection
	listed      bool // Content-Length was a list of equal lengths
	nonstandard bool // a response that some clients read to the end of the connection: see parseAnswer

	closes     bool // Connection: close
	keepsAlive bool // Connection: keep-alive
	upgrades   bool // Connection: upgrade
	upgrade    []byte
	expects    bool // Expect: 100-continue
	hosts      int
}

// persists reports whether the connection outlives the message (RFC 9112, section 9.3).
func (h *head) persists() bool { return !h.closes && (h.minor >= 1 || h.keepsAlive) }

// headEnd returns the length of the head at the start of b, or 0 if it is incomplete. The first from bytes were
// searched before. A head whose lines end in bare LF is complete too, so that it is refused at once.
func headEnd(b []byte, from int) int {
	for i := max(0, from-3); ; {
		j := bytes.IndexByte(b[i:], '\n')
		if j < 0 {
			return 0
		}
		i += j + 1
		if i < len(b) && b[i] == '\n' {
			return i + 1
		}
		if i+1 < len(b) && b[i] == '\r' && b[i+1] == '\n' {
			return i + 2
		}
	}
}

// parseRequest parses a complete request head. It accepts what RFC 9112 allows clients to send, and nothing that
// servers only may tolerate.
func parseRequest(raw []byte) (*head, error) {
	h := &head{raw: raw, length: -1}
	line, rest, err := cutLine(raw, true)
	if err != nil {
		return nil, err
	}
	h.start = raw[:len(raw)-len(rest)]
	method, after, ok1 := bytes.Cut(line, []byte{' '})
	target, version, ok2 := bytes.Cut(after, []byte{' '})
	switch {
	case !ok1 || !ok2 || len(target) == 0 || !message.IsToken(method):
		return nil, message.Malformedf("malformed request line")
	case !message.ValidTarget(target):
		return nil, message.Malformedf("malformed request target")
	}
	if h.minor, err = parseVersion(version); err != nil {
		return nil, err
	}
	h.Method, h.Target = method, target
	if err := h.parseFields(rest); err != nil {
		return nil, err
	}
	switch {
	case h.hosts > 1:
		return nil, message.Malformedf("more than one Host")
	case h.chunked && h.length >= 0:
		return nil, message.Malformedf("both Transfer-Encoding and Content-Length")
	case h.chunked && h.minor == 0:
		return nil, message.Malformedf("Transfer-Encoding in HTTP/1.0")
	}
	return h, nil
}

func parseVersion(v []byte) (minor int, err error) {
	switch string(v) {
	case "HTTP/1.1":
		return 1, nil
	case "HTTP/1.0":
		return 0, nil
	}
	if len(v) == len("HTTP/1.1") && bytes.HasPrefix(v, []byte("HTTP/")) {
		return 0, &message.Malformed{Status: 505, Reason: "unsupported HTTP version"}
	}
	return 0, message.Malformedf("malformed HTTP version")
}

func (h *head) parseFields(b []byte) error {
	h.Fields = make([]engine.Field, 0, 16)
	h.lines = make([][]byte, 0, 16)
	for {
		line, rest, err := cutLine(b, true)
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return nil
		}
		if len(h.Fields) >= message.MaxFields {
			return message.ErrHeadFields
		}
		raw := b[:len(b)-len(rest)]
		b = rest
		if line[0] == ' ' || line[0] == '\t' {
			return message.Malformedf("folded header line")
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 0 || !message.IsToken(line[:colon]) {
			return message.Malformedf("malformed header field name")
		}
		name, value := line[:colon], bytes.Trim(line[colon+1:], " \t")
		if !message.ValidValue(value) {
			return message.Malformedf("control character in header field %s", name)
		}
		h.add(name, value, raw)
		if err := h.noteFraming(name, value); err != nil {
			return err
		}
	}
}

// add adds a field, and records what it says about the connection.
func (h *head) add(name, value, raw []byte) {
	h.Fields = append(h.Fields, engine.Field{Name: name, Value: value})
	h.lines = append(h.lines, raw)
	switch len(name) {
	case len("host"):
		if message.NameIs(name, "host") {
			h.hosts++
			h.Authority = value
		}
	case len("expect"):
		if message.NameIs(name, "expect") && message.FoldEqual(value, "100-continue") {
			h.expects = true
		}
	case len("upgrade"):
		if message.NameIs(name, "upgrade") {
			h.upgrade = value
		}
	case len("connection"):
		if message.NameIs(name, "connection") {
			h.noteConnection(value)
		}
	}
}

func (h *head) noteConnection(value []byte) {
	for token := range message.Tokens(value) {
		h.closes = h.closes || message.FoldEqual(token, "close")
		h.keepsAlive = h.keepsAlive || message.FoldEqual(token, "keep-alive")
		h.upgrades = h.upgrades || message.FoldEqual(token, "upgrade")
	}
}

// noteFraming records what a request's field says about its framing.
func (h *head) noteFraming(name, value []byte) error {
	switch {
	case message.NameIs(name, "content-length"):
		n, err := message.ParseLength(value)
		if err != nil {
			return err
		}
		if h.length >= 0 {
			return message.Malformedf("more than one Content-Length")
		}
		h.length = n
	case message.NameIs(name, "transfer-encoding"):
		if h.chunked || !message.FoldEqual(value, "chunked") {
			return message.Malformedf("unsupported Transfer-Encoding")
		}
		h.chunked = true
	}
	return nil
}

// cutLine cuts the first line off b, without its line end. If strict, the line end must be CRLF.
func cutLine(b []byte, strict bool) (line, rest []byte, err error) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return nil, nil, message.Malformedf("malformed line")
	}
	line, rest = b[:i], b[i+1:]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	} else if strict {
		return nil, nil, message.Malformedf("line ends in LF without CR")
	}
	return line, rest, nil
}
