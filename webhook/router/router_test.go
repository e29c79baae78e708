package router

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestRouter_routes_every_request_of_one_connection_by_its_own_key(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocols *http.Protocols) {
		u := startRouter(t, testConfig(t))
		startPod(t, "app", "127.0.0.1", u.app, nil)
		startPod(t, "a", "127.0.0.2", u.app, nil)
		startPod(t, "b", "127.0.0.3", u.app, nil)
		u.setTable(table(1, map[string][]string{"a": {"127.0.0.2"}, "b": {"127.0.0.3"}}))
		client := newClient(t, protocols)
		for range 500 {
			for _, want := range []struct{ field, value, body, servedBy string }{
				{"X-Other", "1", "app", ""},
				{"X-Sandbox-Key", "a", "a", "fork-a-0"},
				{"Baggage", "x=1,sandbox-key=b", "b", "fork-b-0"},
				{"Tracestate", "sandbox-key=a", "a", "fork-a-0"},
				{"X-Sandbox-Key", "nobody", "app", "baseline-0"},
			} {
				resp, body := ask(t, client, "http://"+u.addr, want.field, want.value)
				if got := resp.Header.Get("X-Sandbox-Served-By"); body != want.body || got != want.servedBy {
					t.Fatalf("%s: %s reached %q (served by %q), want %q (%q)", want.field, want.value, body, got, want.body, want.servedBy)
				}
			}
		}
	})
}

func TestRouter_misroutes_nothing_while_many_share_a_connection_and_tables_change(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocols *http.Protocols) {
		u := startRouter(t, testConfig(t))
		startPod(t, "app", "127.0.0.1", u.app, nil)
		const forks = 10
		ips := make(map[string][]string)
		for i := range forks {
			ip := fmt.Sprintf("127.0.1.%d", i+1)
			key := fmt.Sprintf("k%d", i)
			ips[key] = []string{ip}
			startPod(t, key, ip, u.app, nil)
		}
		u.setTable(table(1, ips))
		stop := make(chan struct{})
		var changing, asking sync.WaitGroup
		changing.Go(func() { // keys that nobody asks for come and go
			for n := uint64(2); ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				next := make(map[string][]string)
				for k, v := range ips {
					next[k] = v
				}
				next[fmt.Sprintf("other-%d", n)] = []string{"127.0.2.1"}
				u.setTable(table(n, next))
			}
		})
		client := newClient(t, protocols)
		for worker := range 16 {
			asking.Go(func() {
				for i := range 150 {
					key, want := "", "app"
					if n := (worker*31 + i*7) % (2 * forks); n < forks {
						key = fmt.Sprintf("k%d", n)
						want = key
					}
					_, body := ask(t, client, "http://"+u.addr, "X-Sandbox-Key", key)
					if body != want {
						t.Errorf("key %q reached %q", key, body)
					}
				}
			})
		}
		asking.Wait()
		close(stop)
		changing.Wait()
	})
}

func TestRouter_sends_the_next_request_of_an_open_connection_by_the_new_table(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocols *http.Protocols) {
		u := startRouter(t, testConfig(t))
		startPod(t, "app", "127.0.0.1", u.app, nil)
		old := startPod(t, "old", "127.0.0.2", u.app, nil)
		startPod(t, "new", "127.0.0.3", u.app, nil)
		client := newClient(t, protocols)
		u.setTable(table(1, nil))
		for i, step := range []struct {
			forks map[string][]string
			want  string
		}{{nil, "app"}, {map[string][]string{"k": {"127.0.0.2"}}, "old"}, {map[string][]string{"k": {"127.0.0.3"}}, "new"}, {nil, "app"}} {
			u.setTable(table(uint64(i+2), step.forks))
			if _, body := ask(t, client, "http://"+u.addr, "X-Sandbox-Key", "k"); body != step.want {
				t.Errorf("step %d reached %q, want %q", i, body, step.want)
			}
		}
		eventually(t, "the connection to the old pod is closed", func() bool { return old.open() == 0 })
	})
}

func TestRouter_spreads_requests_over_a_fork_s_pods(t *testing.T) {
	u := startRouter(t, testConfig(t))
	startPod(t, "app", "127.0.0.1", u.app, nil)
	ips := []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"}
	for _, ip := range ips {
		startPod(t, ip, ip, u.app, nil)
	}
	u.setTable(table(1, map[string][]string{"k": ips}))
	seen := make(map[string]int)
	client := newClient(t, nil)
	for range 30 {
		_, body := ask(t, client, "http://"+u.addr, "X-Sandbox-Key", "k")
		seen[body]++
	}
	for _, ip := range ips {
		if seen[ip] != 10 {
			t.Errorf("got %v", seen)
		}
	}
}

