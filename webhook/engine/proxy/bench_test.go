package proxy_test

import (
	"bytes"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/enginetest"
)

// What a request costs the engine in memory: client and backend of these benchmarks allocate nothing for a request.
func BenchmarkRequest(b *testing.B) {
	const request, answer = "GET / HTTP/1.1\r\nHost: a\r\nx-key: k\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
	set := engine.Edits{Set: []engine.Field{{Name: []byte("x-set"), Value: []byte("y")}}}
	for _, kind := range []struct {
		name  string
		edits engine.Edits
	}{{"as it is", engine.Edits{}}, {"edited", set}} {
		b.Run("HTTP1 "+kind.name, func(b *testing.B) {
			l := enginetest.Listen(b)
			f := enginetest.Serve(b, engine.Options{}, &enginetest.ByHeader{App: enginetest.BackendAt("app", l), Edits: kind.edits})
			c := f.Dial()
			c.Send(request)
			go answerAll(enginetest.Accept(b, l).Conn, []byte("\r\n\r\n"), []byte(answer))
			got := make([]byte, len(answer))
			_, _ = io.ReadFull(c.Buffered, got)
			b.ReportAllocs()
			for b.Loop() {
				_, _ = io.WriteString(c.Conn, request)
				if _, err := io.ReadFull(c.Buffered, got); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("HTTP2 "+kind.name, func(b *testing.B) {
			l := enginetest.Listen(b)
			f := enginetest.Serve(b, engine.Options{}, &enginetest.ByHeader{App: enginetest.BackendAt("app", l), Edits: kind.edits})
			go answerFrames(b, l)
			c, _ := f.DialHTTP2()
			id := uint32(1)
			b.ReportAllocs()
			for b.Loop() {
				c.Get(id, true)
				for ended := false; !ended; {
					_, ended = c.Next().(*http2.DataFrame)
				}
				id += 2
			}
		})
	}
}

// answerAll sends an answer for each end of a head that comes.
func answerAll(conn net.Conn, end, answer []byte) {
	in := make([]byte, 4<<10)
	for {
		n, err := conn.Read(in)
		if err != nil {
			return
		}
		for range bytes.Count(in[:n], end) {
			_, _ = conn.Write(answer)
		}
	}
}

// answerFrames answers each request on the next connection by a head and a body.
func answerFrames(b *testing.B, l net.Listener) {
	s := enginetest.AcceptHTTP2(b, l)
	for {
		f, err := s.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = s.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			s.Headers(f.StreamID, false, ":status", "200")
			_ = s.WriteData(f.StreamID, true, []byte("hello"))
		}
	}
}
