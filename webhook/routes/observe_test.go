package routes

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/counts"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

var x1 = types.NamespacedName{Namespace: "shop", Name: sandbox.RunName("x1")}

// experiment is the ConfigMap of x1.
func experiment(keys ...string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: x1.Namespace, Name: x1.Name, Labels: map[string]string{sandbox.LabelRole: sandbox.RoleRun, sandbox.LabelRun: "x1"},
		},
		Data: map[string]string{sandbox.DataObserve: strings.Join(keys, ","), "report": "{}"},
	}
}

func TestSetRun_changesTheTablesOfItsNamespace(t *testing.T) {
	state := &cluster{}
	hub := newReplica(t, state, "", clock.RealClock{})
	hub.serve(1)
	hub.change(t, state, api, fork("pr-1", "a"))
	elsewhere := Baseline{"other", "deployment.api"}
	hub.change(t, state, elsewhere, fork("pr-1", "a"))
	table := func(b Baseline) *route.Table {
		hub.mu.Lock()
		defer hub.mu.Unlock()
		return hub.baselines[b].current.table
	}
	r := newRouter(t, api, "api-1")
	r.dial(hub)
	hub.waitView(t, api, "ack", acked("a", "api-1"))
	other := types.NamespacedName{Namespace: "shop", Name: sandbox.RunName("x2")}
	before := table(elsewhere)
	for i, step := range []struct {
		run  types.NamespacedName
		keys []string
		want []string
	}{
		{x1, []string{"a", "b"}, []string{"a", "b"}},
		{x1, []string{"a", "b"}, []string{"a", "b"}},
		{other, []string{"b", "c"}, []string{"a", "b", "c"}},
		{x1, []string{"a"}, []string{"a", "b", "c"}},
		{x1, nil, []string{"b", "c"}},
		{other, nil, nil},
	} {
		had := table(api)
		hub.setRun(step.run, counts.Run{Keys: step.keys})
		now := table(api)
		if !slices.Equal(now.Observe, step.want) {
			t.Errorf("step %d: observed %v, want %v", i, now.Observe, step.want)
		}
		if same := slices.Equal(had.Observe, now.Observe); same != (had == now) {
			t.Errorf("step %d: from version %v to %v", i, had.Version, now.Version)
		}
		if slices.Contains(step.want, "c") { // what a baseline has that is new
			b := Baseline{"shop", fmt.Sprintf("deployment.new-%d", i)}
			if got := hub.change(t, state, b, fork("pr-1", "n")); !slices.Equal(got.Observe, step.want) {
				t.Errorf("step %d: the first table of a baseline observes %v", i, got.Observe)
			}
		}
		r.waitFor(now)
		r.mu.Lock()
		if !slices.Equal(r.table.Observe, step.want) {
			t.Errorf("step %d: the router observes %v", i, r.table.Observe)
		}
		r.mu.Unlock()
	}
	if table(elsewhere) != before {
		t.Error("another namespace has a new table")
	}
	if len(hub.runs)+len(hub.observed) > 0 {
		t.Errorf("%v and %v are left", hub.runs, hub.observed)
	}
}

func TestDiff_OfWhatIsObserved(t *testing.T) {
	from := &route.Table{Version: route.Version{Term: 1, Counter: 1}, Observe: []string{"a", "b"}}
	to := &route.Table{Version: route.Version{Term: 1, Counter: 2}, Observe: []string{"b", "c"}}
	if got, ok := from.Apply(Diff(from, to)); !ok || !slices.Equal(got.Observe, to.Observe) {
		t.Errorf("got %v", got)
	}
}

// pass has the router observe so many requests more of a key, one of which failed.
func (r *testRouter) pass(key string, n uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	had := r.passed[key]
	r.passed[key] = route.Observation{Requests: had.Requests + n, Failed: had.Failed + 1, Last: had.Last + 1, Turn: 1}
}

func observed(t *testing.T, c client.Client) (route.Observed, *corev1.ConfigMap) {
	t.Helper()
	var cm corev1.ConfigMap
	if err := c.Get(t.Context(), x1, &cm); err != nil {
		t.Fatal(err)
	}
	var all route.Observed
	if s := cm.Data[sandbox.DataObserved]; s != "" {
		if err := json.Unmarshal([]byte(s), &all); err != nil {
			t.Fatal(err)
		}
	}
	return all, &cm
}

func flushObserved(t *testing.T, hub *replica, c client.Client, nonce string) route.Observed {
	t.Helper()
	_, cm := observed(t, c)
	cm.Annotations = map[string]string{sandbox.AnnotationFlush: nonce}
	if err := c.Update(t.Context(), cm); err != nil {
		t.Fatal(err)
	}
	counter := newTestCounter(hub.Hub, c)
	if _, err := counter.Reconcile(t.Context(), reconcile.Request{NamespacedName: x1}); err != nil {
		t.Fatal(err)
	}
	all, cm := observed(t, c)
	if cm.Annotations[sandbox.AnnotationFlushed] != nonce || cm.Data["report"] != "{}" {
		t.Errorf("annotations %v, data %v", cm.Annotations, cm.Data)
	}
	return all
}

