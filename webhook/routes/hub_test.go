package routes

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

var api = Baseline{"shop", "deployment.api"}

// A cluster is the state of forks that a test changes.
type cluster struct {
	mu    sync.Mutex
	forks map[Baseline][]Fork
}

func (c *cluster) Forks(_ context.Context, b Baseline, sandboxName string) (map[string]*Fork, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := map[string]*Fork{}
	for i := range c.forks[b] {
		f := c.forks[b][i]
		if name := f.Deployment.Labels[sandbox.LabelSandbox]; sandboxName == all || name == sandboxName {
			found[name] = &f
		}
	}
	return found, nil
}

func (c *cluster) set(b Baseline, forks ...Fork) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.forks == nil {
		c.forks = map[Baseline][]Fork{}
	}
	c.forks[b] = forks
}

// fork makes a fork of sandbox name and of the same key, served by pods of revision rs1.
func fork(name string, pods ...string) Fork {
	f := Fork{Deployment: deployment(name, name, 0), Revisions: revisions}
	for _, p := range pods {
		f.Pods = append(f.Pods, readyPod(p, "rs1"))
	}
	return f
}

// door admits a router whose token is "BASELINE'S WORKLOAD/POD", with the pod's name for its UID.
type door struct{}

func (door) admit(r *http.Request) (peer, error) {
	workload, pod, ok := strings.Cut(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), "/")
	if !ok {
		return peer{}, &refusal{http.StatusUnauthorized, "no bearer token"}
	}
	if pod == "broken" {
		return peer{}, errors.New("API server is away")
	}
	return peer{Baseline: Baseline{"shop", workload}, pod: pod, uid: types.UID(pod)}, nil
}

func (door) lives(_ context.Context, p peer) bool { return p.pod != "dead" }

// A replica is one process that serves the stream.
type replica struct {
	*Hub
	*httptest.Server
	clock clock.WithTicker
}

func newReplica(t testing.TB, s state, holder string, c clock.WithTicker) *replica {
	t.Helper()
	r := &replica{Hub: newHub(s), clock: c}
	h := &streamHandler{hub: r.Hub, gate: door{}, clock: c, log: logr.Discard(), holder: func(context.Context) string { return holder }}
	r.Server = httptest.NewUnstartedServer(h)
	r.EnableHTTP2 = true
	r.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	r.StartTLS()
	t.Cleanup(func() {
		r.stop()
		r.CloseClientConnections()
		r.Close()
	})
	return r
}

func (r *replica) stop() {
	select {
	case <-r.stopped:
	default:
		close(r.stopped)
	}
}

func (r *replica) change(t testing.TB, c *cluster, b Baseline, forks ...Fork) *route.Table {
	t.Helper()
	before, _ := c.Forks(t.Context(), b, all)
	c.set(b, forks...)
	after, _ := c.Forks(t.Context(), b, all)
	maps.Copy(before, after)
	for name := range before {
		if err := r.rebuild(t.Context(), b, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.ensure(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.baselines[b].current.table
}

// view asks for the baseline's view, of all pods there may be.
func (r *replica) view(ctx context.Context, b Baseline) (View, error) {
	var pods []*corev1.Pod
	r.mu.Lock()
	if known := r.baselines[b]; known != nil {
		for uid := range known.serving {
			pods = append(pods, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid}})
		}
	}
	r.mu.Unlock()
	return r.View(ctx, b, pods)
}

// A testRouter is the router's end of a stream, as the contract says it behaves.
type testRouter struct {
	t      testing.TB
	token  string
	start  string
	ca     string
	silent bool // takes tables and acknowledges none: frozen

	mu     sync.Mutex
	table  *route.Table
	counts map[string]route.Count
	pings  int
	trust  string
	frames int
	change chan struct{} // closed and made anew at each frame
}

func newRouter(t testing.TB, b Baseline, pod string) *testRouter {
	return &testRouter{t: t, token: b.Workload + "/" + pod, start: "start-of-" + pod, change: make(chan struct{}), counts: map[string]route.Count{}}
}

// dial connects to a replica. It returns what ends the stream and what waits for its end.
func (r *testRouter) dial(to *replica) (hangUp func(), ended <-chan error) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	body, in := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.URL+route.StreamPath, body)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	// Each router has a connection of its own, as in life.
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: to.Client().Transport.(*http.Transport).TLSClientConfig.Clone()}
	done := make(chan error, 1)
	go func() {
		defer transport.CloseIdleConnections()
		resp, err := transport.RoundTrip(req)
		if err != nil {
			done <- err
			return
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			done <- errors.New(resp.Status)
			return
		}
		done <- r.run(route.NewReader(resp.Body), in)
	}()
	stop := func() { cancel(); _ = in.Close() }
	r.t.Cleanup(stop)
	return stop, done
}

