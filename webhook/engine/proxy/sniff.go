package proxy

import (
	"bytes"

	"golang.org/x/net/http2"
)

// protocol is what a client speaks.
type protocol uint8

const (
	speaksYetUnknown protocol = iota
	speaksMaybeHTTP           // speaksYetUnknown, but more than a method's letters are there: only HTTP looks so
	speaksHTTP1
	speaksHTTP2
	speaksOther
)

// sniff tells the protocol by a connection's first bytes. HTTP/1 is what has " HTTP/" in its first line, so that
// malformed HTTP is refused, not passed on unread, and other protocols of text lines pass.
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

// sniffLine goes on where a method of n letters and a blank were seen.
func sniffLine(b []byte, n int) protocol {
	line, _, whole := bytes.Cut(b, []byte{'\n'})
	switch {
	case len(line) > n+1 && line[n+1] < ' ': // no target begins so, whatever comes after it
		return speaksOther
	case bytes.Contains(line[n:], []byte(" HTTP/")):
		return speaksHTTP1
	case whole:
		return speaksOther
	}
	return speaksMaybeHTTP
}

// settingsFirst says whether b looks like a server that begins to speak HTTP/2: RFC 9113 lets it, before its client's
// preface. It begins with a SETTINGS frame on stream 0.
func settingsFirst(b []byte) bool {
	return len(b) >= 9 && b[0] == 0 && b[3] == 4 && b[4] == 0 && bytes.Equal(b[5:9], make([]byte, 4))
}
