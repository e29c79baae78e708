package routes

import (
	"context"
	"errors"
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
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/counts"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

var api = Baseline{"shop", "deployment.api"}

// A cluster is the state of forks that a test changes.
type cluster struct {
	mu    sync.Mutex
	forks map[Baseline][]Fork
	near  map[Baseline]neighbours
}

func (c *cluster) Neighbours(_ context.Context, b Baseline) (neighbours, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.near[b], nil
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
	r := &replica{Hub: newHub(s, c), clock: c}
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
	taken  bool // was told that its final counts are

	mu     sync.Mutex
	table  *route.Table
	counts map[string]route.Count
	passed map[string]route.Observation // of keys that are not forked here
	pings  int
	up     io.Writer
	trust  string
	frames int
	tables int           // of the frames: snapshots and deltas
	change chan struct{} // closed and replaced at each frame
}

func newRouter(t testing.TB, b Baseline, pod string) *testRouter {
	return &testRouter{t: t, token: b.Workload + "/" + pod, start: "start-of-" + pod, change: make(chan struct{}), counts: map[string]route.Count{}, passed: map[string]route.Observation{}}
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
	r.up = w
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

// seen is what the router observed of the keys that its table has it observe.
func (r *testRouter) seen() map[string]route.Observation {
	all := map[string]route.Observation{}
	for _, key := range r.table.Observe {
		if o, ok := r.passed[key]; ok {
			all[key] = o
		}
	}
	return all
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
		r.tables++
	case f.Delta != nil:
		next, ok := r.table.Apply(f.Delta)
		if !ok {
			return nil, errors.New("delta does not build on the table")
		}
		r.table = next
		r.tables++
	case f.Ping != nil:
		r.pings++
		return nil, nil
	case f.Taken != nil:
		r.taken = true
		return nil, nil
	case f.Trust != nil:
		r.trust = f.Trust.CA
		return nil, nil
	case f.Report != nil:
		if r.silent {
			return nil, nil
		}
		return []route.ToControl{{Counts: &route.Counts{Nonce: f.Report.Nonce, Keys: r.totals(), Observed: r.seen()}}}, nil
	}
	if r.silent {
		return nil, nil
	}
	v := r.table.Version
	return []route.ToControl{{Ack: &v}, {Counts: &route.Counts{Keys: r.totals(), Observed: r.seen()}}}, nil
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

// finish sends what the router counted as its final counts.
func (r *testRouter) finish() {
	r.t.Helper()
	r.mu.Lock()
	last, up := route.ToControl{Counts: &route.Counts{Final: true, Keys: r.totals(), Observed: r.seen()}}, r.up
	r.mu.Unlock()
	if err := route.Write(up, last); err != nil {
		r.t.Fatal(err)
	}
}

// newTestCounter returns what writes the counts of hub's routers by c.
func newTestCounter(hub *Hub, c client.Client) *counts.Counter {
	both := counted{hub, c}
	return counts.NewCounter(both, both, c, c)
}
