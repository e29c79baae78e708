package engine

import (
	"bytes"
	"fmt"
	"math"
)

// head is the head of an HTTP/1 message, scanned in place: all its slices point into the buffer it was read into.
type head struct {
	Head
	raw    []byte   // all of it, from the start line to the empty line
	start  []byte   // start line with its line end
	lines  [][]byte // of each field, with line ends
	status int      // of an answer
	minor  int      // of the version HTTP/1.minor

	length   int64 // Content-Length; -1: none
	chunked  bool
	encoding bool // a Transfer-Encoding that does not end in chunked: an answer read to the end of the connection
	listed   bool // Content-Length was a list, of one length said more than once
	odd      bool // an answer that some clients read to the end of the connection

	closes     bool // Connection: close
	keepsAlive bool // Connection: keep-alive
	upgrades   bool // Connection: upgrade
	upgrade    []byte
	expects    bool // Expect: 100-continue
	hosts      int
}

// persists says whether the connection outlives the message, as RFC 9112, section 9.3, has it.
func (h *head) persists() bool { return !h.closes && (h.minor >= 1 || h.keepsAlive) }

// maxFields bounds the fields of a head: each takes far more memory than the four bytes that it may come in. Of the common
// servers that count, none takes more (Node.js: 2,000; Apache and Tomcat: 100).
const maxFields = 2000

// A malformed error says what is wrong with a message.
type malformed struct {
	status int
	reason string
}

func (m *malformed) Error() string { return m.reason }

var errHeadFields = &malformed{431, "request head has too many fields"}

func bad(format string, args ...any) error { return &malformed{400, fmt.Sprintf(format, args...)} }

// headEnd returns the length of the head at the start of b, or 0 when its end is not there yet. from is the length of what
// was searched before. A head whose lines end in bare LF ends too, so that it is refused at once instead of awaited.
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

// parseRequest reads a whole request head. It accepts what RFC 9112 lets a client send, and nothing that RFC 9112 only
// suggests a server might tolerate.
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
	case !ok1 || !ok2 || len(target) == 0 || !isToken(method):
		return nil, bad("malformed request line")
	case !validTarget(target):
		return nil, bad("malformed request target")
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
		return nil, bad("more than one Host")
	case h.chunked && h.length >= 0:
		return nil, bad("both Transfer-Encoding and Content-Length")
	case h.chunked && h.minor == 0:
		return nil, bad("Transfer-Encoding in HTTP/1.0")
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
		return 0, &malformed{505, "unsupported HTTP version"}
	}
	return 0, bad("malformed HTTP version")
}

func (h *head) parseFields(b []byte) error {
	h.Fields = make([]Field, 0, 16)
	h.lines = make([][]byte, 0, 16)
	for {
		line, rest, err := cutLine(b, true)
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return nil
		}
		if len(h.Fields) >= maxFields {
			return errHeadFields
		}
		raw := b[:len(b)-len(rest)]
		b = rest
		if line[0] == ' ' || line[0] == '\t' {
			return bad("folded header line")
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 0 || !isToken(line[:colon]) {
			return bad("malformed header field name")
		}
		name, value := line[:colon], bytes.Trim(line[colon+1:], " \t")
		if !validValue(value) {
			return bad("control character in header field %s", name)
		}
		h.add(name, value, raw)
		if err := h.noteFraming(name, value); err != nil {
			return err
		}
	}
}

// add adds a field, and takes in what it says of the connection.
func (h *head) add(name, value, raw []byte) {
	h.Fields = append(h.Fields, Field{name, value})
	h.lines = append(h.lines, raw)
	switch len(name) {
	case len("host"):
		if nameIs(name, "host") {
			h.hosts++
			h.Authority = value
		}
	case len("expect"):
		if nameIs(name, "expect") && foldEqual(value, "100-continue") {
			h.expects = true
		}
	case len("upgrade"):
		if nameIs(name, "upgrade") {
			h.upgrade = value
		}
	case len("connection"):
		if nameIs(name, "connection") {
			h.noteConnection(value)
		}
	}
}

func (h *head) noteConnection(value []byte) {
	for token := range tokens(value) {
		h.closes = h.closes || foldEqual(token, "close")
		h.keepsAlive = h.keepsAlive || foldEqual(token, "keep-alive")
		h.upgrades = h.upgrades || foldEqual(token, "upgrade")
	}
}

// noteFraming takes in what a request's field says of its framing.
func (h *head) noteFraming(name, value []byte) error {
	switch {
	case nameIs(name, "content-length"):
		n, err := parseLength(value)
		if err != nil {
			return err
		}
		if h.length >= 0 {
			return bad("more than one Content-Length")
		}
		h.length = n
	case nameIs(name, "transfer-encoding"):
		if h.chunked || !foldEqual(value, "chunked") {
			return bad("unsupported Transfer-Encoding")
		}
		h.chunked = true
	}
	return nil
}

// cutLine cuts the first line off b, without its line end. Strict: the line end must be CRLF.
func cutLine(b []byte, strict bool) (line, rest []byte, err error) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		return nil, nil, bad("malformed line")
	}
	line, rest = b[:i], b[i+1:]
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	} else if strict {
		return nil, nil, bad("line ends in LF without CR")
	}
	return line, rest, nil
}

// parseLength reads a Content-Length: digits alone, within an int64.
func parseLength(v []byte) (int64, error) {
	if len(v) == 0 {
		return 0, bad("malformed Content-Length")
	}
	var n int64
	for _, c := range v {
		if c < '0' || '9' < c || n > (math.MaxInt64-9)/10 {
			return 0, bad("malformed Content-Length")
		}
		n = n*10 + int64(c-'0')
	}
	return n, nil
}

// tokens yields the elements of a comma-separated list.
func tokens(list []byte) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for part := range bytes.SplitSeq(list, []byte{','}) {
			if t := bytes.Trim(part, " \t"); len(t) > 0 && !yield(t) {
				return
			}
		}
	}
}

// foldEqual compares a value with one in lower case, ASCII case aside.
func foldEqual(v []byte, lower string) bool { return nameIs(v, lower) }

// isToken says whether b is a token as RFC 9110, section 5.6.2, has it.
func isToken(b []byte) bool {
	for _, c := range b {
		if !tokenByte(c) {
			return false
		}
	}
	return len(b) > 0
}

func tokenByte(c byte) bool {
	return c < 128 && tokenTable[c]
}

//nolint:gochecknoglobals // a constant table
var tokenTable = func() (t [128]bool) {
	for c := byte('0'); c <= 'z'; c++ {
		t[c] = c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c
	}
	for _, c := range []byte("!#$%&'*+-.^_`|~") {
		t[c] = true
	}
	return t
}()

// validTarget lets bytes above ASCII pass: clients send them, and apps take them.
func validTarget(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

func validValue(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
