package router

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// failureCase is a request, and what a router does with it in the state that prepare leads to.
type failureCase struct {
	prepare  func(u *routerUnderTest)
	noFork   bool
	key      string
	status   int
	body     string // or its beginning
	servedBy string
	count    route.Count
}

func (test failureCase) check(t *testing.T, protocols *http.Protocols) {
	u := startRouter(t, testConfig(t))
	startPod(t, "app", "127.0.0.1", u.app, nil)
	if !test.noFork {
		startPod(t, "fork", "127.0.0.2", u.app, nil)
	}
	test.prepare(u)
	resp, body := ask(t, newClient(t, protocols), "http://"+u.addr, "X-Sandbox-Key", test.key)
	if resp.StatusCode != test.status || !strings.HasPrefix(body, test.body) {
		t.Errorf("got %s %q", resp.Status, body)
	}
	if got := resp.Header.Values("X-Sandbox-Served-By"); strings.Join(got, ",") != test.servedBy {
		t.Errorf("served by %q, want %q", got, test.servedBy)
	}
	if got := resp.Header.Get("X-Sandbox-Error"); test.status == 503 && got != body || test.status == 200 && got != "" {
		t.Errorf("error %q, body %q", got, body)
	}
	if got := u.routes.counts().Keys[test.key]; got != test.count {
		t.Errorf("counted %+v, want %+v", got, test.count)
	}
}

func TestRouter_failures(t *testing.T) {
	ready := map[string][]string{"k": {"127.0.0.2"}}
	for name, test := range map[string]failureCase{
		"fork ready": {
			prepare: func(u *routerUnderTest) { u.setTable(table(1, ready)) },
			key:     "k", status: 200, body: "fork", servedBy: "fork-k-0", count: route.Count{Fork: 1},
		},
		"fork not ready": {
			prepare: func(u *routerUnderTest) {
				tab := table(1, map[string][]string{"k": nil})
				f := tab.Routes["k"]
				f.Reason = "image can't be pulled"
				tab.Routes["k"] = f
				u.setTable(tab)
			},
			key: "k", status: 503, body: `fork "app-k" of sandbox "sb-k" is not ready: image can't be pulled`, servedBy: "baseline-0",
			count: route.Count{Refused: 1},
		},
		"fork not ready, falling back": {
			prepare: func(u *routerUnderTest) {
				tab := table(1, map[string][]string{"k": nil})
				f := tab.Routes["k"]
				f.FallBack = true
				tab.Routes["k"] = f
				u.setTable(tab)
			},
			key: "k", status: 200, body: "app", servedBy: "baseline-0", count: route.Count{FellBack: 1},
		},
		"fork refuses connections": {
			prepare: func(u *routerUnderTest) { u.setTable(table(1, ready)) }, noFork: true,
			key: "k", status: 503, body: `fork "app-k" of sandbox "sb-k" failed: dial tcp 127.0.0.2:`, servedBy: "baseline-0",
			count: route.Count{Refused: 1},
		},
		"fork refuses connections, falling back": {
			prepare: func(u *routerUnderTest) {
				tab := table(1, ready)
				f := tab.Routes["k"]
				f.FallBack = true
				tab.Routes["k"] = f
				u.setTable(tab)
			}, noFork: true,
			key: "k", status: 200, body: "app", servedBy: "baseline-0", count: route.Count{FellBack: 1},
		},
		"one pod of two refuses": {
			prepare: func(u *routerUnderTest) { u.setTable(table(1, map[string][]string{"k": {"127.0.0.9", "127.0.0.2"}})) },
			key:     "k", status: 200, body: "fork", servedBy: "fork-k-1", count: route.Count{Fork: 1},
		},
		"table too old": {
			prepare: func(u *routerUnderTest) {
				u.setTable(table(1, ready))
				u.routes.confirm(time.Now().Add(-16 * time.Minute))
			},
			key: "k", status: 503, body: "this pod's router has not heard from its control plane for 16m", servedBy: "baseline-0",
			count: route.Count{Refused: 1},
		},
		"table too old, key not in it": {
			prepare: func(u *routerUnderTest) {
				u.setTable(table(1, ready))
				u.routes.confirm(time.Now().Add(-16 * time.Minute))
			},
			key: "other", status: 200, body: "app", servedBy: "baseline-0",
		},
		"table too old, no key": {
			prepare: func(u *routerUnderTest) {
				u.setTable(table(1, ready))
				u.routes.confirm(time.Now().Add(-16 * time.Minute))
			},
			status: 200, body: "app",
		},
		"never a table": {
			prepare: func(*routerUnderTest) {},
			key:     "k", status: 503, body: "this pod's router has not received its routes yet", servedBy: "baseline-0",
		},
		"never a table, no key": {prepare: func(*routerUnderTest) {}, status: 200, body: "app"},
		"key of nobody": {
			prepare: func(u *routerUnderTest) { u.setTable(table(1, ready)) },
			key:     "other", status: 200, body: "app", servedBy: "baseline-0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachProtocol(t, test.check)
		})
	}
}

