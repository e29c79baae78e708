package router

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

const patience = 10 * time.Second

// eventually waits until ok, and fails the test when that takes too long.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// freePort returns a port on which nothing listens, at any address. It is below those that the system gives to clients,
// so that it stays free.
func freePort(t testing.TB) uint16 {
	t.Helper()
	for range 100 {
		port := 10_000 + mathrand.N(20_000)
		if l, err := net.Listen("tcp", fmt.Sprintf(":%d", port)); err == nil {
			l.Close()
			return uint16(port)
		}
	}
	t.Fatal("no port is free")
	return 0
}

// both lets a server or client speak HTTP/1.1 and HTTP/2, neither with TLS.
func both() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}

// h2c lets a client speak HTTP/2 only.
func h2c() *http.Protocols {
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	return p
}

// pod is an HTTP server at an address of its own, as a pod has.
type pod struct {
	name  string
	addr  string
	srv   *http.Server
	mu    sync.Mutex
	conns map[net.Conn]http.ConnState
	heads []http.Header
}

// startPod serves handler, or an answer "NAME\n", at ip:port.
func startPod(t testing.TB, name, ip string, port uint16, handler http.Handler) *pod {
	t.Helper()
	p := &pod{name: name, addr: net.JoinHostPort(ip, fmt.Sprint(port)), conns: make(map[net.Conn]http.ConnState)}
	if handler == nil {
		handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			fmt.Fprintln(w, name)
		})
	}
	p.srv = &http.Server{
		Protocols: both(),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p.mu.Lock()
			p.heads = append(p.heads, r.Header.Clone())
			p.mu.Unlock()
			handler.ServeHTTP(w, r)
		}),
		ConnState: func(c net.Conn, s http.ConnState) {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.conns[c] = s; s == http.StateClosed || s == http.StateHijacked {
				delete(p.conns, c)
			}
		},
	}
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.srv.Serve(l) }()
	t.Cleanup(func() { _ = p.srv.Close() })
	return p
}

func (p *pod) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// routerUnderTest is a router, and where it is reached.
type routerUnderTest struct {
	*router
	addr string // of the captured port
	app  uint16
	stop func() // ends it and waits
	log  *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// testConfig is the configuration of a router in front of an app port.
func testConfig(t testing.TB) Config {
	return Config{
		Version:    "test",
		Captures:   []sandbox.Capture{{Port: sandbox.Port{Name: "http", Number: freePort(t)}, Listen: freePort(t)}},
		Carriers:   route.Carriers{Header: sandbox.DefaultHeader, Member: sandbox.DefaultMember},
		StaleAfter: DefaultStaleAfter, FirstWait: DefaultFirstWait, PodName: "baseline-0", StateDir: t.TempDir(),
	}
}

// startRouter runs a router by c.
func startRouter(t testing.TB, c Config) *routerUnderTest {
	t.Helper()
	u := &routerUnderTest{log: new(syncBuffer)}
	u.router = newRouter(&c, slog.New(slog.NewTextHandler(u.log, nil)))
	if err := u.listen(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(c.Captures) > 0 {
		u.addr = fmt.Sprintf("127.0.0.1:%d", c.Captures[0].Listen)
		u.app = c.Captures[0].Number
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = u.run(ctx)
	}()
	u.stop = func() {
		cancel()
		<-over
	}
	t.Cleanup(func() {
		for _, e := range u.engines { // whatever the test left open
			done, cancel := context.WithCancel(context.Background())
			cancel()
			e.Drain(done)
		}
		u.stop()
	})
	return u
}

// table returns a table of one fork for each key, whose pods are at the addresses given.
func table(counter uint64, forks map[string][]string) *route.Table {
	t := &route.Table{Version: route.Version{Term: 1, Counter: counter}, Routes: map[string]route.Fork{}}
	for key, ips := range forks {
		f := route.Fork{Sandbox: "sb-" + key, Name: "app-" + key}
		for i, ip := range ips {
			netip.MustParseAddr(ip)
			f.Pods = append(f.Pods, route.Pod{Name: fmt.Sprintf("fork-%s-%d", key, i), UID: "uid-" + ip, IP: ip})
		}
		t.Routes[key] = f
	}
	return t
}

func (u *routerUnderTest) setTable(t *route.Table) { u.retire(u.routes.replace(t, time.Now())) }

// client returns a client that keeps one connection of HTTP/1.1, or of HTTP/2.
func newClient(t testing.TB, protocols *http.Protocols) *http.Client {
	tr := &http.Transport{Protocols: protocols, MaxConnsPerHost: 1, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

// answer is what came of a request.
type answer struct {
	StatusCode int
	Status     string
	Header     http.Header
}

// ask sends a GET, with header fields in pairs, and returns the answer and its body.
func ask(t testing.TB, c *http.Client, url string, fields ...string) (answer, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(fields); i += 2 {
		req.Header.Add(fields[i], fields[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Status, resp.Header}, strings.TrimSpace(string(b))
}

// eachProtocol runs a test by HTTP/1.1 and by HTTP/2.
func eachProtocol(t *testing.T, test func(t *testing.T, protocols *http.Protocols)) {
	h1 := new(http.Protocols)
	h1.SetHTTP1(true)
	t.Run("http1", func(t *testing.T) { test(t, h1) })
	t.Run("http2", func(t *testing.T) { test(t, h2c()) })
}
