package proxy_test

import (
	"errors"
	"io"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/enginetest"
)

// A connection on which nothing is in flight ends after IdleTimeout, whatever its client speaks, or if it speaks at
// all; one with a request in flight does not.
func TestIdleTimeout(t *testing.T) {
	const idle = 50 * time.Millisecond
	app := enginetest.Listen(t)
	f := enginetest.Serve(t, engine.Options{IdleTimeout: idle}, &enginetest.ByHeader{App: enginetest.BackendAt("app", app), NoApp: true})

	t.Run("silent", func(t *testing.T) {
		if n, err := f.Dial().Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("got %d, %v, want the end", n, err)
		}
	})
	t.Run("between requests, and not in one", func(t *testing.T) {
		c := f.Dial()
		c.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		a := enginetest.Accept(t, app)
		a.Expect("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		time.Sleep(3 * idle) // the app takes its time
		a.Send("HTTP/1.1 204 No Content\r\n\r\n")
		c.Expect("HTTP/1.1 204 No Content\r\n\r\n")
		if _, err := c.Buffered.ReadByte(); err != io.EOF {
			t.Errorf("got %v, want the end", err)
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		c := f.Dial()
		c.Send(http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00")
		if _, err := io.Copy(io.Discard, c.Buffered); err != nil {
			t.Errorf("got %v, want the end", err)
		}
	})
}