func TestRouter_a_sandbox_deleted_with_requests_in_flight_lets_them_finish(t *testing.T) {
	eachProtocol(t, func(t *testing.T, protocols *http.Protocols) {
		u := startRouter(t, testConfig(t))
		startPod(t, "app", "127.0.0.1", u.app, nil)
		started, finish := make(chan struct{}), make(chan struct{})
		startPod(t, "fork", "127.0.0.2", u.app, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "begun, ")
			_ = http.NewResponseController(w).Flush()
			close(started)
			<-finish
			_, _ = io.WriteString(w, "finished")
		}))
		u.setTable(table(1, map[string][]string{"k": {"127.0.0.2"}}))
		done := make(chan string)
		go func() {
			_, body := ask(t, newClient(t, protocols), "http://"+u.addr, "X-Sandbox-Key", "k")
			done <- body
		}()
		<-started
		u.setTable(table(2, nil))
		if _, body := ask(t, newClient(t, protocols), "http://"+u.addr, "X-Sandbox-Key", "k"); body != "app" {
			t.Errorf("reached %q", body)
		}
		close(finish)
		if body := <-done; body != "begun, finished" {
			t.Errorf("got %q", body)
		}
	})
}

func TestRouter_goes_on_by_the_last_table_after_a_restart(t *testing.T) {
	c := testConfig(t)
	tab := table(7, map[string][]string{"k": {"127.0.0.2"}})
	st := &state{dir: c.StateDir}
	if err := st.save(tab); err != nil {
		t.Fatal(err)
	}
	startPod(t, "app", "127.0.0.1", c.Captures[0].Number, nil)
	startPod(t, "fork", "127.0.0.2", c.Captures[0].Number, nil)
	u := startRouter(t, c)
	if _, body := ask(t, newClient(t, nil), "http://"+u.addr, "X-Sandbox-Key", "k"); body != "fork" {
		t.Errorf("got %q", body)
	}
	if v, ok := u.routes.have(); !ok || v != tab.Version {
		t.Errorf("has version %v", v)
	}
	u.stop()
	long := time.Now().Add(-time.Hour) // it was right an hour ago
	if err := os.Chtimes(filepath.Join(c.StateDir, tableFile), long, long); err != nil {
		t.Fatal(err)
	}
	u = startRouter(t, c)
	if resp, body := ask(t, newClient(t, nil), "http://"+u.addr, "X-Sandbox-Key", "k"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("got %s %q", resp.Status, body)
	}
	u.stop()
	if err := os.WriteFile(filepath.Join(c.StateDir, tableFile), []byte("{half a tab"), 0o600); err != nil {
		t.Fatal(err)
	}
	u = startRouter(t, c)
	if resp, body := ask(t, newClient(t, nil), "http://"+u.addr, "X-Sandbox-Key", "k"); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "not received") {
		t.Errorf("got %s %q", resp.Status, body)
	}
	if !strings.Contains(u.log.String(), "is of no use") {
		t.Errorf("log: %s", u.log)
	}
}

func TestState_saves_whole_files_and_the_time_a_table_was_right(t *testing.T) {
	s := &state{dir: t.TempDir()}
	if tab, _, err := s.load(); tab != nil || err != nil {
		t.Errorf("got %v %v from nothing", tab, err)
	}
	want := table(3, map[string][]string{"k": {"127.0.0.2"}})
	if err := s.save(want); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-time.Hour)
	_ = os.Chtimes(filepath.Join(s.dir, tableFile), long, long)
	for _, confirm := range []bool{false, true} {
		now := time.Now()
		if confirm {
			s.saved = long // it is time again
			if err := s.confirm(now); err != nil {
				t.Fatal(err)
			}
		}
		tab, fresh, err := s.load()
		a, _ := json.Marshal(tab)
		b, _ := json.Marshal(want)
		if err != nil || !bytes.Equal(a, b) {
			t.Errorf("got %s (%v)", a, err)
		}
		if d := fresh.Sub(long); !confirm && d.Abs() > time.Second || confirm && fresh.Sub(now).Abs() > time.Second {
			t.Errorf("confirmed %v, fresh at %v", confirm, fresh)
		}
	}
	if files, _ := os.ReadDir(s.dir); len(files) != 1 {
		t.Errorf("left %v", files)
	}
}

// A frozen fork must not make the router hold more than the buffers it has anyway.
func TestRouter_a_frozen_fork_pushes_back(t *testing.T) {
	u := startRouter(t, testConfig(t))
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.2", fmt.Sprint(u.app)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // accepts, and reads nothing
		for {
			if _, err := l.Accept(); err != nil {
				return
			}
		}
	}()
	startPod(t, "app", "127.0.0.1", u.app, nil)
	u.setTable(table(1, map[string][]string{"k": {"127.0.0.2"}}))
	c, err := net.Dial("tcp", u.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nX-Sandbox-Key: k\r\nContent-Length: 1000000000\r\n\r\n")
	var sent atomic.Int64
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, err := c.Write(b)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	last := int64(-1)
	eventually(t, "nothing more is taken", func() bool {
		now := sent.Load()
		defer func() { last = now; time.Sleep(200 * time.Millisecond) }()
		return now == last && now > 0
	})
	if last > 64<<20 { // socket buffers of the kernel, twice
		t.Errorf("%d bytes were taken", last)
	}
	// Others are served meanwhile.
	if _, body := ask(t, newClient(t, nil), "http://"+u.addr); body != "app" {
		t.Errorf("got %q", body)
	}
}

func TestRun_fails_when_it_cannot_listen(t *testing.T) {
	c := testConfig(t)
	l, err := net.Listen("tcp", fmt.Sprintf(":%d", c.Captures[0].Listen))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := Run(context.Background(), c, discard()); err == nil || !strings.Contains(err.Error(), `port "http"`) {
		t.Errorf("got %v", err)
	}
}
