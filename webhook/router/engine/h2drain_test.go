package engine

import (
	"testing"

	"golang.org/x/net/http2"
)

func TestHTTP2_a_request_that_crosses_the_goodbye_of_an_app_that_ends_is_refused_by_itself(t *testing.T) {
	f, app, _ := two(t)
	c, _ := f.h2dial()
	c.get(1, true)
	a := h2accept(t, app)
	id := a.nextHeaders().StreamID
	_ = app.Close() // as a server does that shuts down in good order: it accepts no more, and ends what it has
	_ = a.WriteGoAway(id, http2.ErrCodeNo, nil)
	if last, _ := c.nextGoAway(); last != 1<<31-1 {
		t.Fatalf("got %d", last)
	}
	c.get(3, true) // before it has heard the last of it
	ping, ok := c.next().(*http2.PingFrame)
	if !ok {
		t.Fatalf("got %v, want PING", ping)
	}
	if code := c.nextReset(); code != http2.ErrCodeRefusedStream {
		t.Errorf("got %v", code)
	}
	_ = c.WritePing(true, ping.Data)
	if last, _ := c.nextGoAway(); last != 3 {
		t.Errorf("got %d", last)
	}
	a.headers(id, true, ":status", "200")
	if h := c.nextHeaders(); h.StreamID != 1 || h.PseudoValue("status") != "200" {
		t.Errorf("got %v", h)
	}
	c.end()
}
