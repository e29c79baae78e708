package proxy_test

import (
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/enginetest"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/session"
)

func TestRaw_a_server_that_speaks_first_is_heard_and_the_next_time_at_once(t *testing.T) {
	f, app := enginetest.WithApp(t)
	for range 2 {
		p := f.Dial()
		b := enginetest.Accept(t, app)
		b.Send("220 ready\r\n")
		p.Expect("220 ready\r\n")
		p.Send("GET / HTTP/1.1\nno HTTP here\n")
		b.Expect("GET / HTTP/1.1\nno HTTP here\n")
		b.Send("bye")
		b.CloseWrite()
		p.Expect("bye")
		p.End()
		p.Send("more")
		b.Expect("more")
		p.CloseWrite()
		b.End()
		enginetest.Eventually(t, "the connection is forgotten", func() bool { return f.Stats.Open.Load() == 0 })
	}
	if !f.SpeaksFirst() {
		t.Error("not remembered")
	}
	if n := f.Stats.Raw.Load(); n != 2 {
		t.Errorf("counted %d", n)
	}
}

func TestRaw_bytes_pass_untouched_both_ways(t *testing.T) {
	f, app := enginetest.WithApp(t)
	p := f.Dial()
	up, down := make([]byte, 4<<20), make([]byte, 4<<20)
	_, _ = rand.Read(up)
	_, _ = rand.Read(down)
	up[0] = 0
	go func() {
		p.Send(string(up))
		p.CloseWrite()
	}()
	b := enginetest.Accept(t, app)
	go func() {
		b.Send(string(down))
		b.CloseWrite()
	}()
	got := make(chan []byte)
	go func() { all, _ := io.ReadAll(b.Buffered); got <- all }()
	if all, err := io.ReadAll(p.Buffered); err != nil || string(all) != string(down) {
		t.Errorf("the client got %d bytes (%v)", len(all), err)
	}
	if all := <-got; string(all) != string(up) {
		t.Errorf("the app got %d bytes", len(all))
	}
}

func TestRaw_a_client_with_a_word_alone_is_not_kept_waiting(t *testing.T) {
	f, app := enginetest.WithApp(t)
	f.PrefixWait = 50 * time.Millisecond
	p := f.Dial()
	p.Send("MAGIC")
	b := enginetest.Accept(t, app)
	b.Expect("MAGIC")
	b.Send("ok")
	p.Expect("ok")
}

func TestRaw_what_a_client_sends_before_it_is_clear_goes_to_a_server_that_speaks(t *testing.T) {
	f, app := enginetest.WithApp(t)
	f.PrefixWait = time.Minute
	p := f.Dial()
	p.Send("USER")
	b := enginetest.Accept(t, app)
	b.Send("220 ready\r\n")
	p.Expect("220 ready\r\n")
	b.Expect("USER")
	p.Send(" me\r\n")
	b.Expect(" me\r\n")
}

func TestRaw_a_reset_is_passed_on(t *testing.T) {
	f, app := enginetest.WithApp(t)
	p := f.Dial()
	p.Send("\x00")
	b := enginetest.Accept(t, app)
	b.Expect("\x00")
	session.Reset(b.Conn)
	p.Broken()
	p = f.Dial()
	p.Send("\x00")
	b = enginetest.Accept(t, app)
	b.Expect("\x00")
	session.Reset(p.Conn)
	b.Broken()
}

func TestRaw_a_silent_client_s_connection_serves_its_first_request(t *testing.T) {
	f, app := enginetest.WithApp(t)
	p := f.Dial()
	b := enginetest.Accept(t, app) // for the app to speak first
	p.Send("GET /1 HTTP/1.1\r\n\r\n")
	b.Expect("GET /1 HTTP/1.1\r\n\r\n")
	b.Send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	p.ReadAnswer("GET")
}

func TestRaw_an_app_that_ends_a_silent_connection_ends_it(t *testing.T) {
	f, app := enginetest.WithApp(t)
	p := f.Dial()
	b := enginetest.Accept(t, app)
	_ = b.Close()
	p.End()
	p = f.Dial()
	b = enginetest.Accept(t, app)
	session.Reset(b.Conn)
	p.Broken()
}

func TestRaw_a_client_that_goes_without_a_word_goes_at_the_app(t *testing.T) {
	f, app := enginetest.WithApp(t)
	p := f.Dial()
	b := enginetest.Accept(t, app)
	_ = p.Close()
	b.End()
	enginetest.Eventually(t, "the connection is forgotten", func() bool { return f.Stats.Open.Load() == 0 })
}

func TestRaw_TLS_passes_untouched(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	f := enginetest.Serve(t, engine.Options{}, &enginetest.ByHeader{App: engine.Backend{ID: "app", Addr: srv.Listener.Addr().String()}})
	tr := &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: srv.Client().Transport.(*http.Transport).TLSClientConfig,
		DialContext: (&net.Dialer{}).DialContext,
	}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("https://" + f.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); string(b) != "HTTP/2.0" || resp.TLS == nil || resp.TLS.Version < tls.VersionTLS13 {
		t.Errorf("got %q", b)
	}
}

func TestRaw_where_there_is_no_default_bytes_go_nowhere(t *testing.T) {
	app := enginetest.Record(t, "app")
	f := enginetest.Serve(t, engine.Options{}, &enginetest.ByHeader{App: enginetest.BackendAt("app", app.Listener), NoApp: true})
	p := f.Dial()
	p.Send("\x16\x03\x01")
	if b, err := io.ReadAll(p.Buffered); len(b) > 0 {
		t.Errorf("got %q (%v)", b, err)
	}
	if app.Connections() > 0 {
		t.Error("the app was dialed")
	}
	p = f.Dial()
	p.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n") // HTTP is decided by the Decider
	if _, body := p.ReadAnswer("GET"); body != "app" {
		t.Errorf("got %q", body)
	}
}

func TestRaw_draining_ends_what_does_not_end(t *testing.T) {
	f, app := enginetest.WithApp(t)
	p := f.Dial()
	p.Send("\x00")
	enginetest.Accept(t, app).Expect("\x00")
	silent := f.Dial()
	enginetest.Accept(t, app)
	_ = f.Listener.Close()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		ctx, cancel := enginetest.ContextWithTimeout(t, 100*time.Millisecond)
		defer cancel()
		f.Drain(ctx)
	}()
	silent.End()
	<-drained
	if _, err := p.Buffered.ReadByte(); err == nil {
		t.Error("still open")
	}
}
