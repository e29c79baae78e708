package router

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

// startProxy runs a router as in a fork's pod and returns the proxy's address, and a client that uses it.
func startProxy(t *testing.T) (addr string, client *http.Client) {
	t.Helper()
	c := testConfig(t)
	c.Captures = nil
	c.Outgoing = netip.MustParseAddrPort(fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	c.Key = "the-key"
	startRouter(t, c)
	client = newClient(t, nil)
	client.Transport.(*http.Transport).Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: c.Outgoing.String()})
	return c.Outgoing.String(), client
}

// showKeys answers with what carries a key in the request.
func showKeys(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s%s key=%s baggage=%s tracestate=%s proxy=%s%s body=%s", r.Method, r.Host, r.RequestURI,
		strings.Join(r.Header.Values("X-Sandbox-Key"), "|"), strings.Join(r.Header.Values("Baggage"), "|"), r.Header.Get("Tracestate"),
		r.Header.Get("Proxy-Connection"), r.Header.Get("Proxy-Authorization"), b)
}

func TestOutgoing_stamps_the_key_on_requests_that_carry_none(t *testing.T) {
	_, client := startProxy(t)
	to := startPod(t, "other", "127.0.0.7", freePort(t), http.HandlerFunc(showKeys))
	for name, test := range map[string]struct {
		fields []string
		want   string
	}{
		"none":           {nil, "key=the-key baggage=sandbox-key=the-key tracestate="},
		"other baggage":  {[]string{"Baggage", "a=b;c", "Baggage", "d=e"}, "key=the-key baggage=sandbox-key=the-key,a=b;c,d=e tracestate="},
		"key in header":  {[]string{"X-Sandbox-Key", "mine"}, "key=mine baggage=sandbox-key=mine tracestate="},
		"key in baggage": {[]string{"Baggage", "sandbox-key=mine"}, "key=mine baggage=sandbox-key=mine tracestate="},
		"key in state":   {[]string{"Tracestate", "sandbox-key=mine"}, "key=mine baggage=sandbox-key=mine tracestate=sandbox-key=mine"},
		"two keys":       {[]string{"X-Sandbox-Key", "a", "X-Sandbox-Key", "b"}, "key=a|b baggage= tracestate="},
		"empty key":      {[]string{"X-Sandbox-Key", ""}, "key=the-key baggage=sandbox-key=the-key tracestate="},
		"for the proxy":  {[]string{"Proxy-Connection", "x", "Proxy-Authorization", "y"}, "key=the-key baggage=sandbox-key=the-key tracestate= proxy= body="},
	} {
		resp, body := ask(t, client, "http://"+to.addr+"/a%20b?c", test.fields...)
		if resp.StatusCode != http.StatusOK || !strings.Contains(body, test.want) || !strings.HasPrefix(body, "GET "+to.addr+"/a%20b?c ") {
			t.Errorf("%s: got %q, want %q", name, body, test.want)
		}
		if resp.Header.Get("X-Sandbox-Served-By") != "" {
			t.Errorf("%s: the answer says who served it", name)
		}
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+to.addr, strings.NewReader("hello"))
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); !strings.HasSuffix(string(b), "body=hello") {
		t.Errorf("got %q", b)
	}
}

