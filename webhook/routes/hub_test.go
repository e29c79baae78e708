package routes

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

func TestHub_StreamsSnapshotThenDeltas(t *testing.T) {
	c := &cluster{}
	hub := newReplica(t, c, "", clock.RealClock{})
	hub.serve(1)
	first := hub.change(t, c, api, fork("pr-1", "a"))
	r := newRouter(t, api, "api-1")
	r.dial(hub)
	r.waitFor(first)
	for _, forks := range [][]Fork{
		{fork("pr-1", "a"), fork("pr-2", "b")},
		{fork("pr-2", "b", "c")},
		{},
		{fork("pr-1")},
	} {
		r.waitFor(hub.change(t, c, api, forks...))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.table.Routes["pr-1"].Reason != "PodsNotCreated: the fork's pods have not been created yet" {
		t.Errorf("%+v", r.table)
	}
}

func TestHub_UnchangedStateSendsNothing(t *testing.T) {
	c := &cluster{}
	hub := newReplica(t, c, "", clock.RealClock{})
	hub.serve(1)
	first := hub.change(t, c, api, fork("pr-1", "a"))
	if again := hub.change(t, c, api, fork("pr-1", "a")); again != first { // the very same
		t.Errorf("published %v again as %v", first.Version, again.Version)
	}
}

func TestHub_RouterGetsItsOwnBaselineOnly(t *testing.T) {
	c := &cluster{}
	hub := newReplica(t, c, "", clock.RealClock{})
	hub.serve(1)
	other := Baseline{"shop", "deployment.web"}
	hub.change(t, c, api, fork("pr-1", "a"))
	web := hub.change(t, c, other, fork("pr-2", "b"))
	r := newRouter(t, other, "web-1")
	r.dial(hub)
	r.waitFor(web)
	r.mu.Lock()
	before := r.tables
	r.mu.Unlock()
	hub.change(t, c, api, fork("pr-3", "c"))
	r.waitFor(hub.change(t, c, other, fork("pr-4", "d")))
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tables != before+1 {
		t.Errorf("got %d tables, want one delta", r.tables-before)
	}
}

// A baseline that nobody forked has a table too: an empty one, so that its routers are not left waiting.
func TestHub_EmptyTable(t *testing.T) {
	hub := newReplica(t, &cluster{}, "", clock.RealClock{})
	hub.serve(7)
	r := newRouter(t, api, "api-1")
	r.dial(hub)
	r.wait("table", func() bool { return r.table != nil && r.table.Version.Term == 7 && len(r.table.Routes) == 0 })
}

func TestHub_Acknowledgements(t *testing.T) {
	c := &cluster{}
	hub := newReplica(t, c, "", clock.RealClock{})
	hub.serve(1)
	r1, r2 := newRouter(t, api, "api-1"), newRouter(t, api, "api-2")
	r2.silent = true
	r1.dial(hub)
	hangUp, _ := r2.dial(hub)
	table := hub.change(t, c, api, fork("pr-1", "a"))
	r2.waitFor(table)
	v := hub.waitView(t, api, "api-1's ack", acked("a", "api-1"))
	if acked("a", "api-2")(v) || !v.Routers["api-2"].Connected {
		t.Errorf("the silent router counts as acknowledged: %+v", v)
	}
	// Thawed, it acknowledges; gone, it stays acknowledged for what it had, and not for anything newer.
	r2.mu.Lock()
	r2.silent = false
	r2.mu.Unlock()
	hub.change(t, c, api, fork("pr-1", "a"), fork("pr-2", "b"))
	hub.waitView(t, api, "both acks", acked("b", "api-1", "api-2"))
	hangUp()
	hub.waitView(t, api, "the hang-up", func(v View) bool { return !v.Routers["api-2"].Connected })
	hub.change(t, c, api, fork("pr-1", "a"), fork("pr-2", "b"), fork("pr-3", "c"))
	v = hub.waitView(t, api, "api-1's ack", acked("c", "api-1"))
	if !acked("b", "api-2")(v) || acked("c", "api-2")(v) {
		t.Errorf("%+v", v)
	}
	hub.forget(api, "api-2")
	if v := hub.waitView(t, api, "the view", func(View) bool { return true }); len(v.Routers) != 1 {
		t.Errorf("a deleted pod's router is still there: %+v", v)
	}
}

// A pod serves since it last came into the table: one that left and came back must be acknowledged again.
func TestHub_ServingSinceTheLastReturn(t *testing.T) {
	c := &cluster{}
	hub := newReplica(t, c, "", clock.RealClock{})
	hub.serve(1)
	first := hub.change(t, c, api, fork("pr-1", "a")).Version
	hub.change(t, c, api, fork("pr-1", "a"), fork("pr-2", "b"))
	v, err := hub.view(t.Context(), api)
	if err != nil || v.Serving["a"] != first {
		t.Fatalf("%v %+v", err, v)
	}
	hub.change(t, c, api, fork("pr-1"))
	back := hub.change(t, c, api, fork("pr-1", "a")).Version
	if v, err := hub.view(t.Context(), api); err != nil || v.Serving["a"] != back {
		t.Errorf("%v %+v, want a since %v", err, v, back)
	}
	// A newer revision's pod takes the older one's place.
	f := fork("pr-1", "a")
	f.Pods = append(f.Pods, readyPod("new", "rs2"))
	hub.change(t, c, api, f)
	v, err = hub.view(t.Context(), api)
	if _, old := v.Serving["a"]; err != nil || old || v.Serving["new"].Compare(back) <= 0 {
		t.Errorf("%v %+v", err, v)
	}
}

func TestHub_SlowReaderHoldsUpNobody(t *testing.T) {
	c := &cluster{}
	hub := newReplica(t, c, "", clock.RealClock{})
	hub.serve(1)

	// One that says hello and never reads, on a connection of its own: its window fills.
	body, in := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, hub.URL+route.StreamPath, body)
	req.Header.Set("Authorization", "Bearer deployment.api/slow")
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: hub.Client().Transport.(*http.Transport).TLSClientConfig.Clone()}
	defer transport.CloseIdleConnections()
	go func() { _ = route.Write(in, route.ToControl{Hello: &route.Hello{Start: "slow"}}) }()
	resp, err := transport.RoundTrip(req) //nolint:bodyclose // closed when the test ends, below
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })

	fast := newRouter(t, api, "fast")
	fast.dial(hub)
	hub.waitView(t, api, "both routers", func(v View) bool { return len(v.Routers) == 2 })
	var last *route.Table
	const changes = 300
	for i := range changes { // of 50 kB each: more than the slow one's window in all
		pods := make([]string, 500)
		for j := range pods {
			pods[j] = fmt.Sprintf("pod-%d-%d", i, j)
		}
		last = hub.change(t, c, api, fork("pr-1", pods...))
	}
	fast.waitFor(last)
	// The slow one, when it reads at last, comes to the same table.
	slow := newRouter(t, api, "slow")
	go func() { _ = slow.run(route.NewReader(resp.Body), io.Discard) }()
	slow.waitFor(last)
	slow.mu.Lock()
	defer slow.mu.Unlock()
	if slow.frames > changes*9/10 {
		t.Errorf("%d frames for %d changes: nothing was coalesced", slow.frames, changes)
	}
}

