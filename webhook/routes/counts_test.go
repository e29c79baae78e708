package routes

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

const web = "deployment.web"

func nobody(string) bool { return false }

func TestFold(t *testing.T) {
	totals, m := route.Totals{}, marks{}
	for i, step := range []struct {
		fork    string
		reports map[string]route.Count
		gone    func(string) bool
		want    uint64
		changed bool
	}{
		{"f", map[string]route.Count{"a": {Fork: 3}}, nobody, 3, true},
		{"f", map[string]route.Count{"a": {Fork: 3}}, nobody, 3, false},                  // nothing new
		{"f", map[string]route.Count{"a": {Fork: 5}, "b": {Fork: 10}}, nobody, 15, true}, // a second router
		{"f", nil, nobody, 15, false},                                                    // a new leader that knows no router yet
		{"f", map[string]route.Count{"a": {Fork: 6}}, nobody, 16, true},                  // ... and meets one again: no double
		{"f", map[string]route.Count{"a": {Fork: 2}}, nobody, 16, false},                 // nonsense: totals never fall
		{"f", nil, func(id string) bool { return id == "a" }, 16, true},                  // its pod is gone: the sum stays
		{"g", map[string]route.Count{"b": {Fork: 4}}, nobody, 20, true},                  // the sandbox forked the workload anew
	} {
		if got := fold(totals, m, web, step.fork, step.reports, step.gone); got != step.changed || totals[web].Fork != step.want {
			t.Errorf("step %d: changed %v, total %d, want %v, %d", i, got, totals[web].Fork, step.changed, step.want)
		}
	}
	if want := (marks{web: {"g", map[string]route.Count{"b": {Fork: 4}}}}); !cmp.Equal(m, want) {
		t.Errorf("marks %v, want %v", m, want)
	}
}

// Whatever the order of reports, restarts, failovers and lost writes: the sum is what routers counted and reported, exactly.
func TestFold_CountsEverythingOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type stored struct {
			Totals route.Totals
			Marks  marks
		}
		object, _ := json.Marshal(stored{route.Totals{}, marks{}}) // the ConfigMap
		routers := map[string]uint64{}                             // living routers' own totals
		reported := map[string]route.Count{}                       // what the leader was told
		var all uint64
		starts := 0
		write := func(lost bool) {
			var s stored
			if err := json.Unmarshal(object, &s); err != nil {
				t.Fatal(err)
			}
			fold(s.Totals, s.Marks, web, "f", reported, func(id string) bool {
				_, lives := routers[id]
				return !lives
			})
			if !lost {
				object, _ = json.Marshal(s)
				maps.DeleteFunc(reported, func(id string, _ route.Count) bool {
					_, lives := routers[id]
					return !lives
				})
			}
		}
		report := func() {
			for id, n := range routers {
				reported[id] = route.Count{Fork: n}
			}
		}
		pick := func() string {
			ids := make([]string, 0, len(routers))
			for id := range routers {
				ids = append(ids, id)
			}
			return rapid.SampledFrom(ids).Draw(t, "router")
		}
		t.Repeat(map[string]func(*rapid.T){
			"start": func(*rapid.T) { starts++; routers[fmt.Sprint(starts)] = 0 },
			"serve": func(t *rapid.T) {
				if len(routers) == 0 {
					t.Skip()
				}
				n := uint64(rapid.IntRange(1, 9).Draw(t, "n"))
				routers[pick()] += n
				all += n
			},
			"report":     func(*rapid.T) { report() },
			"write":      func(*rapid.T) { write(false) },
			"lose write": func(*rapid.T) { write(true) },
			"failover":   func(*rapid.T) { reported = map[string]route.Count{}; report() },
			"stop": func(t *rapid.T) { // in order: it reports, and that is written before the leader changes
				if len(routers) == 0 {
					t.Skip()
				}
				report()
				delete(routers, pick())
				write(false)
			},
		})
		report()
		write(false)
		var s stored
		_ = json.Unmarshal(object, &s)
		if s.Totals[web].Fork != all {
			t.Fatalf("sum %d, routers counted %d", s.Totals[web].Fork, all)
		}
		if len(s.Marks[web].Routers) > len(routers) {
			t.Fatalf("%d marks for %d routers", len(s.Marks[web].Routers), len(routers))
		}
	})
}