func (r *testRouter) run(frames *route.Reader, w io.Writer) error {
	r.mu.Lock()
	hello := route.Hello{Build: "test", Start: r.start, CA: r.ca}
	if r.table != nil {
		hello.Have = r.table.Version
	}
	r.mu.Unlock()
	if err := route.Write(w, route.ToControl{Hello: &hello}); err != nil {
		return err
	}
	for {
		f, err := frames.ToRouter()
		if err != nil {
			return err
		}
		reply, err := r.take(f)
		if err != nil {
			return err
		}
		for _, frame := range reply {
			if err := route.Write(w, frame); err != nil {
				return err
			}
		}
	}
}

// totals are what the router counted of the forks that are in its table.
func (r *testRouter) totals() map[string]route.Count {
	all := map[string]route.Count{}
	for key, f := range r.table.Routes {
		c := r.counts[key+" "+f.UID]
		c.Of = f.UID
		all[key] = c
	}
	return all
}

func (r *testRouter) take(f *route.ToRouter) (reply []route.ToControl, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() {
		r.frames++
		close(r.change)
		r.change = make(chan struct{})
	}()
	switch {
	case f.Snapshot != nil:
		if r.table != nil && f.Snapshot.Version.Compare(r.table.Version) < 0 {
			return nil, errors.New("refused an older table")
		}
		r.table = f.Snapshot
	case f.Delta != nil:
		next, ok := r.table.Apply(f.Delta)
		if !ok {
			return nil, errors.New("delta does not build on the table")
		}
		r.table = next
	case f.Ping != nil:
		r.pings++
		return nil, nil
	case f.Trust != nil:
		r.trust = f.Trust.CA
		return nil, nil
	case f.Report != nil:
		if r.silent {
			return nil, nil
		}
		return []route.ToControl{{Counts: &route.Counts{Nonce: f.Report.Nonce, Keys: r.totals()}}}, nil
	}
	if r.silent {
		return nil, nil
	}
	v := r.table.Version
	return []route.ToControl{{Ack: &v}, {Counts: &route.Counts{Keys: r.totals()}}}, nil
}

// wait returns once ok holds.
func (r *testRouter) wait(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.After(time.Minute)
	for {
		r.mu.Lock()
		done, change := ok(), r.change
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-change:
		case <-deadline:
			r.t.Fatalf("router %s: timed out waiting for %s", r.token, what)
		}
	}
}

func (r *testRouter) waitFor(want *route.Table) {
	r.t.Helper()
	r.wait("table", func() bool { return r.table != nil && r.table.Version == want.Version })
	r.mu.Lock()
	defer r.mu.Unlock()
	if !maps.EqualFunc(r.table.Routes, want.Routes, equal) {
		r.t.Fatalf("router %s has version %v with other routes than the hub", r.token, r.table.Version)
	}
}

// waitView returns once the baseline's view is ok.
func (r *replica) waitView(t testing.TB, b Baseline, what string, ok func(View) bool) View {
	t.Helper()
	changed := make(chan struct{}, 1)
	r.Watch(func(of Baseline) {
		if of == b {
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	})
	deadline := time.After(time.Minute)
	for {
		v, err := r.view(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		if ok(v) {
			return v
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("timed out waiting for %s; view is %+v", what, v)
		}
	}
}

// acked says that the routers of all the pods route to the fork's pod.
func acked(forkPod string, pods ...string) func(View) bool {
	return func(v View) bool {
		since, ok := v.Serving[types.UID(forkPod)]
		for _, p := range pods {
			ok = ok && v.Routers[types.UID(p)].Acked.Compare(since) >= 0
		}
		return ok
	}
}

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
	if r.table.Routes["pr-1"].Reason != "no pods yet" {
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
	hub.change(t, c, api, fork("pr-3", "c"))
	r.waitFor(hub.change(t, c, other, fork("pr-4", "d")))
	if r.frames != 2 {
		t.Errorf("got %d frames, want the snapshot and one delta", r.frames)
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

// A pod serves since it last came into the table: one that left and came back must be acknowledged anew.
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

// A router that starts anew routes by what it loaded from its disk, which may be older than what it acknowledged.
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
// acknowledge anew, and go back to nobody of an older term.
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