func TestHub_SecondStreamReplacesTheFirst(t *testing.T) {
	c := &cluster{}
	hub := newReplica(t, c, "", clock.RealClock{})
	hub.serve(1)
	table := hub.change(t, c, api, fork("pr-1", "a"))
	r := newRouter(t, api, "api-1")
	_, ended := r.dial(hub)
	r.waitFor(table)
	again := newRouter(t, api, "api-1")
	again.dial(hub)
	again.waitFor(table)
	<-ended
	hub.waitView(t, api, "one connected router", func(v View) bool { return len(v.Routers) == 1 && v.Routers["api-1"].Connected })
}

// A router that restarts routes by what it loaded from its disk, which may be older than what it acknowledged.
func TestHub_RestartedRouterHasWhatItSays(t *testing.T) {
	c := &cluster{}
	hub := newReplica(t, c, "", clock.RealClock{})
	hub.serve(1)
	old := hub.change(t, c, api, fork("pr-1", "a"))
	r := newRouter(t, api, "api-1")
	hangUp, _ := r.dial(hub)
	hub.change(t, c, api, fork("pr-1", "a"), fork("pr-2", "b"))
	hub.waitView(t, api, "the ack", acked("b", "api-1"))
	hangUp()
	hub.waitView(t, api, "the hang-up", func(v View) bool { return !v.Routers["api-1"].Connected })

	restarted := newRouter(t, api, "api-1")
	restarted.start, restarted.table, restarted.silent = "another", old, true
	restarted.dial(hub)
	v := hub.waitView(t, api, "the router", func(v View) bool { return v.Routers["api-1"].Connected })
	if !acked("a", "api-1")(v) || acked("b", "api-1")(v) {
		t.Errorf("%+v, want exactly what it loaded acknowledged", v)
	}
}

