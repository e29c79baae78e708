// Package message holds what all versions of HTTP share: rules of RFC 9110, and errors of messages that break them. It
// is pure.
package message

import (
	"bytes"
	"math"
	"net/http"
)

// NameIs compares a field name with one in lower case, ignoring ASCII case.
func NameIs(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// FoldEqual compares a value with one in lower case, ignoring ASCII case.
func FoldEqual(v []byte, lower string) bool { return NameIs(v, lower) }

// Tokens yields the elements of a comma-separated list.
func Tokens(list []byte) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for part := range bytes.SplitSeq(list, []byte{','}) {
			if t := bytes.Trim(part, " \t"); len(t) > 0 && !yield(t) {
				return
			}
		}
	}
}

// IsToken reports whether b is a token (RFC 9110, section 5.6.2).
func IsToken(b []byte) bool {
	for _, c := range b {
		if !TokenByte(c) {
			return false
		}
	}
	return len(b) > 0
}

// TokenByte reports whether c may be part of a token.
func TokenByte(c byte) bool {
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

// ValidTarget accepts bytes above ASCII: clients send them, and apps accept them.
func ValidTarget(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

// ValidValue reports whether a field's value contains no control character.
func ValidValue(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// ParseLength parses a Content-Length: digits only, within an int64.
func ParseLength(v []byte) (int64, error) {
	if len(v) == 0 {
		return 0, Malformedf("malformed Content-Length")
	}
	var n int64
	for _, c := range v {
		if c < '0' || '9' < c || n > (math.MaxInt64-9)/10 {
			return 0, Malformedf("malformed Content-Length")
		}
		n = n*10 + int64(c-'0')
	}
	return n, nil
}

// Idempotent reports whether a request with this method may be repeated if its outcome is unknown: RFC 9110, section
// 9.2.2.
func Idempotent(method []byte) bool {
	switch string(method) {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}
