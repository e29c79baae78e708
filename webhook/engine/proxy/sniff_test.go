package proxy

import (
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

func FuzzSniff(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Add([]byte(http2.ClientPreface))
	f.Fuzz(func(t *testing.T, b []byte) {
		// What is decided stays decided, however much more comes.
		for i := range b {
			if p := sniff(b[:i]); p > speaksMaybeHTTP && p != sniff(b) {
				t.Fatalf("%q is %d, %q is %d", b[:i], p, b, sniff(b))
			}
		}
	})
}

func TestSniff(t *testing.T) {
	for in, want := range map[string]protocol{
		"":                                 speaksYetUnknown,
		"G":                                speaksYetUnknown,
		"GET":                              speaksYetUnknown,
		"GET ":                             speaksMaybeHTTP,
		"GET /":                            speaksMaybeHTTP,
		"GET / HTTP/1.1\r\n":               speaksHTTP1,
		"GET / HTTP/1":                     speaksHTTP1,
		"GET / HTTP/1.1\n":                 speaksHTTP1, // refused there
		"\r\nGET / HTTP/1.1\r\n":           speaksHTTP1,
		"M-SEARCH * HTTP/1.1\r\n":          speaksHTTP1,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": speaksHTTP2,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n":     speaksMaybeHTTP,
		"PRI * HTTP/1.1\r\n":               speaksHTTP1,
		"PRI":                              speaksYetUnknown,
		"\x16\x03\x01\x02\x00":             speaksOther, // TLS
		"*1\r\n$4\r\nPING\r\n":             speaksOther, // Redis
		"PING\r\n":                         speaksOther, // Redis, by hand
		"get foo\r\n":                      speaksOther, // memcached
		"set foo 0 0 3\r\n":                speaksOther,
		"AMQP\x00\x00\x09\x01":             speaksOther,
		"SSH-2.0-OpenSSH_9\r\n":            speaksOther,
		"CONNECT\naccept-version:1.2\n":    speaksOther, // STOMP
		"INVITE sip:b@x SIP/2.0\r\n":       speaksOther,
		"OPTIONS rtsp://x/ RTSP/1.0\r\n":   speaksOther,
		"EHLO x\r\n":                       speaksOther,
		"\x00\x00\x00\x08\x04\xd2\x16\x2f": speaksOther, // PostgreSQL asks for TLS
		strings.Repeat("A", 40):            speaksOther,
	} {
		if got := sniff([]byte(in)); got != want {
			t.Errorf("%q: got %d, want %d", in, got, want)
		}
	}
}