func TestGoneRouters(t *testing.T) {
	pods := []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{UID: "known"}}, {ObjectMeta: metav1.ObjectMeta{UID: "unknown"}}}
	gone := goneRouters(pods, map[types.UID]string{"known": routerID("known", "now")})
	for id, want := range map[string]bool{
		routerID("known", "now"):      false,
		routerID("known", "before"):   true,  // it started anew in the same pod
		routerID("unknown", "any"):    false, // not back since the failover
		routerID("deleted pod", "s1"): true,
		"":                            true,
	} {
		if gone(id) != want {
			t.Errorf("%q: gone %v, want %v", id, gone(id), want)
		}
	}
}

// newCluster returns a client that holds what the counter reads and writes: a sandbox, its fork, and baseline pods.
func newCluster(t *testing.T, pods ...string) client.Client {
	t.Helper()
	router := []corev1.Container{{Name: sandbox.RouterContainer}}
	b := fake.NewClientBuilder().WithObjects(
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "sandbox-pr-1", Labels: map[string]string{sandbox.LabelSandbox: "pr-1", sandbox.LabelRole: sandbox.RoleSandbox},
		}},
		deployment("pr-1", "pr-1", 0),
	).WithIndex(&appsv1.Deployment{}, indexSandbox, func(o client.Object) []string {
		return []string{o.GetLabels()[sandbox.LabelSandbox]}
	}).WithIndex(&corev1.Pod{}, indexBaseline, byBaseline)
	for _, name := range pods {
		b = b.WithObjects(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name), Labels: map[string]string{
				sandbox.LabelRole: sandbox.RoleBaseline, sandbox.LabelWorkload: api.Workload,
			}},
			Spec: corev1.PodSpec{InitContainers: router},
		})
	}
	return b.Build()
}

var pr1 = reconcile.Request{NamespacedName: types.NamespacedName{Namespace: "shop", Name: "sandbox-pr-1"}}

func counts(t *testing.T, c client.Client) (route.Totals, *corev1.ConfigMap) {
	t.Helper()
	var cm corev1.ConfigMap
	if err := c.Get(t.Context(), pr1.NamespacedName, &cm); err != nil {
		t.Fatal(err)
	}
	var totals route.Totals
	if s := cm.Data[sandbox.DataCounts]; s != "" {
		if err := json.Unmarshal([]byte(s), &totals); err != nil {
			t.Fatal(err)
		}
	}
	return totals, &cm
}

func flush(t *testing.T, c client.Client, nonce string) {
	t.Helper()
	_, cm := counts(t, c)
	cm.Annotations = map[string]string{sandbox.AnnotationFlush: nonce}
	if err := c.Update(context.Background(), cm); err != nil {
		t.Fatal(err)
	}
}

// serve has the router count n requests of a key.
func (r *testRouter) serve(key string, n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	of := key + " " + r.table.Routes[key].UID
	r.counts[of] = r.counts[of].Add(route.Count{Fork: n})
}