// The lease goes from one replica to the other and the routers with it: they take the new holder's tables only,
// acknowledge again, and go back to nobody of an older term.
func TestHub_Failover(t *testing.T) {
	c := &cluster{}
	one := newReplica(t, c, "", clock.RealClock{})
	one.serve(41)
	var first *route.Table
	for range 5 { // its counter is ahead of the next one's
		one.change(t, c, api, fork("pr-1", "a"), fork("pr-2", "b"))
		first = one.change(t, c, api, fork("pr-1", "a"))
	}
	r := newRouter(t, api, "api-1")
	_, ended := r.dial(one)
	r.waitFor(first)
	one.waitView(t, api, "the ack", acked("a", "api-1"))
	one.stop()
	<-ended

	two := newReplica(t, c, "", clock.RealClock{})
	two.serve(42)
	if v, err := two.view(t.Context(), api); err != nil || acked("a", "api-1")(v) {
		t.Errorf("%v: the new holder believes acks it never got: %+v", err, v)
	}
	r.dial(two)
	two.waitView(t, api, "the new ack", acked("a", "api-1"))
	r.mu.Lock()
	if r.table.Version.Term != 42 {
		t.Errorf("router has %v", r.table.Version)
	}
	r.mu.Unlock()

	stale := newReplica(t, c, "", clock.RealClock{})
	stale.serve(41)
	_, ended = r.dial(stale)
	if err := <-ended; err == nil || err.Error() != "refused an older table" {
		t.Errorf("router took a table of an older term: %v", err)
	}
}

func TestHub_NotTheHolder(t *testing.T) {
	for _, tt := range []struct {
		name, holder string
		code         int
	}{
		{"another is", "10.1.2.3:9444", http.StatusTemporaryRedirect},
		{"nobody is", "", http.StatusServiceUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hub := newReplica(t, &cluster{}, tt.holder, clock.RealClock{})
			client := hub.Client()
			client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			resp, err := client.Post(hub.URL+route.StreamPath, "", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != tt.code {
				t.Errorf("status %s", resp.Status)
			}
			if want := "https://10.1.2.3:9444/v1/routes"; tt.holder != "" && resp.Header.Get("Location") != want {
				t.Errorf("Location %q, want %q", resp.Header.Get("Location"), want)
			}
		})
	}
}

func TestHub_RefusesRequests(t *testing.T) {
	hub := newReplica(t, &cluster{}, "", clock.RealClock{})
	hub.serve(1)
	h1 := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: hub.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}}}
	for _, tt := range []struct {
		name          string
		client        *http.Client
		method, token string
		path          string
		code          int
	}{
		{"no token", hub.Client(), "POST", "", route.StreamPath, http.StatusUnauthorized},
		{"other method", hub.Client(), "GET", "deployment.api/a", route.StreamPath, http.StatusMethodNotAllowed},
		{"other path", hub.Client(), "POST", "deployment.api/a", "/", http.StatusNotFound},
		{"HTTP/1.1", h1, "POST", "deployment.api/a", route.StreamPath, http.StatusHTTPVersionNotSupported},
		{"API server away", hub.Client(), "POST", "deployment.api/broken", route.StreamPath, http.StatusServiceUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, _ := http.NewRequestWithContext(t.Context(), tt.method, hub.URL+tt.path, nil)
			if tt.token != "" {
				req.Header.Set("Authorization", "Bearer "+tt.token)
			}
			resp, err := tt.client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != tt.code {
				t.Errorf("status %s, want %d", resp.Status, tt.code)
			}
		})
	}
}

