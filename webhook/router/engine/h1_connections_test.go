package engine

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestHTTP1_a_client_that_breaks_off_breaks_off_at_the_app(t *testing.T) {
	f, app := one(t)
	p := f.dial()
	p.send("GET / HTTP/1.1\r\n\r\n")
	b := accept(t, app)
	b.head()
	reset(p.Conn)
	b.broken()
	eventually(t, "the connection is forgotten", func() bool { return f.Stats.Open.Load() == 0 })
}

func TestHTTP1_an_upgrade_becomes_a_tunnel_with_two_halves(t *testing.T) {
	f, _, fork := two(t)
	p := f.dial()
	p.send("GET /ws HTTP/1.1\r\nx-to: fork\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
	b := accept(t, fork)
	b.head()
	b.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
	p.expect("HTTP/1.1 101 Switching Protocols\r\nx-served-by: fork-0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
	b.expect("early")
	p.send("GET / HTTP/1.1\r\n\r\n") // no request any more
	b.expect("GET / HTTP/1.1\r\n\r\n")
	b.send("bye")
	b.closeWrite()
	p.expect("bye")
	p.end()
	p.send("bye yourself")
	b.expect("bye yourself")
	p.closeWrite()
	b.end()
	eventually(t, "the connection is forgotten", func() bool { return f.Stats.Open.Load() == 0 })
}

func TestHTTP1_an_upgrade_that_is_declined_is_an_answer_like_others(t *testing.T) {
	f, app := one(t)
	p := f.dial()
	p.send("GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	b := accept(t, app)
	b.head()
	b.send("HTTP/1.1 426 No\r\nContent-Length: 2\r\n\r\nno")
	p.expect("HTTP/1.1 426 No\r\nContent-Length: 2\r\n\r\nno")
	p.send("GET /2 HTTP/1.1\r\n\r\n")
	b.expect("GET /2 HTTP/1.1\r\n\r\n")
}

func TestHTTP1_an_offer_to_upgrade_to_HTTP2_is_taken_out(t *testing.T) {
	for name, test := range map[string]struct{ sent, got string }{
		"alone": {
			"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nA: b\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n",
		},
		"among others": {
			"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade, HTTP2-Settings\r\nUpgrade: websocket, H2C\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
			"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nHost: a\r\n\r\n",
		},
		"none": {
			"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
			"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, app := one(t)
			p := f.dial()
			p.send(test.sent)
			b := accept(t, app)
			b.expect(test.got)
			b.silent()
		})
	}
}

func TestHTTP1_a_stale_connection_is_replaced_unseen(t *testing.T) {
	f, _, fork := two(t)
	p := f.dial()
	p.send("GET /1 HTTP/1.1\r\nx-to: fork\r\n\r\n")
	b := accept(t, fork)
	b.head()
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	p.answer("GET")
	p.send("GET /2 HTTP/1.1\r\nx-to: fork\r\n\r\n")
	b.head() // the fork has taken the request, and ends an idle connection at the same time
	_ = b.Close()
	b = accept(t, fork)
	if got := b.head(); got != "GET /2 HTTP/1.1\r\nx-to: fork\r\n\r\n" {
		t.Errorf("got %q", got)
	}
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	if _, body := p.answer("GET"); body != "ok" {
		t.Errorf("got %q", body)
	}
	if f.d.observer.count(Broken) != 0 {
		t.Error("counted as broken")
	}
}

func TestHTTP1_what_is_not_safe_to_repeat_is_not_repeated(t *testing.T) {
	for name, request := range map[string]string{
		"POST":      "POST /2 HTTP/1.1\r\nx-to: fork\r\nContent-Length: 0\r\n\r\n",
		"PATCH":     "PATCH /2 HTTP/1.1\r\nx-to: fork\r\n\r\n",
		"with body": "PUT /2 HTTP/1.1\r\nx-to: fork\r\nContent-Length: 1\r\n\r\nx",
	} {
		t.Run(name, func(t *testing.T) {
			f, _, fork := two(t)
			p := f.dial()
			p.send("GET /1 HTTP/1.1\r\nx-to: fork\r\n\r\n")
			b := accept(t, fork)
			b.head()
			b.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			p.answer("GET")
			p.send(request)
			b.head()
			_ = b.Close()
			if resp, body := p.answer("GET"); resp.StatusCode != http.StatusServiceUnavailable || body == "" {
				t.Errorf("got %s %q", resp.Status, body)
			}
			if f.d.observer.count(Broken) != 1 {
				t.Error("not counted as broken")
			}
		})
	}
}

func TestHTTP1_a_fork_that_breaks_off_before_its_answer_is_a_failure_and_the_client_goes_on(t *testing.T) {
	f, app, fork := two(t)
	p := f.dial()
	p.send("GET /1 HTTP/1.1\r\nx-to: fork\r\n\r\n")
	b := accept(t, fork)
	b.head()
	_ = b.Close()
	resp, body := p.answer("GET")
	if resp.StatusCode != http.StatusServiceUnavailable || body != "the fork: it ended the connection before it answered\n" ||
		resp.Header.Get("X-Sandbox-Error")+"\n" != body || resp.Close {
		t.Errorf("got %s %q %v", resp.Status, body, resp.Header)
	}
	p.send("GET /2 HTTP/1.1\r\n\r\n")
	b = accept(t, app)
	b.head()
}

func TestHTTP1_an_answer_that_breaks_off_breaks_off_at_the_client(t *testing.T) {
	for name, head := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			f, app := one(t)
			p := f.dial()
			p.send("GET / HTTP/1.1\r\n\r\n")
			b := accept(t, app)
			b.head()
			b.send(head)
			p.expect(head)
			_ = b.Close()
			p.end()
			if f.d.observer.count(Answered) != 1 || f.d.observer.count(Broken) != 1 {
				t.Errorf("observed %v", f.d.observer.n)
			}
		})
	}
	t.Run("reset", func(t *testing.T) {
		f, app := one(t)
		p := f.dial()
		p.send("GET / HTTP/1.1\r\n\r\n")
		b := accept(t, app)
		b.head()
		b.send("HTTP/1.1 200 OK\r\n\r\nabc") // only a reset tells this from a whole answer
		p.expect("HTTP/1.1 200 OK\r\n\r\nabc")
		reset(b.Conn)
		p.broken()
	})
}