func TestCounts_FlushAsksEveryRouter(t *testing.T) {
	c := newCluster(t, "api-1", "api-2", "api-3")
	state := &cluster{}
	hub := newReplica(t, state, "", clock.RealClock{})
	hub.serve(1)
	hub.change(t, state, api, fork("pr-1", "a"), fork("pr-2", "b"))
	r1, r2 := newRouter(t, api, "api-1"), newRouter(t, api, "api-2")
	r1.dial(hub)
	r2.dial(hub)
	hub.waitView(t, api, "acks", acked("a", "api-1", "api-2"))
	r1.serve("pr-1", 3)
	r2.serve("pr-1", 4)
	r2.serve("pr-2", 100) // another sandbox's

	flush(t, c, "now")
	counter := &counter{hub: hub.Hub, cache: c, client: c}
	if _, err := counter.Reconcile(t.Context(), pr1); err != nil {
		t.Fatal(err)
	}
	totals, cm := counts(t, c)
	if want := (route.Totals{api.Workload: {Fork: 7}}); !cmp.Equal(totals, want) {
		t.Errorf("counts %v, want %v", totals, want)
	}
	// api-3's router never connected: its counts are not in, and that is said.
	if cm.Annotations[sandbox.AnnotationFlushed] != "now" || cm.Annotations[sandbox.AnnotationFlushMissing] != "api-3" {
		t.Errorf("annotations %v", cm.Annotations)
	}
	if len(hub.asks) != 0 {
		t.Errorf("asks are left: %v", hub.asks)
	}
}

func TestCounts_SurviveFailoverAndDeadRouters(t *testing.T) {
	c := newCluster(t, "api-1", "api-2")
	state := &cluster{}
	r1, r2 := newRouter(t, api, "api-1"), newRouter(t, api, "api-2")
	for term := int64(1); term <= 3; term++ {
		hub := newReplica(t, state, "", clock.RealClock{})
		hub.serve(term)
		hub.change(t, state, api, fork("pr-1", "a"))
		end1, ended1 := r1.dial(hub)
		hub.waitView(t, api, "ack", acked("a", "api-1"))
		r1.serve("pr-1", 10)
		if term == 1 { // the second router lives under the first leader only
			end2, _ := r2.dial(hub)
			hub.waitView(t, api, "ack", acked("a", "api-2"))
			r2.serve("pr-1", 5)
			hub.collect(t.Context(), []Baseline{api})
			end2()
			if err := c.Delete(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api-2"}}); err != nil {
				t.Fatal(err)
			}
			hub.forget(api, "api-2")
		}
		flush(t, c, fmt.Sprint(term))
		counter := &counter{hub: hub.Hub, cache: c, client: c}
		if _, err := counter.Reconcile(t.Context(), pr1); err != nil {
			t.Fatal(err)
		}
		totals, cm := counts(t, c)
		if want := 5 + 10*uint64(term); totals[api.Workload].Fork != want {
			t.Errorf("term %d: counted %d, want %d", term, totals[api.Workload].Fork, want)
		}
		if missing, ok := cm.Annotations[sandbox.AnnotationFlushMissing]; ok {
			t.Errorf("missing %q", missing)
		}
		hub.mu.Lock()
		if n := len(hub.baselines[api].reports); n != 1 {
			t.Errorf("term %d: %d reports kept, want the living router's", term, n)
		}
		hub.mu.Unlock()
		end1()
		<-ended1
	}
}

// A fork that is made anew, with the key and the name of the one before, begins at zero.
func TestCounts_OfOneForkAndNotOfTheOneBefore(t *testing.T) {
	c := newCluster(t, "api-1")
	state := &cluster{}
	hub := newReplica(t, state, "", clock.RealClock{})
	hub.serve(1)
	hub.change(t, state, api, fork("pr-1", "a"))
	r := newRouter(t, api, "api-1")
	r.dial(hub)
	hub.waitView(t, api, "ack", acked("a", "api-1"))
	r.serve("pr-1", 9)
	hub.collect(t.Context(), []Baseline{api})
	if _, got := hub.reports(api, "pr-1", nobody); len(got) != 1 {
		t.Fatalf("%v", got)
	}
	again := fork("pr-1", "b")
	again.Deployment.UID = "another"
	late := map[string]route.Count{"pr-1": {Fork: 9, Of: "uid-of-pr-1"}}
	hub.change(t, state, api, again)
	hub.mu.Lock()
	s := hub.baselines[api].routers["api-1"].stream
	hub.mu.Unlock()
	hub.count(s, &route.Counts{Keys: late}) // sent before it took the change
	if _, got := hub.reports(api, "pr-1", nobody); len(got) != 0 {
		t.Errorf("the new fork got %v", got)
	}
	hub.waitView(t, api, "ack", acked("b", "api-1"))
	r.serve("pr-1", 2)
	flush(t, c, "now")
	if _, err := (&counter{hub: hub.Hub, cache: c, client: c}).Reconcile(t.Context(), pr1); err != nil {
		t.Fatal(err)
	}
	if totals, _ := counts(t, c); totals[api.Workload].Fork != 2 {
		t.Errorf("counted %v", totals)
	}
}

