package http1_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/enginetest"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/session"
)

func TestHTTP1_a_client_that_breaks_off_breaks_off_at_the_app(t *testing.T) {
	f, app := enginetest.WithApp(t)
	p := f.Dial()
	p.Send("GET / HTTP/1.1\r\n\r\n")
	b := enginetest.Accept(t, app)
	b.ReadHead()
	session.Reset(p.Conn)
	b.Broken()
	enginetest.Eventually(t, "the connection is forgotten", func() bool { return f.Stats.Open.Load() == 0 })
}

func TestHTTP1_an_upgrade_becomes_a_tunnel_with_two_halves(t *testing.T) {
	f, _, fork := enginetest.WithAppAndFork(t)
	p := f.Dial()
	p.Send("GET /ws HTTP/1.1\r\nx-to: fork\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
	b := enginetest.Accept(t, fork)
	b.ReadHead()
	b.Send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
	p.Expect("HTTP/1.1 101 Switching Protocols\r\nx-served-by: fork-0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
	b.Expect("early")
	p.Send("GET / HTTP/1.1\r\n\r\n") // no request any more
	b.Expect("GET / HTTP/1.1\r\n\r\n")
	b.Send("bye")
	b.CloseWrite()
	p.Expect("bye")
	p.End()
	p.Send("bye yourself")
	b.Expect("bye yourself")
	p.CloseWrite()
	b.End()
	enginetest.Eventually(t, "the connection is forgotten", func() bool { return f.Stats.Open.Load() == 0 })
}

func TestHTTP1_an_upgrade_that_is_declined_is_an_answer_like_others(t *testing.T) {
	f, app := enginetest.WithApp(t)
	p := f.Dial()
	p.Send("GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	b := enginetest.Accept(t, app)
	b.ReadHead()
	b.Send("HTTP/1.1 426 No\r\nContent-Length: 2\r\n\r\nno")
	p.Expect("HTTP/1.1 426 No\r\nContent-Length: 2\r\n\r\nno")
	p.Send("GET /2 HTTP/1.1\r\n\r\n")
	b.Expect("GET /2 HTTP/1.1\r\n\r\n")
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
			f, app := enginetest.WithApp(t)
			p := f.Dial()
			p.Send(test.sent)
			b := enginetest.Accept(t, app)
			b.Expect(test.got)
			b.Silent()
		})
	}
}

func TestHTTP1_a_stale_connection_is_replaced_unseen(t *testing.T) {
	f, _, fork := enginetest.WithAppAndFork(t)
	p := f.Dial()
	p.Send("GET /1 HTTP/1.1\r\nx-to: fork\r\n\r\n")
	b := enginetest.Accept(t, fork)
	b.ReadHead()
	b.Send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	p.ReadAnswer("GET")
	p.Send("GET /2 HTTP/1.1\r\nx-to: fork\r\n\r\n")
	b.ReadHead() // the fork has taken the request, and ends an idle connection at the same time
	_ = b.Close()
	b = enginetest.Accept(t, fork)
	if got := b.ReadHead(); got != "GET /2 HTTP/1.1\r\nx-to: fork\r\n\r\n" {
		t.Errorf("got %q", got)
	}
	b.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	if _, body := p.ReadAnswer("GET"); body != "ok" {
		t.Errorf("got %q", body)
	}
	if f.Decider.Observer.Count(engine.Broken) != 0 {
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
			f, _, fork := enginetest.WithAppAndFork(t)
			p := f.Dial()
			p.Send("GET /1 HTTP/1.1\r\nx-to: fork\r\n\r\n")
			b := enginetest.Accept(t, fork)
			b.ReadHead()
			b.Send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			p.ReadAnswer("GET")
			p.Send(request)
			b.ReadHead()
			_ = b.Close()
			if resp, body := p.ReadAnswer("GET"); resp.StatusCode != http.StatusServiceUnavailable || body == "" {
				t.Errorf("got %s %q", resp.Status, body)
			}
			if f.Decider.Observer.Count(engine.Broken) != 1 {
				t.Error("not counted as broken")
			}
		})
	}
}