func TestHTTP1_an_app_that_ends_an_idle_connection_ends_the_client_s(t *testing.T) {
	f, app := one(t)
	p := f.dial()
	p.send("GET / HTTP/1.1\r\n\r\n")
	b := accept(t, app)
	b.head()
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	p.answer("GET")
	_ = b.Close()
	p.end()
}

func TestHTTP1_a_fork_that_ends_an_idle_connection_does_not(t *testing.T) {
	f, app, fork := two(t)
	p := f.dial()
	p.send("GET / HTTP/1.1\r\nx-to: fork\r\n\r\n")
	b := accept(t, fork)
	b.head()
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	p.answer("GET")
	_ = b.Close()
	p.silent()
	p.send("GET / HTTP/1.1\r\n\r\n")
	accept(t, app).head()
}

func TestHTTP1_bytes_that_nobody_asked_for_reach_nobody(t *testing.T) {
	f, _, fork := two(t)
	p := f.dial()
	p.send("GET /1 HTTP/1.1\r\nx-to: fork\r\n\r\n")
	b := accept(t, fork)
	b.head()
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
	if resp, body := p.answer("GET"); resp.StatusCode != http.StatusOK || body != "" {
		t.Errorf("got %s %q", resp.Status, body)
	}
	p.silent()
	p.send("GET /2 HTTP/1.1\r\nx-to: fork\r\n\r\n")
	b = accept(t, fork)
	b.head()
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
	if _, body := p.answer("GET"); body != "good" {
		t.Errorf("got %q", body)
	}
}

func TestHTTP1_connections_close_as_either_side_says(t *testing.T) {
	const plain = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	for name, test := range map[string]struct{ request, answer string }{
		"client":                  {"GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n", plain},
		"app":                     {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"},
		"client of HTTP/1.0":      {"GET / HTTP/1.0\r\n\r\n", plain},
		"app of HTTP/1.0":         {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"},
		"second Connection field": {"GET / HTTP/1.1\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", plain},
	} {
		t.Run(name, func(t *testing.T) {
			f, app := one(t)
			p := f.dial()
			p.send(test.request)
			b := accept(t, app)
			b.head()
			b.send(test.answer)
			p.expect(test.answer)
			p.end()
			b.end()
		})
	}
}

func TestHTTP1_a_fork_without_a_pod_that_answers_is_a_failure(t *testing.T) {
	f, _, fork := two(t)
	dead := listen(t)
	f.d.named["dead"] = backendAt("dead", dead)
	_ = dead.Close()
	p := f.dial()
	p.send("GET / HTTP/1.1\r\nx-to: dead,fork\r\n\r\n") // another pod is tried
	b := accept(t, fork)
	b.head()
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	if resp, _ := p.answer("GET"); resp.StatusCode != http.StatusOK || resp.Header.Get("X-Served-By") != "fork-0" {
		t.Errorf("got %s %v", resp.Status, resp.Header)
	}
	p.send("GET / HTTP/1.1\r\nx-to: dead\r\n\r\n")
	resp, body := p.answer("GET")
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "connection refused") || resp.Close {
		t.Errorf("got %s %q", resp.Status, body)
	}
	p.send("HEAD / HTTP/1.1\r\nx-to: dead\r\n\r\n")
	if resp, _ := p.answer("HEAD"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("got %s", resp.Status)
	}
	if f.d.observer.count(Refused) != 2 {
		t.Errorf("observed %v", f.d.observer.n)
	}
}

func TestHTTP1_an_app_that_refuses_looks_refused(t *testing.T) {
	f, app := one(t)
	_ = app.Close()
	p := f.dial()
	p.send("GET / HTTP/1.1\r\n\r\n")
	p.broken()
	p = f.dial() // a probe that says nothing
	p.broken()
}

func TestHTTP1_a_slow_head_is_not_waited_for(t *testing.T) {
	app := record(t, "app")
	f := serve(t, Options{HeadTimeout: 50 * time.Millisecond, Linger: time.Second}, &byHeader{app: backendAt("app", app.l)})
	p := f.dial()
	p.send("GET / HTTP/1.1\r\nHost")
	if resp, _ := p.answer("GET"); resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("got %s", resp.Status)
	}
	p.closeWrite()
	p.end()
	p = f.dial()
	p.send("GET /lo")
	if resp, _ := p.answer("GET"); resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("got %s", resp.Status)
	}
	p.end()
}