// A router that ends gracefully is let go once all that it counted is written, and is not named as one whose counts are missing. One
// that ends without a word is not among those that did.
func TestCounts_AreHandedOverByARouterThatEnds(t *testing.T) {
	c := newCluster(t, "api-1", "api-2", "api-3")
	state := &cluster{}
	hub := newReplica(t, state, "", clock.RealClock{})
	now := make(chan types.NamespacedName, 10)
	hub.onCount(func(configMap types.NamespacedName, at bool) {
		if at {
			now <- configMap
		}
	})
	hub.serve(1)
	hub.change(t, state, api, fork("pr-1", "a"))
	r1, r2, r3 := newRouter(t, api, "api-1"), newRouter(t, api, "api-2"), newRouter(t, api, "api-3")
	end1, _ := r1.dial(hub)
	end2, _ := r2.dial(hub)
	r3.dial(hub)
	hub.waitView(t, api, "acks", acked("a", "api-1", "api-2", "api-3"))
	r1.serve("pr-1", 3)
	r2.serve("pr-1", 4)
	r1.finish()
	if got := <-now; got != pr1.NamespacedName {
		t.Errorf("%s is to be written at once", got)
	}
	r1.mu.Lock()
	if r1.taken {
		t.Error("the router was let go before its counts were written")
	}
	r1.mu.Unlock()
	counter := &counter{hub: hub.Hub, cache: c, client: c}
	if _, err := counter.Reconcile(t.Context(), pr1); err != nil {
		t.Fatal(err)
	}
	r1.wait("leave to end", func() bool { return r1.taken })
	totals, _ := counts(t, c)
	if want := (route.Totals{api.Workload: {Fork: 3}}); !cmp.Equal(totals, want) {
		t.Errorf("counts %v, want %v", totals, want)
	}
	end1()
	end2()
	for _, pod := range []string{"api-1", "api-2"} {
		if err := c.Delete(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: pod}}); err != nil {
			t.Fatal(err)
		}
		hub.forget(api, types.UID(pod))
	}
	flush(t, c, "after")
	if _, err := counter.Reconcile(t.Context(), pr1); err != nil {
		t.Fatal(err)
	}
	_, cm := counts(t, c)
	if got := cm.Data[sandbox.DataEnded]; got != `["api-1"]` {
		t.Errorf("handed over by %s", got)
	}
}

// Nothing to write: the router is let go at once.
func TestCounts_ARouterThatCountedNothingIsLetGo(t *testing.T) {
	state := &cluster{}
	hub := newReplica(t, state, "", clock.RealClock{})
	hub.serve(1)
	hub.change(t, state, api, fork("pr-1", "a"))
	r := newRouter(t, api, "api-1")
	r.silent = true // has counted nothing, and reports nothing
	r.dial(hub)
	r.wait("table", func() bool { return r.table != nil })
	r.mu.Lock()
	up := r.up
	r.mu.Unlock()
	if err := route.Write(up, route.ToControl{Counts: &route.Counts{Final: true}}); err != nil {
		t.Fatal(err)
	}
	r.wait("leave to end", func() bool { return r.taken })
}
