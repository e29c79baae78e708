package http1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/http/httputil"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
)

// What is accepted must be read alike by others: here, by net/http.
func FuzzRequestHead(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
		"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n",
		"GET / HTTP/1.0\r\nConnection: keep-alive, x\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\nUpgrade: h2c, x\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: x\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n c\r\n\r\n",
		"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := headEnd(b, 0)
		for i := range b { // the same, found piece by piece
			if m := headEnd(b[:i], i-1); n > 0 && i < n && m != 0 || n > 0 && i >= n && m != n && headEnd(b[:i], 0) != n {
				t.Fatalf("head ends at %d, or at %d of %d", n, m, i)
			}
		}
		if n == 0 {
			return
		}
		h, err := parseRequest(b[:n])
		if err != nil {
			return
		}
		var e engine.Edits
		if got := appendEdited(nil, h, &e); !bytes.Equal(got, b[:n]) {
			t.Fatalf("unedited: %q, was %q", got, b[:n])
		}
		e = withoutH2C(engine.Edits{Set: []engine.Field{{Name: []byte("x-set"), Value: []byte("y")}}}, h)
		edited, err := parseRequest(appendEdited(nil, h, &e))
		if err != nil || edited.length != h.length || edited.chunked != h.chunked || edited.persists() != h.persists() ||
			string(edited.Get("x-set")) != "y" || edited.Get("http2-settings") != nil {
			t.Fatalf("edited: %+v (%v), was %q", edited, err, b[:n])
		}
		req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b[:n])))
		if err != nil {
			return // net/http has opinions on targets and hosts that are the app's to have
		}
		switch {
		case req.Method != string(h.Method), req.RequestURI != string(h.Target), req.ProtoMinor != h.minor:
			t.Fatalf("net/http reads %q %q from %q", req.Method, req.RequestURI, b[:n])
		case (len(req.TransferEncoding) > 0) != h.chunked:
			t.Fatalf("net/http reads Transfer-Encoding %v from %q", req.TransferEncoding, b[:n])
		case !h.chunked && req.ContentLength != max(0, h.length):
			t.Fatalf("net/http reads Content-Length %d from %q", req.ContentLength, b[:n])
		case req.Close && h.persists() && h.minor == 1:
			t.Fatalf("net/http closes after %q", b[:n])
		}
	})
}

func FuzzAnswerHead(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
		"HTTP/1.1 200\nTransfer-Encoding: gzip, chunked\nX: a\n b\n\n",
		"HTTP/1.0 304 Not Modified\r\nConnection: keep-alive\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
	} {
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, b []byte, toHEAD bool) {
		n := headEnd(b, 0)
		if n == 0 {
			return
		}
		h, err := parseAnswer(b[:n])
		if err != nil {
			return
		}
		if h.status < 100 || h.status > 999 {
			t.Fatalf("status %d from %q", h.status, b[:n])
		}
		if got := appendEdited(nil, h, &engine.Edits{}); len(got) < n-2 { // the last line end may have been LF
			t.Fatalf("unedited: %q, was %q", got, b[:n])
		}
		body := answerFraming(h, toHEAD)
		if k, _, err := body.take(b[n:]); err == nil && k > len(b)-n {
			t.Fatalf("takes %d of %d bytes", k, len(b)-n)
		}
	})
}

// A chunked body that is accepted must be read alike by net/http, and however it is cut in pieces.
func FuzzChunks(f *testing.F) {
	for _, s := range []string{
		"0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1", "3;x=\"y\"\r\nabc\r\n0\r\nA: b\r\nC:\r\n\r\n", "ffffffffffffffff\r\n",
		"3 \r\nabc\r\n0\r\n\r\n",
	} {
		f.Add([]byte(s), uint8(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		var whole chunks
		n, done, err := whole.take(b)
		var pieces chunks
		k, step0 := 0, int(step)+1
		var kDone bool
		var kErr error
		for k < len(b) && !kDone && kErr == nil {
			var m int
			m, kDone, kErr = pieces.take(b[k:min(len(b), k+step0)])
			k += m
		}
		if k != n || kDone != done || (kErr == nil) != (err == nil) {
			t.Fatalf("whole: %d %v %v, in pieces: %d %v %v", n, done, err, k, kDone, kErr)
		}
		if !done || err != nil {
			return
		}
		r := bufio.NewReader(bytes.NewReader(b))
		if _, err := io.Copy(io.Discard, httputil.NewChunkedReader(r)); err != nil {
			t.Fatalf("net/http: %v, for %q", err, b[:n])
		}
	})
}
