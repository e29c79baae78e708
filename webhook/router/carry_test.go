package router

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// passesOnly is an app that asks the next one, and passes nothing on of what it was asked but one header.
func passesOnly(t *testing.T, header, next string, protocols *http.Protocols) http.Handler {
	client := newClient(t, protocols)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, _ := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://"+next+"/", nil)
		q.Header["Traceparent"] = r.Header["Traceparent"]
		q.Header[header] = r.Header[header]
		answer, err := client.Do(q)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		_, _ = io.Copy(w, answer.Body)
	})
}

// A key that enters by one carrier reaches a fork two hops down, whichever carrier the applications between pass on.
// The first hop is a baseline, which the key is no fork of.
func TestRouter_a_key_reaches_a_fork_by_whatever_carrier_apps_pass_on(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocols *http.Protocols) {
		for _, passed := range []string{"X-Sandbox-Key", "Baggage", "Tracestate"} {
			for enters, fields := range map[string][]string{
				"header": {"X-Sandbox-Key", "k"}, "baggage": {"Baggage", "a=1,sandbox-key=k"}, "tracestate": {"Tracestate", "v=1,sandbox-key=k"},
			} {
				last := startRouter(t, testConfig(t))
				startPod(t, "baseline", "127.0.0.1", last.app, nil)
				startPod(t, "fork", "127.0.0.3", last.app, nil)
				last.setTable(table(1, map[string][]string{"k": {"127.0.0.3"}}))
				first := startRouter(t, testConfig(t))
				startPod(t, "first", "127.0.0.1", first.app, passesOnly(t, passed, last.addr, protocols))
				first.setTable(table(1, nil))

				client := newClient(t, protocols)
				fields = append(fields, "Traceparent", traceparent)
				if _, body := ask(t, client, "http://"+first.addr, fields...); body != "fork" {
					t.Errorf("key by %s, %s passed on: answered by %q", enters, passed, body)
				}
				if _, body := ask(t, client, "http://"+first.addr, "Traceparent", traceparent); body != "baseline" {
					t.Errorf("without a key: answered by %q", body)
				}
			}
		}
	})
}

// What has no key goes to the app as it came, byte for byte; names of the chart's are the ones that are written.
func TestRouter_writes_the_carriers_it_was_given_and_only_with_a_key(t *testing.T) {
	c := testConfig(t)
	c.Carriers = route.Carriers{Header: "l5d-key", Member: "team"}
	u := startRouter(t, c)
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", u.app))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	heads := make(chan string, 8)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				b := make([]byte, 4096)
				for {
					n, err := conn.Read(b)
					if err != nil {
						return
					}
					heads <- string(b[:n])
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			}()
		}
	}()
	u.setTable(table(1, nil))
	conn, err := net.Dial("tcp", u.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	keyless := "GET /a HTTP/1.1\r\nHost: h\r\nbaggage: sandbox-key=x\r\nX-Sandbox-Key: y\r\ntraceparent: " + traceparent + "\r\n\r\n"
	_, _ = io.WriteString(conn, keyless)
	if got := <-heads; got != keyless {
		t.Errorf("without a key: got %q, want %q", got, keyless)
	}
	_, _ = io.WriteString(conn, "GET /a HTTP/1.1\r\nHost: h\r\nL5d-Key: k\r\nbaggage: a=b\r\ntraceparent: "+traceparent+"\r\n\r\n")
	want := "GET /a HTTP/1.1\r\nbaggage: team=k,a=b\r\ntracestate: team=k\r\nHost: h\r\nL5d-Key: k\r\ntraceparent: " + traceparent + "\r\n\r\n"
	if got := <-heads; got != want {
		t.Errorf("with a key: got %q, want %q", got, want)
	}
	_, _ = io.WriteString(conn, "GET /a HTTP/1.1\r\nHost: h\r\nL5d-Key: $%\r\n\r\n") // no sandbox's
	if got := <-heads; got != "GET /a HTTP/1.1\r\nHost: h\r\nL5d-Key: $%\r\n\r\n" {
		t.Errorf("with what can be no key: got %q", got)
	}
}

