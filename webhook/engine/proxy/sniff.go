package proxy

import (
	"bytes"

	"golang.org/x/net/http2"
)

// protocol is the protocol of a client.
type protocol uint8

const (
	speaksYetUnknown protocol = iota
	speaksMaybeHTTP           // speaksYetUnknown, but with more than a method's letters: only HTTP looks like this
	speaksHTTP1
	speaksHTTP2
	speaksOther
)

// sniff detects the protocol from a connection's first bytes. A first line with " HTTP/" is HTTP/1. So malformed HTTP
// is refused instead of forwarded unread, and other text protocols pass.
func sniff(b []byte) protocol {
	if n := min(len(b), len(http2.ClientPreface)); n > 0 && string(b[:n]) == http2.ClientPreface[:n] {
		if n == len(http2.ClientPreface) {
			return speaksHTTP2
		}
		if n > len("PRI *") {
			return speaksMaybeHTTP
		}
		return speaksYetUnknown
	}
	for len(b) > 0 && (b[0] == '\r' || b[0] == '\n') {
		b = b[1:] // RFC 9112, section 2.2
	}
	for i, c := range b {
		switch {
		case 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || i > 0 && (c == '-' || c == '_'):
			if i >= 32 {
				return speaksOther
			}
			continue
		case c != ' ' || i == 0:
			return speaksOther
		}
		return sniffLine(b, i)
	}
	return speaksYetUnknown
}

// sniffLine continues after a method of n letters and a space.
func sniffLine(b []byte, n int) protocol {
	line, _, whole := bytes.Cut(b, []byte{'\n'})
	switch {
	case len(line) > n+1 && line[n+1] < ' ': // no target begins like this, whatever follows
		return speaksOther
	case bytes.Contains(line[n:], []byte(" HTTP/")):
		return speaksHTTP1
	case whole:
		return speaksOther
	}
	return speaksMaybeHTTP
}

// settingsFirst reports whether b looks like a server that speaks HTTP/2 before its client's preface, which RFC 9113
// allows. It begins with a SETTINGS frame on stream 0.
func settingsFirst(b []byte) bool {
	return len(b) >= 9 && b[0] == 0 && b[3] == 4 && b[4] == 0 && bytes.Equal(b[5:9], make([]byte, 4))
}