func TestHTTP1_refusals_leave_the_connection_usable(t *testing.T) {
	f, app := one(t)
	p := f.dial()
	p.send("GET / HTTP/1.1\r\nx-refuse: for a reason\r\n\r\n")
	resp, body := p.answer("GET")
	if resp.StatusCode != http.StatusServiceUnavailable || body != "for a reason\n" || resp.Close {
		t.Errorf("got %s %q %v", resp.Status, body, resp.Header)
	}
	p.send("GET / HTTP/1.1\r\n\r\n")
	accept(t, app).head()
	p = f.dial()
	p.send("POST / HTTP/1.1\r\nx-refuse: for a reason\r\nContent-Length: 10\r\n\r\nabc")
	if resp, _ := p.answer("POST"); resp.StatusCode != http.StatusServiceUnavailable || !resp.Close {
		t.Errorf("got %s %v", resp.Status, resp.Header)
	}
}

func TestHTTP1_draining_lets_what_is_in_flight_end(t *testing.T) {
	f, app := one(t)
	idle, busy := f.dial(), f.dial()
	idle.send("GET / HTTP/1.1\r\n\r\n")
	b := accept(t, app)
	b.head()
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	idle.answer("GET")
	busy.send("GET / HTTP/1.1\r\n\r\n")
	b = accept(t, app)
	b.head()
	_ = f.l.Close()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		f.Drain(t.Context())
	}()
	idle.end()
	_ = idle.Close()
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	if resp, body := busy.answer("GET"); body != "ok" || !resp.Close {
		t.Errorf("got %q, close %v", body, resp.Close)
	}
	busy.end()
	_ = busy.Close()
	<-drained
}

func TestHTTP1_idle_connections_to_backends_that_are_gone_are_closed(t *testing.T) {
	f, _, fork := two(t)
	p := f.dial()
	ask := func() *peer {
		p.send("GET / HTTP/1.1\r\nx-to: fork\r\n\r\n")
		b := accept(t, fork)
		b.head()
		return b
	}
	b := ask()
	f.Retire(func(id string) bool { return id == "fork" }) // in flight: it ends first
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	if _, body := p.answer("GET"); body != "ok" {
		t.Errorf("got %q", body)
	}
	b.end()
	b = ask()
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	p.answer("GET")
	f.Retire(func(id string) bool { return id == "fork" })
	b.end()
}

// A connection on which nothing is in flight ends after IdleTimeout, whatever its client speaks, or if it speaks at all; one with
// a request in flight does not.
func TestIdleTimeout(t *testing.T) {
	const idle = 50 * time.Millisecond
	app := listen(t)
	f := serve(t, Options{IdleTimeout: idle}, &byHeader{app: backendAt("app", app), noApp: true})

	t.Run("silent", func(t *testing.T) {
		if n, err := f.dial().Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("got %d, %v, want the end", n, err)
		}
	})
	t.Run("between requests, and not in one", func(t *testing.T) {
		c := f.dial()
		c.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		a := accept(t, app)
		a.expect("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		time.Sleep(3 * idle) // the app takes its time
		a.send("HTTP/1.1 204 No Content\r\n\r\n")
		c.expect("HTTP/1.1 204 No Content\r\n\r\n")
		if _, err := c.r.ReadByte(); err != io.EOF {
			t.Errorf("got %v, want the end", err)
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		c := f.dial()
		c.send(preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00")
		if _, err := io.Copy(io.Discard, c.r); err != nil {
			t.Errorf("got %v, want the end", err)
		}
	})
}

// An answer of one's own may be a page.
func TestRefusal_WithBody(t *testing.T) {
	got := string(refusalHTTP1(&Refusal{Status: 401, Body: []byte("<p>"), Type: "text/html"}, false, true, false))
	want := "HTTP/1.1 401 Unauthorized\r\nContent-Type: text/html\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 3\r\n\r\n<p>"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