// By gRPC metadata: the app sees every carrier.
func TestRouter_carriers_are_metadata_of_calls(t *testing.T) {
	u := startRouter(t, testConfig(t))
	seen := make(chan metadata.MD, 1)
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		md, _ := metadata.FromIncomingContext(stream.Context())
		seen <- md
		return nil
	}))
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", u.app))
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	defer server.Stop()
	u.setTable(table(1, nil))
	conn, err := grpc.NewClient("passthrough:///"+u.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), sandbox.DefaultHeader, "k", "traceparent", traceparent), patience)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{}, "/a.B/C")
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.CloseSend()
	md := <-seen
	for name, want := range map[string]string{"x-sandbox-key": "k", "baggage": "sandbox-key=k", "tracestate": "sandbox-key=k"} {
		if got := strings.Join(md.Get(name), "|"); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// Whatever the app says, the answer to a keyed request is private, and others are as the app made them. What a real
// cache makes of it, nginx_test.go shows.
func TestRouter_answers_to_keyed_requests_are_private(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocols *http.Protocols) {
		u := startRouter(t, testConfig(t))
		cacheable := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Cache-Control", "public, max-age=60")
			w.Header().Set("Vary", "Accept")
			w.Header().Set("X-Accel-Expires", "60")
		})
		startPod(t, "baseline", "127.0.0.1", u.app, cacheable)
		startPod(t, "fork", "127.0.0.3", u.app, cacheable)
		u.setTable(table(1, map[string][]string{"k": {"127.0.0.3"}, "gone": nil}))
		client := newClient(t, protocols)
		for name, test := range map[string]struct {
			fields                         []string
			cacheControl, vary, accelerate string
		}{
			"unkeyed":              {nil, "public, max-age=60", "Accept", "60"},
			"fork":                 {[]string{"X-Sandbox-Key", "k"}, "max-age=60, private", "Accept, x-sandbox-key", ""},
			"fork, by baggage":     {[]string{"Baggage", "sandbox-key=k"}, "max-age=60, private", "Accept, x-sandbox-key, baggage", ""},
			"baseline, with a key": {[]string{"X-Sandbox-Key", "another"}, "max-age=60, private", "Accept, x-sandbox-key", ""},
			"the router's own":     {[]string{"X-Sandbox-Key", "gone"}, "no-store", "x-sandbox-key, baggage, tracestate", ""},
		} {
			answer, _ := ask(t, client, "http://"+u.addr, test.fields...)
			got := [3]string{answer.Header.Get("Cache-Control"), strings.Join(answer.Header.Values("Vary"), ", "), answer.Header.Get("X-Accel-Expires")}
			if want := [3]string{test.cacheControl, test.vary, test.accelerate}; got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
	})
}

// The fork of a workload that stands with this one behind a Service is routed to at the ports of that Service alone.
func TestRouter_a_neighbour_s_fork_is_routed_to_at_the_ports_they_share(t *testing.T) {
	c := testConfig(t)
	c.Captures = append(c.Captures, sandbox.Capture{Port: sandbox.Port{Name: "own", Number: freePort(t)}, Listen: freePort(t)})
	u := startRouter(t, c)
	for i, name := range []string{"http", "own"} {
		startPod(t, "app", "127.0.0.1", c.Captures[i].Number, nil)
		startPod(t, "fork-"+name, "127.0.0.3", c.Captures[i].Number, nil)
	}
	guest := table(1, map[string][]string{"k": {"127.0.0.3"}})
	f := guest.Routes["k"]
	f.Only = []string{"http"}
	guest.Routes["k"] = f
	u.setTable(guest)
	client := newClient(t, nil)
	for i, want := range []string{"fork-http", "app"} {
		if _, body := ask(t, client, fmt.Sprintf("http://127.0.0.1:%d", c.Captures[i].Listen), "X-Sandbox-Key", "k"); body != want {
			t.Errorf("port %s: answered by %q, want %q", c.Captures[i].Name, body, want)
		}
	}
}
