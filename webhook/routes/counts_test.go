package routes

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

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

func noneGone(string) bool { return false }

func countsIn(t *testing.T, c client.Client) (route.Totals, *corev1.ConfigMap) {
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
	_, cm := countsIn(t, c)
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
	counter := newTestCounter(hub.Hub, c)
	if _, err := counter.Reconcile(t.Context(), pr1); err != nil {
		t.Fatal(err)
	}
	totals, cm := countsIn(t, c)
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
		counter := newTestCounter(hub.Hub, c)
		if _, err := counter.Reconcile(t.Context(), pr1); err != nil {
			t.Fatal(err)
		}
		totals, cm := countsIn(t, c)
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

// A fork that is created again, with the key and the name of the previous one, starts at zero.
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
	if _, got := hub.reports(api, "pr-1", noneGone); len(got) != 1 {
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
	if _, got := hub.reports(api, "pr-1", noneGone); len(got) != 0 {
		t.Errorf("the new fork got %v", got)
	}
	hub.waitView(t, api, "ack", acked("b", "api-1"))
	r.serve("pr-1", 2)
	flush(t, c, "now")
	if _, err := newTestCounter(hub.Hub, c).Reconcile(t.Context(), pr1); err != nil {
		t.Fatal(err)
	}
	if totals, _ := countsIn(t, c); totals[api.Workload].Fork != 2 {
		t.Errorf("counted %v", totals)
	}
}

// A router that ends gracefully is let go once all that it counted is written, and is not named as one whose counts are
// missing. One that ends without a word is not among those that did.
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
	counter := newTestCounter(hub.Hub, c)
	if _, err := counter.Reconcile(t.Context(), pr1); err != nil {
		t.Fatal(err)
	}
	r1.wait("leave to end", func() bool { return r1.taken })
	totals, _ := countsIn(t, c)
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
	_, cm := countsIn(t, c)
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