func TestOutgoing_one_connection_of_the_app_s_reaches_many_hosts(t *testing.T) {
	addr, _ := startProxy(t)
	port := freePort(t)
	for i := range 50 {
		startPod(t, "x", fmt.Sprintf("127.0.3.%d", i+1), port, http.HandlerFunc(showKeys))
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for i := range 100 {
		host := fmt.Sprintf("127.0.3.%d:%d", i%50+1, port)
		fmt.Fprintf(c, "GET http://%s?x HTTP/1.1\r\nHost: somebody.else\r\n\r\n", host)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, _ := io.ReadAll(resp.Body); !strings.HasPrefix(string(b), "GET "+host+"/?x key=the-key ") {
			t.Errorf("got %q", b)
		}
	}
}

func TestOutgoing_refuses(t *testing.T) {
	addr, _ := startProxy(t)
	dead := freePort(t)
	_, own, _ := net.SplitHostPort(addr)
	for name, test := range map[string]struct {
		request string
		status  int
	}{
		"no target":               {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"https":                   {"GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"no host":                 {"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"user":                    {"GET http://u@a/x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"port out of range":       {"GET http://a:99999/x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"CONNECT without port":    {"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		"itself":                  {"GET http://" + addr + "/ HTTP/1.1\r\nHost: a\r\n\r\n", 403},
		"itself by name":          {"GET http://localhost:" + own + "/ HTTP/1.1\r\nHost: a\r\n\r\n", 403},
		"itself by CONNECT":       {"CONNECT " + addr + " HTTP/1.1\r\nHost: a\r\n\r\n", 403},
		"itself, spelt otherwise": {"GET http://[::ffff:127.0.0.1]:" + own + "/ HTTP/1.1\r\nHost: a\r\n\r\n", 502},
		"nobody":                  {fmt.Sprintf("GET http://127.0.0.1:%d/ HTTP/1.1\r\nHost: a\r\n\r\n", dead), 502},
		"nobody by CONNECT":       {fmt.Sprintf("CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: a\r\n\r\n", dead), 502},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = io.WriteString(c, test.request)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != test.status || resp.Header.Get("X-Sandbox-Error") == "" {
				t.Errorf("got %s %v", resp.Status, resp.Header)
			}
		})
	}
}

// connect opens a tunnel.
func connect(t *testing.T, proxy, to string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", proxy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", to, to)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, &http.Request{Method: "CONNECT"})
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("got %v (%v)", resp, err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return c, r
}

func TestOutgoing_stamps_what_comes_through_a_tunnel(t *testing.T) {
	addr, _ := startProxy(t)
	to := startPod(t, "other", "127.0.0.7", freePort(t), http.HandlerFunc(showKeys))
	eachProtocol(t, func(t *testing.T, protocols *http.Protocols) {
		client := newClient(t, protocols)
		client.Transport.(*http.Transport).DialContext = func(_ context.Context, _, host string) (net.Conn, error) {
			c, _ := connect(t, addr, host)
			return c, nil
		}
		for range 3 {
			if _, body := ask(t, client, "http://"+to.addr, "Baggage", "a=b"); !strings.Contains(body, "key=the-key baggage=sandbox-key=the-key,a=b ") {
				t.Errorf("got %q", body)
			}
			if _, body := ask(t, client, "http://"+to.addr, "X-Sandbox-Key", "mine"); !strings.Contains(body, "key=mine baggage=sandbox-key=mine ") {
				t.Errorf("got %q", body)
			}
		}
	})
}

func TestOutgoing_leaves_TLS_and_other_protocols_alone(t *testing.T) {
	addr, client := startProxy(t)
	srv := httptest.NewTLSServer(http.HandlerFunc(showKeys))
	defer srv.Close()
	client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
	if _, body := ask(t, client, srv.URL); !strings.Contains(body, "key= baggage= ") {
		t.Errorf("got %q", body)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "220 ready\r\n") // speaks first
		_, _ = io.Copy(c, c)
	}()
	c, r := connect(t, addr, l.Addr().String())
	if line, err := r.ReadString('\n'); line != "220 ready\r\n" {
		t.Fatalf("got %q (%v)", line, err)
	}
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
	if line, err := r.ReadString('\n'); line != "GET / HTTP/1.1\r\n" {
		t.Fatalf("got %q (%v)", line, err)
	}
}

func TestOutgoing_passes_WebSockets_on(t *testing.T) {
	addr, _ := startProxy(t)
	to := startPod(t, "other", "127.0.0.7", freePort(t), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Sandbox-Key") != "the-key" || r.Header.Get("Upgrade") != "websocket" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c, rw, _ := http.NewResponseController(w).Hijack()
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(c, rw)
	}))
	for _, scheme := range []string{"http", "ws", "WS"} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "GET %s://%s/ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", scheme, to.addr, to.addr)
		upgraded(t, c, bufio.NewReader(c))
	}
	c, r := connect(t, addr, to.addr)
	fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", to.addr)
	upgraded(t, c, r)
}

// upgraded reads the switch to WebSocket on c, and has a frame echoed.
func upgraded(t *testing.T, c net.Conn, r *bufio.Reader) {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v (%v)", resp, err)
	}
	_, _ = io.WriteString(c, "frame\n")
	if line, _ := r.ReadString('\n'); line != "frame\n" {
		t.Errorf("got %q", line)
	}
}