func TestRouter_dials_a_fork_s_own_port_numbers(t *testing.T) {
	u := startRouter(t, testConfig(t))
	startPod(t, "app", "127.0.0.1", u.app, nil)
	other := freePort(t)
	startPod(t, "fork", "127.0.0.2", other, nil)
	tab := table(1, map[string][]string{"k": {"127.0.0.2"}})
	tab.Routes["k"].Pods[0].Ports = map[string]uint16{"http": other, "grpc": 1}
	u.setTable(tab)
	if _, body := ask(t, newClient(t, nil), "http://"+u.addr, "X-Sandbox-Key", "k"); body != "fork" {
		t.Errorf("got %q", body)
	}
}

func TestRouter_dials_the_app_at_the_address_the_client_dialed(t *testing.T) {
	u := startRouter(t, testConfig(t))
	startPod(t, "at 5", "127.0.0.5", u.app, nil)
	startPod(t, "at 6", "127.0.0.6", u.app, nil)
	u.setTable(table(1, nil))
	for ip, want := range map[string]string{"127.0.0.5": "at 5", "127.0.0.6": "at 6"} {
		_, port, _ := net.SplitHostPort(u.addr)
		if _, body := ask(t, newClient(t, nil), "http://"+net.JoinHostPort(ip, port)); body != want {
			t.Errorf("%s reached %q", ip, body)
		}
	}
	c, err := net.Dial("tcp", u.addr) // nothing listens at 127.0.0.1
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}

func TestRouter_refuses_two_keys_in_one_request(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocols *http.Protocols) {
		u := startRouter(t, testConfig(t))
		app := startPod(t, "app", "127.0.0.1", u.app, nil)
		u.setTable(table(1, nil))
		client := newClient(t, protocols)
		if resp, body := ask(t, client, "http://"+u.addr, "X-Sandbox-Key", "a", "X-Sandbox-Key", "b"); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("got %s %q", resp.Status, body)
		}
		if resp, _ := ask(t, client, "http://"+u.addr, "X-Sandbox-Key", "a", "X-Sandbox-Key", "a", "Baggage", "sandbox-key=b"); resp.StatusCode != http.StatusOK {
			t.Errorf("got %s", resp.Status)
		}
		if len(app.heads) != 1 {
			t.Errorf("%d requests reached the app", len(app.heads))
		}
	})
}

func TestRouter_counts_before_the_client_has_its_answer(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocols *http.Protocols) {
		u := startRouter(t, testConfig(t))
		startPod(t, "app", "127.0.0.1", u.app, nil)
		startPod(t, "fork", "127.0.0.2", u.app, nil)
		u.setTable(table(1, map[string][]string{"k": {"127.0.0.2"}}))
		client := newClient(t, protocols)
		for i := range 200 {
			ask(t, client, "http://"+u.addr, "X-Sandbox-Key", "k")
			if got := u.routes.counts().Keys["k"].Fork; got != uint64(i+1) {
				t.Fatalf("counted %d after %d", got, i+1)
			}
		}
	})
}

func TestRouter_counts_stay_while_their_key_is_gone(t *testing.T) {
	u := startRouter(t, testConfig(t))
	startPod(t, "fork", "127.0.0.2", u.app, nil)
	startPod(t, "app", "127.0.0.1", u.app, nil)
	forks := map[string][]string{"k": {"127.0.0.2"}}
	client := newClient(t, nil)
	for i, want := range []uint64{1, 1, 2} {
		tab := table(uint64(i+1), forks)
		if i == 1 {
			tab.Routes = nil
		}
		u.setTable(tab)
		ask(t, client, "http://"+u.addr, "X-Sandbox-Key", "k")
		if got := u.routes.counts().Keys["k"].Fork; i != 1 && got != want {
			t.Errorf("step %d: counted %d, want %d", i, got, want)
		}
	}
	if n := len(u.routes.counters); n != 1 {
		t.Errorf("%d counters are kept", n)
	}
}

func TestRouter_streams_server_sent_events_as_they_come(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocols *http.Protocols) {
		u := startRouter(t, testConfig(t))
		startPod(t, "app", "127.0.0.1", u.app, nil)
		next := make(chan struct{})
		startPod(t, "fork", "127.0.0.2", u.app, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for i := range 5 {
				fmt.Fprintf(w, "data: %d\n\n", i)
				_ = http.NewResponseController(w).Flush()
				<-next
			}
		}))
		u.setTable(table(1, map[string][]string{"k": {"127.0.0.2"}}))
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+u.addr, nil)
		req.Header.Set("X-Sandbox-Key", "k")
		resp, err := newClient(t, protocols).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		r := bufio.NewReader(resp.Body)
		for i := range 5 {
			line, err := r.ReadString('\n')
			if want := fmt.Sprintf("data: %d\n", i); line != want {
				t.Fatalf("got %q (%v), want %q", line, err, want)
			}
			_, _ = r.ReadString('\n')
			next <- struct{}{}
		}
	})
}