func TestObserved_SurvivesFailoverAndDeadRouters(t *testing.T) {
	c := newCluster(t, "api-1", "api-2", "api-3")
	if err := c.Create(t.Context(), experiment("v1", "v2")); err != nil {
		t.Fatal(err)
	}
	state := &cluster{}
	r1, r2 := newRouter(t, api, "api-1"), newRouter(t, api, "api-2")
	for term := int64(1); term <= 3; term++ {
		hub := newReplica(t, state, "", clock.RealClock{})
		hub.setRun(x1, counts.RunOf(experiment("v1", "v2")))
		hub.serve(term)
		hub.change(t, state, api, fork("pr-1", "a"))
		end1, ended1 := r1.dial(hub)
		hub.waitView(t, api, "ack", acked("a", "api-1"))
		r1.pass("v1", 10)
		r1.pass("v3", 100) // nobody's
		if term == 1 {
			end2, _ := r2.dial(hub)
			hub.waitView(t, api, "ack", acked("a", "api-2"))
			r2.pass("v1", 5)
			r2.pass("v2", 7)
			hub.collect(t.Context(), []Baseline{api})
			end2()
			if err := c.Delete(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api-2"}}); err != nil {
				t.Fatal(err)
			}
		}
		for _, again := range []string{"a", "b"} { // the second before the hub knows that the pod is gone, or after
			got := flushObserved(t, hub, c, fmt.Sprint(term)+again)
			n := uint64(term)
			want := route.Observed{
				"v1": {api.Workload: {Requests: 5 + 10*n, Failed: 1 + n, Last: max(1, term)}},
				"v2": {api.Workload: {Requests: 7, Failed: 1, Last: 1}},
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("term %d%s: %s", term, again, diff)
			}
		}
		if _, err := newTestCounter(hub.Hub, c).Reconcile(t.Context(), pr1); err != nil { // its zeros
			t.Fatal(err)
		}
		hub.forget(api, "api-2")
		hub.mu.Lock()
		if n := len(hub.baselines[api].reports); n != 1 {
			t.Errorf("term %d: %d reports are kept", term, n)
		}
		hub.mu.Unlock()
		_, cm := observed(t, c)
		if m := cm.Annotations[sandbox.AnnotationFlushMissing]; m != "api-3" {
			t.Errorf("missing %q", m)
		}
		if n := strings.Count(cm.Data[sandbox.DataCounted], counts.RouterID("api-2", "")[:8]); n > 0 {
			t.Errorf("the mark of a router that is gone is kept: %s", cm.Data[sandbox.DataCounted])
		}
		end1()
		<-ended1
	}
}

func TestObserved_DropsWhatIsNotWantedAnyMore(t *testing.T) {
	c := newCluster(t, "api-1")
	if err := c.Create(t.Context(), experiment("v1", "v2")); err != nil {
		t.Fatal(err)
	}
	state := &cluster{}
	hub := newReplica(t, state, "", clock.RealClock{})
	hub.serve(1)
	hub.change(t, state, api, fork("pr-1", "a"))
	r := newRouter(t, api, "api-1")
	r.dial(hub)
	hub.waitView(t, api, "ack", acked("a", "api-1"))
	r.pass("v1", 3)
	r.pass("v2", 4)
	if got := flushObserved(t, hub, c, "1"); got["v1"][api.Workload].Requests != 3 || got["v2"][api.Workload].Requests != 4 {
		t.Fatalf("got %v", got)
	}
	_, cm := observed(t, c)
	cm.Data[sandbox.DataObserve] = "v2"
	if err := c.Update(t.Context(), cm); err != nil {
		t.Fatal(err)
	}
	if got := flushObserved(t, hub, c, "2"); len(got) != 1 || got["v2"][api.Workload].Requests != 4 {
		t.Errorf("got %v", got)
	}
	if err := c.Delete(t.Context(), cm); err != nil {
		t.Fatal(err)
	}
	counter := newTestCounter(hub.Hub, c)
	if _, err := counter.Reconcile(t.Context(), reconcile.Request{NamespacedName: x1}); err != nil {
		t.Fatal(err)
	}
	hub.mu.Lock()
	defer hub.mu.Unlock()
	if rep := hub.baselines[api].reports[counts.RouterID("api-1", "start-of-api-1")]; rep != nil && len(rep.Observed) > 0 || len(hub.runs) > 0 {
		t.Errorf("of an experiment that is gone there is %v", rep)
	}
}

// Of two sandboxes, what is written for one of a router that is gone is not written again because of the other's.
func TestCounts_OfARouterThatIsGoneOnce(t *testing.T) {
	c := newCluster(t, "api-1")
	state := &cluster{}
	hub := newReplica(t, state, "", clock.RealClock{})
	hub.serve(1)
	hub.change(t, state, api, fork("pr-1", "a"), fork("pr-2", "b"))
	r := newRouter(t, api, "api-1")
	end, ended := r.dial(hub)
	hub.waitView(t, api, "ack", acked("a", "api-1"))
	r.serve("pr-1", 3)
	r.serve("pr-2", 4)
	hub.collect(t.Context(), []Baseline{api})
	end()
	<-ended
	if err := c.Delete(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api-1"}}); err != nil {
		t.Fatal(err)
	}
	hub.forget(api, "api-1")
	for i := range 3 {
		flush(t, c, fmt.Sprint(i))
		if _, err := newTestCounter(hub.Hub, c).Reconcile(t.Context(), pr1); err != nil {
			t.Fatal(err)
		}
		if totals, _ := countsIn(t, c); totals[api.Workload].Fork != 3 {
			t.Errorf("flush %d: %v", i, totals)
		}
	}
}