func TestHTTP1_a_fork_that_breaks_off_before_its_answer_is_a_failure_and_the_client_goes_on(t *testing.T) {
	f, app, fork := enginetest.WithAppAndFork(t)
	p := f.Dial()
	p.Send("GET /1 HTTP/1.1\r\nx-to: fork\r\n\r\n")
	b := enginetest.Accept(t, fork)
	b.ReadHead()
	_ = b.Close()
	resp, body := p.ReadAnswer("GET")
	if resp.StatusCode != http.StatusServiceUnavailable || body != "the fork: it ended the connection before it answered\n" ||
		resp.Header.Get("X-Sandbox-Error")+"\n" != body || resp.Close {
		t.Errorf("got %s %q %v", resp.Status, body, resp.Header)
	}
	p.Send("GET /2 HTTP/1.1\r\n\r\n")
	b = enginetest.Accept(t, app)
	b.ReadHead()
}

func TestHTTP1_an_answer_that_breaks_off_breaks_off_at_the_client(t *testing.T) {
	for name, head := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			f, app := enginetest.WithApp(t)
			p := f.Dial()
			p.Send("GET / HTTP/1.1\r\n\r\n")
			b := enginetest.Accept(t, app)
			b.ReadHead()
			b.Send(head)
			p.Expect(head)
			_ = b.Close()
			p.End()
			if f.Decider.Observer.Count(engine.Answered) != 1 || f.Decider.Observer.Count(engine.Broken) != 1 {
				t.Errorf("observed %v", f.Decider.Observer.Counts)
			}
		})
	}
	t.Run("reset", func(t *testing.T) {
		f, app := enginetest.WithApp(t)
		p := f.Dial()
		p.Send("GET / HTTP/1.1\r\n\r\n")
		b := enginetest.Accept(t, app)
		b.ReadHead()
		b.Send("HTTP/1.1 200 OK\r\n\r\nabc") // only a reset tells this from a whole answer
		p.Expect("HTTP/1.1 200 OK\r\n\r\nabc")
		session.Reset(b.Conn)
		p.Broken()
	})
}

func TestHTTP1_an_app_that_ends_an_idle_connection_ends_the_client_s(t *testing.T) {
	f, app := enginetest.WithApp(t)
	p := f.Dial()
	p.Send("GET / HTTP/1.1\r\n\r\n")
	b := enginetest.Accept(t, app)
	b.ReadHead()
	b.Send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	p.ReadAnswer("GET")
	_ = b.Close()
	p.End()
}

func TestHTTP1_a_fork_that_ends_an_idle_connection_does_not(t *testing.T) {
	f, app, fork := enginetest.WithAppAndFork(t)
	p := f.Dial()
	p.Send("GET / HTTP/1.1\r\nx-to: fork\r\n\r\n")
	b := enginetest.Accept(t, fork)
	b.ReadHead()
	b.Send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	p.ReadAnswer("GET")
	_ = b.Close()
	p.Silent()
	p.Send("GET / HTTP/1.1\r\n\r\n")
	enginetest.Accept(t, app).ReadHead()
}

func TestHTTP1_bytes_that_nobody_asked_for_reach_nobody(t *testing.T) {
	f, _, fork := enginetest.WithAppAndFork(t)
	p := f.Dial()
	p.Send("GET /1 HTTP/1.1\r\nx-to: fork\r\n\r\n")
	b := enginetest.Accept(t, fork)
	b.ReadHead()
	b.Send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
	if resp, body := p.ReadAnswer("GET"); resp.StatusCode != http.StatusOK || body != "" {
		t.Errorf("got %s %q", resp.Status, body)
	}
	p.Silent()
	p.Send("GET /2 HTTP/1.1\r\nx-to: fork\r\n\r\n")
	b = enginetest.Accept(t, fork)
	b.ReadHead()
	b.Send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
	if _, body := p.ReadAnswer("GET"); body != "good" {
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
			f, app := enginetest.WithApp(t)
			p := f.Dial()
			p.Send(test.request)
			b := enginetest.Accept(t, app)
			b.ReadHead()
			b.Send(test.answer)
			p.Expect(test.answer)
			p.End()
			b.End()
		})
	}
}