// What an authenticated but broken or hostile router may send ends its stream and does nothing else.
func TestHub_EndsBadStreams(t *testing.T) {
	ack := func(term int64, counter uint64) route.ToControl {
		return route.ToControl{Ack: &route.Version{Term: term, Counter: counter}}
	}
	hello := route.ToControl{Hello: &route.Hello{Start: "s"}}
	for _, tt := range []struct {
		name   string
		frames []any
	}{
		{"no hello", []any{ack(1, 1)}},
		{"hello without a start", []any{route.ToControl{Hello: &route.Hello{}}}},
		{"hello with a huge start", []any{route.ToControl{Hello: &route.Hello{Start: strings.Repeat("s", 1000)}}}},
		{"two hellos", []any{hello, hello}},
		{"ack of the future", []any{hello, ack(1, 1<<60)}},
		{"ack of another term", []any{hello, ack(2, 0)}},
		{"no frame at all", []any{hello, map[string]any{}}},
		{"no JSON", []any{hello, "x"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := &cluster{}
			hub := newReplica(t, c, "", clock.RealClock{})
			hub.serve(1)
			hub.change(t, c, api, fork("pr-1", "a"))
			body, in := io.Pipe()
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, hub.URL+route.StreamPath, body)
			req.Header.Set("Authorization", "Bearer deployment.api/api-1")
			go func() {
				for _, f := range tt.frames {
					_ = route.Write(in, f)
				}
			}()
			resp, err := hub.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			_, _ = io.Copy(io.Discard, resp.Body) // returns when the hub ends the stream
			if v, err := hub.view(t.Context(), api); err != nil || acked("a", "api-1")(v) {
				t.Errorf("%v: counts as acknowledged: %+v", err, v)
			}
		})
	}
}

func TestHub_PodGoneWhileItConnected(t *testing.T) {
	hub := newReplica(t, &cluster{}, "", clock.RealClock{})
	hub.serve(1)
	_, ended := newRouter(t, api, "dead").dial(hub)
	<-ended
	if v, err := hub.view(t.Context(), api); err != nil || len(v.Routers) != 0 {
		t.Errorf("%v %+v", err, v)
	}
}

func TestHub_Pings(t *testing.T) {
	c := clocktesting.NewFakeClock(time.Now())
	hub := newReplica(t, &cluster{}, "", c)
	hub.serve(1)
	r := newRouter(t, api, "api-1")
	r.dial(hub)
	r.wait("table", func() bool { return r.table != nil })
	for n := range 3 {
		c.Step(pingInterval)
		r.wait("ping", func() bool { return r.pings > n })
	}
}

func TestHub_Trust(t *testing.T) {
	hub := newReplica(t, &cluster{}, "", clock.RealClock{})
	hub.serve(1)
	r := newRouter(t, api, "api-1")
	r.ca = "old"
	r.dial(hub)
	r.wait("table", func() bool { return r.table != nil })
	if n := hub.TrustedBundles()["old"]; n != 1 {
		t.Errorf("%v", hub.TrustedBundles())
	}
	for _, bundle := range []string{"one", "two"} {
		if err := hub.SetTrust([]byte(bundle)); err != nil {
			t.Fatal(err)
		}
		r.wait("the bundle", func() bool { return r.trust == bundle })
	}
}

// Baselines come and go; a hub does not grow with all there ever were.
func TestHub_DropsWhatIsGone(t *testing.T) {
	c := &cluster{}
	hub := newReplica(t, c, "", clock.RealClock{})
	hub.serve(1)
	hub.change(t, c, api, fork("pr-1", "a"))
	r := newRouter(t, api, "api-1")
	hangUp, _ := r.dial(hub)
	r.wait("table", func() bool { return r.table != nil })
	hub.change(t, c, api)
	hangUp()
	hub.forget(api, "api-1")
	hub.mu.Lock()
	defer hub.mu.Unlock()
	if len(hub.baselines) != 0 {
		t.Errorf("%v", hub.baselines)
	}
}