func TestRouter_uploads_and_downloads_arrive_whole(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocols *http.Protocols) {
		u := startRouter(t, testConfig(t))
		startPod(t, "app", "127.0.0.1", u.app, nil)
		startPod(t, "fork", "127.0.0.2", u.app, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			_, _ = w.Write(b)
		}))
		u.setTable(table(1, map[string][]string{"k": {"127.0.0.2"}}))
		client := newClient(t, protocols)
		for _, size := range []int{0, 1, 4095, 4096, 4097, 65535, 65536, 1 << 20, 5<<20 + 1} {
			for _, chunked := range []bool{false, true} {
				body := make([]byte, size)
				_, _ = rand.Read(body)
				var r io.Reader = bytes.NewReader(body)
				if chunked {
					r = struct{ io.Reader }{r}
				}
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+u.addr, r)
				req.Header.Set("X-Sandbox-Key", "k")
				resp, err := client.Do(req)
				if err != nil {
					t.Fatalf("%d bytes: %v", size, err)
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || !bytes.Equal(got, body) {
					t.Errorf("%d bytes: got %d (%v)", size, len(got), err)
				}
			}
		}
	})
}

func TestRouter_ends_when_it_is_told_after_what_is_in_flight(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocols *http.Protocols) {
		u := startRouter(t, testConfig(t))
		started, finish := make(chan struct{}), make(chan struct{})
		startPod(t, "app", "127.0.0.1", u.app, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(started)
			<-finish
			_, _ = io.WriteString(w, "finished")
		}))
		u.setTable(table(1, nil))
		done := make(chan string)
		client := newClient(t, protocols)
		go func() {
			_, body := ask(t, client, "http://"+u.addr)
			client.CloseIdleConnections()
			done <- body
		}()
		<-started
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			u.stop()
		}()
		eventually(t, "no connection is accepted", func() bool {
			c, err := net.Dial("tcp", u.addr)
			if err == nil {
				c.Close()
			}
			return err != nil
		})
		close(finish)
		if body := <-done; body != "finished" {
			t.Errorf("got %q", body)
		}
		select {
		case <-stopped:
		case <-time.After(patience):
			t.Error("still running")
		}
	})
}

func TestRouter_metrics_and_health(t *testing.T) {
	c := testConfig(t)
	c.Admin = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	u := startRouter(t, c)
	startPod(t, "app", "127.0.0.1", u.app, nil)
	startPod(t, "fork", "127.0.0.2", u.app, nil)
	u.setTable(table(9, map[string][]string{"k": {"127.0.0.2"}, "gone": nil}))
	client := newClient(t, both())
	ask(t, client, "http://"+u.addr)
	ask(t, client, "http://"+u.addr, "X-Sandbox-Key", "k")
	ask(t, client, "http://"+u.addr, "X-Sandbox-Key", "gone")
	ask(t, newClient(t, h2c()), "http://"+u.addr, "X-Sandbox-Key", "k")
	_, metrics := ask(t, newClient(t, nil), "http://"+c.Admin+"/metrics")
	for _, want := range []string{
		`sandbox_router_requests_total{outcome="app",protocol="http1"} 1`,
		`sandbox_router_requests_total{outcome="fork",protocol="http1"} 1`,
		`sandbox_router_requests_total{outcome="fork",protocol="http2"} 1`,
		`sandbox_router_requests_total{outcome="refused",protocol="http1"} 1`,
		`sandbox_router_requests_total{outcome="unfinished",protocol="http1"} 0`,
		`sandbox_router_table_version 9`, `sandbox_router_table_routes 2`, `sandbox_router_connected 0`,
		`sandbox_router_build_info{version="test"} 1`, `sandbox_router_connections 2`,
	} {
		if !strings.Contains(metrics+"\n", want+"\n") {
			t.Errorf("no %s in:\n%s", want, grep(metrics, "sandbox_router"))
		}
	}
	if strings.Contains(metrics, `"k"`) {
		t.Error("metrics name a key")
	}
	for _, path := range []string{"/healthz", "/ready"} {
		if resp, body := ask(t, newClient(t, nil), "http://"+c.Admin+path); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: got %s %q", path, resp.Status, body)
		}
	}
}

func grep(s, sub string) string {
	var out []string
	for line := range strings.Lines(s) {
		if strings.Contains(line, sub) && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}