func TestHTTP1_a_fork_without_a_pod_that_answers_is_a_failure(t *testing.T) {
	f, _, fork := enginetest.WithAppAndFork(t)
	dead := enginetest.Listen(t)
	f.Decider.Named["dead"] = enginetest.BackendAt("dead", dead)
	_ = dead.Close()
	p := f.Dial()
	p.Send("GET / HTTP/1.1\r\nx-to: dead,fork\r\n\r\n") // another pod is tried
	b := enginetest.Accept(t, fork)
	b.ReadHead()
	b.Send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	if resp, _ := p.ReadAnswer("GET"); resp.StatusCode != http.StatusOK || resp.Header.Get("X-Served-By") != "fork-0" {
		t.Errorf("got %s %v", resp.Status, resp.Header)
	}
	p.Send("GET / HTTP/1.1\r\nx-to: dead\r\n\r\n")
	resp, body := p.ReadAnswer("GET")
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "connection refused") || resp.Close {
		t.Errorf("got %s %q", resp.Status, body)
	}
	p.Send("HEAD / HTTP/1.1\r\nx-to: dead\r\n\r\n")
	if resp, _ := p.ReadAnswer("HEAD"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("got %s", resp.Status)
	}
	if f.Decider.Observer.Count(engine.Refused) != 2 {
		t.Errorf("observed %v", f.Decider.Observer.Counts)
	}
}

func TestHTTP1_an_app_that_refuses_looks_refused(t *testing.T) {
	f, app := enginetest.WithApp(t)
	_ = app.Close()
	p := f.Dial()
	p.Send("GET / HTTP/1.1\r\n\r\n")
	p.Broken()
	p = f.Dial() // a probe that says nothing
	p.Broken()
}

func TestHTTP1_a_slow_head_is_not_waited_for(t *testing.T) {
	app := enginetest.Record(t, "app")
	f := enginetest.Serve(t, engine.Options{HeadTimeout: 50 * time.Millisecond, Linger: time.Second}, &enginetest.ByHeader{App: enginetest.BackendAt("app", app.Listener)})
	p := f.Dial()
	p.Send("GET / HTTP/1.1\r\nHost")
	if resp, _ := p.ReadAnswer("GET"); resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("got %s", resp.Status)
	}
	p.CloseWrite()
	p.End()
	p = f.Dial()
	p.Send("GET /lo")
	if resp, _ := p.ReadAnswer("GET"); resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("got %s", resp.Status)
	}
	p.End()
}

func TestHTTP1_refusals_leave_the_connection_usable(t *testing.T) {
	f, app := enginetest.WithApp(t)
	p := f.Dial()
	p.Send("GET / HTTP/1.1\r\nx-refuse: for a reason\r\n\r\n")
	resp, body := p.ReadAnswer("GET")
	if resp.StatusCode != http.StatusServiceUnavailable || body != "for a reason\n" || resp.Close {
		t.Errorf("got %s %q %v", resp.Status, body, resp.Header)
	}
	p.Send("GET / HTTP/1.1\r\n\r\n")
	enginetest.Accept(t, app).ReadHead()
	p = f.Dial()
	p.Send("POST / HTTP/1.1\r\nx-refuse: for a reason\r\nContent-Length: 10\r\n\r\nabc")
	if resp, _ := p.ReadAnswer("POST"); resp.StatusCode != http.StatusServiceUnavailable || !resp.Close {
		t.Errorf("got %s %v", resp.Status, resp.Header)
	}
}

func TestHTTP1_draining_lets_what_is_in_flight_end(t *testing.T) {
	f, app := enginetest.WithApp(t)
	idle, busy := f.Dial(), f.Dial()
	idle.Send("GET / HTTP/1.1\r\n\r\n")
	b := enginetest.Accept(t, app)
	b.ReadHead()
	b.Send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	idle.ReadAnswer("GET")
	busy.Send("GET / HTTP/1.1\r\n\r\n")
	b = enginetest.Accept(t, app)
	b.ReadHead()
	_ = f.Listener.Close()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		f.Drain(t.Context())
	}()
	idle.End()
	_ = idle.Close()
	b.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	if resp, body := busy.ReadAnswer("GET"); body != "ok" || !resp.Close {
		t.Errorf("got %q, close %v", body, resp.Close)
	}
	busy.End()
	_ = busy.Close()
	<-drained
}

func TestHTTP1_idle_connections_to_backends_that_are_gone_are_closed(t *testing.T) {
	f, _, fork := enginetest.WithAppAndFork(t)
	p := f.Dial()
	ask := func() *enginetest.Peer {
		p.Send("GET / HTTP/1.1\r\nx-to: fork\r\n\r\n")
		b := enginetest.Accept(t, fork)
		b.ReadHead()
		return b
	}
	b := ask()
	f.Retire(func(id string) bool { return id == "fork" }) // in flight: it ends first
	b.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	if _, body := p.ReadAnswer("GET"); body != "ok" {
		t.Errorf("got %q", body)
	}
	b.End()
	b = ask()
	b.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	p.ReadAnswer("GET")
	f.Retire(func(id string) bool { return id == "fork" })
	b.End()
}
