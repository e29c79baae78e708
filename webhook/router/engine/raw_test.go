package engine

import (
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

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

func TestRaw_a_server_that_speaks_first_is_heard_and_the_next_time_at_once(t *testing.T) {
	f, app := one(t)
	for range 2 {
		p := f.dial()
		b := accept(t, app)
		b.send("220 ready\r\n")
		p.expect("220 ready\r\n")
		p.send("GET / HTTP/1.1\nno HTTP here\n")
		b.expect("GET / HTTP/1.1\nno HTTP here\n")
		b.send("bye")
		b.closeWrite()
		p.expect("bye")
		p.end()
		p.send("more")
		b.expect("more")
		p.closeWrite()
		b.end()
		eventually(t, "the connection is forgotten", func() bool { return f.Stats.Open.Load() == 0 })
	}
	if !f.speaksFirst.Load() {
		t.Error("not remembered")
	}
	if n := f.Stats.Raw.Load(); n != 2 {
		t.Errorf("counted %d", n)
	}
}

func TestRaw_bytes_pass_untouched_both_ways(t *testing.T) {
	f, app := one(t)
	p := f.dial()
	up, down := make([]byte, 4<<20), make([]byte, 4<<20)
	_, _ = rand.Read(up)
	_, _ = rand.Read(down)
	up[0] = 0
	go func() {
		p.send(string(up))
		p.closeWrite()
	}()
	b := accept(t, app)
	go func() {
		b.send(string(down))
		b.closeWrite()
	}()
	got := make(chan []byte)
	go func() { all, _ := io.ReadAll(b.r); got <- all }()
	if all, err := io.ReadAll(p.r); err != nil || string(all) != string(down) {
		t.Errorf("the client got %d bytes (%v)", len(all), err)
	}
	if all := <-got; string(all) != string(up) {
		t.Errorf("the app got %d bytes", len(all))
	}
}

func TestRaw_a_client_with_a_word_alone_is_not_kept_waiting(t *testing.T) {
	f, app := one(t)
	f.PrefixWait = 50 * time.Millisecond
	p := f.dial()
	p.send("MAGIC")
	b := accept(t, app)
	b.expect("MAGIC")
	b.send("ok")
	p.expect("ok")
}

func TestRaw_what_a_client_sends_before_it_is_clear_goes_to_a_server_that_speaks(t *testing.T) {
	f, app := one(t)
	f.PrefixWait = time.Minute
	p := f.dial()
	p.send("USER")
	b := accept(t, app)
	b.send("220 ready\r\n")
	p.expect("220 ready\r\n")
	b.expect("USER")
	p.send(" me\r\n")
	b.expect(" me\r\n")
}

func TestRaw_a_reset_is_passed_on(t *testing.T) {
	f, app := one(t)
	p := f.dial()
	p.send("\x00")
	b := accept(t, app)
	b.expect("\x00")
	reset(b.Conn)
	p.broken()
	p = f.dial()
	p.send("\x00")
	b = accept(t, app)
	b.expect("\x00")
	reset(p.Conn)
	b.broken()
}

func TestRaw_a_silent_client_s_connection_serves_its_first_request(t *testing.T) {
	f, app := one(t)
	p := f.dial()
	b := accept(t, app) // for the app to speak first
	p.send("GET /1 HTTP/1.1\r\n\r\n")
	b.expect("GET /1 HTTP/1.1\r\n\r\n")
	b.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	p.answer("GET")
}

func TestRaw_an_app_that_ends_a_silent_connection_ends_it(t *testing.T) {
	f, app := one(t)
	p := f.dial()
	b := accept(t, app)
	_ = b.Close()
	p.end()
	p = f.dial()
	b = accept(t, app)
	reset(b.Conn)
	p.broken()
}

func TestRaw_a_client_that_goes_without_a_word_goes_at_the_app(t *testing.T) {
	f, app := one(t)
	p := f.dial()
	b := accept(t, app)
	_ = p.Close()
	b.end()
	eventually(t, "the connection is forgotten", func() bool { return f.Stats.Open.Load() == 0 })
}

func TestRaw_TLS_passes_untouched(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	f := serve(t, Options{}, &byHeader{app: Backend{ID: "app", Addr: srv.Listener.Addr().String()}})
	tr := &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: srv.Client().Transport.(*http.Transport).TLSClientConfig,
		DialContext: (&net.Dialer{}).DialContext,
	}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("https://" + f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); string(b) != "HTTP/2.0" || resp.TLS == nil || resp.TLS.Version < tls.VersionTLS13 {
		t.Errorf("got %q", b)
	}
}

func TestRaw_where_there_is_no_default_bytes_go_nowhere(t *testing.T) {
	app := record(t, "app")
	f := serve(t, Options{}, &byHeader{app: backendAt("app", app.l), noApp: true})
	p := f.dial()
	p.send("\x16\x03\x01")
	if b, err := io.ReadAll(p.r); len(b) > 0 {
		t.Errorf("got %q (%v)", b, err)
	}
	if app.connections() > 0 {
		t.Error("the app was dialed")
	}
	p = f.dial()
	p.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n") // HTTP is decided by the Decider
	if _, body := p.answer("GET"); body != "app" {
		t.Errorf("got %q", body)
	}
}

func TestRaw_draining_ends_what_does_not_end(t *testing.T) {
	f, app := one(t)
	p := f.dial()
	p.send("\x00")
	accept(t, app).expect("\x00")
	silent := f.dial()
	accept(t, app)
	_ = f.l.Close()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		ctx, cancel := contextWithTimeout(t, 100*time.Millisecond)
		defer cancel()
		f.Drain(ctx)
	}()
	silent.end()
	<-drained
	if _, err := p.r.ReadByte(); err == nil {
		t.Error("still open")
	}
}
