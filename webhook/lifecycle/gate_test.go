package lifecycle

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

var api = routes.Baseline{Namespace: "shop", Workload: "deployment.api"}

func with[T any](o *T, changes ...func(*T)) *T {
	for _, c := range changes {
		c(o)
	}
	return o
}

func labelled(role string, more ...string) map[string]string {
	l := map[string]string{sandbox.LabelRole: role, sandbox.LabelWorkload: api.Workload}
	for i := 0; i < len(more); i += 2 {
		l[more[i]] = more[i+1]
	}
	return l
}

// forkPod makes a gated pod of sandbox pr-1 whose containers are ready.
func forkPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID(name), Labels: labelled(sandbox.RoleFork, sandbox.LabelSandbox, "pr-1"),
		},
		Spec: corev1.PodSpec{ReadinessGates: []corev1.PodReadinessGate{{ConditionType: sandbox.ConditionRouted}}},
		Status: corev1.PodStatus{Conditions: []corev1.PodCondition{
			{Type: corev1.ContainersReady, Status: corev1.ConditionTrue}, {Type: corev1.PodReady, Status: corev1.ConditionFalse},
		}},
	}
}

func baselinePod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name), Labels: labelled(sandbox.RoleBaseline)},
		Spec:       corev1.PodSpec{InitContainers: []corev1.Container{{Name: sandbox.RouterContainer}}},
		Status:     corev1.PodStatus{Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}},
	}
}

func notReady(p *corev1.Pod)  { p.Status.Conditions = nil }
func noRouter(p *corev1.Pod)  { p.Spec.InitContainers = nil }
func deleting(p *corev1.Pod)  { p.DeletionTimestamp = ptr.To(metav1.Now()) }
func succeeded(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }

func version(counter uint64) route.Version { return route.Version{Term: 1, Counter: counter} }

func TestDecide(t *testing.T) {
	router := func(counter uint64, connected bool) routes.Router {
		return routes.Router{Acked: version(counter), Connected: connected}
	}
	serving := map[types.UID]route.Version{"fork": version(5)}
	for _, tt := range []struct {
		name            string
		baseline        []*corev1.Pod
		view            routes.View
		reason, message string
	}{
		{
			"every ready router acknowledged that version or a later one",
			[]*corev1.Pod{baselinePod("a"), baselinePod("b")},
			routes.View{Serving: serving, Routers: map[types.UID]routes.Router{"a": router(5, true), "b": router(9, true)}},
			ReasonRouted, "the routers of all ready baseline pods route the key to this pod",
		}, {
			"a router that lost its stream still routes by what it acknowledged",
			[]*corev1.Pod{baselinePod("a")},
			routes.View{Serving: serving, Routers: map[types.UID]routes.Router{"a": router(5, false)}},
			ReasonRouted, "the routers of all ready baseline pods route the key to this pod",
		}, {
			"pods that take no traffic are not waited for",
			[]*corev1.Pod{baselinePod("a"), with(baselinePod("b"), notReady), with(baselinePod("c"), deleting)},
			routes.View{Serving: serving, Routers: map[types.UID]routes.Router{"a": router(5, true)}},
			ReasonRouted, "the routers of all ready baseline pods route the key to this pod",
		}, {
			"frozen, disconnected, new, without",
			[]*corev1.Pod{baselinePod("a"), baselinePod("b"), baselinePod("c"), with(baselinePod("d"), noRouter), baselinePod("e")},
			routes.View{Serving: serving, Routers: map[types.UID]routes.Router{"a": router(4, true), "b": router(4, false), "e": router(5, true)}},
			ReasonWaiting, "waiting: pod d has no router; router of pod a has not acknowledged; " +
				"router of pod b is disconnected and has not acknowledged; router of pod c has not connected",
		}, {
			"many",
			[]*corev1.Pod{baselinePod("a"), baselinePod("b"), baselinePod("c"), baselinePod("d"), baselinePod("e"), baselinePod("f"), baselinePod("g")},
			routes.View{Serving: serving},
			ReasonWaiting, "waiting: router of pod a has not connected; router of pod b has not connected; router of pod c has not connected; " +
				"router of pod d has not connected; router of pod e has not connected; and 2 more",
		}, {
			"no baseline pod",
			nil, routes.View{Serving: serving},
			ReasonNoBaselinePod, "waiting for a ready pod of the baseline deployment.api",
		}, {
			"none that is ready",
			[]*corev1.Pod{with(baselinePod("a"), notReady)}, routes.View{Serving: serving, Routers: map[types.UID]routes.Router{"a": router(5, true)}},
			ReasonNoBaselinePod, "waiting for a ready pod of the baseline deployment.api",
		}, {
			"not in the table",
			[]*corev1.Pod{baselinePod("a")}, routes.View{Routers: map[types.UID]routes.Router{"a": router(5, true)}},
			ReasonOlderRevision, "the key is routed to the pods of a newer revision",
		}, {
			"key taken",
			[]*corev1.Pod{baselinePod("a")}, routes.View{Problems: map[string]routes.Problem{"pr-1": {Reason: routes.ReasonKeyTaken, Message: "taken"}}},
			routes.ReasonKeyTaken, "taken",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var baseline []corev1.Pod
			for _, p := range tt.baseline {
				baseline = append(baseline, *p)
			}
			c := Decide(forkPod("fork"), baseline, tt.view)
			if c.Reason != tt.reason || c.Message != tt.message || (c.Status == corev1.ConditionTrue) != (c.Reason == ReasonRouted) {
				t.Errorf("%s %s %q\nwant %s %q", c.Status, c.Reason, c.Message, tt.reason, tt.message)
			}
		})
	}
}

// A fakeHub is a view that a test changes.
type fakeHub struct {
	mu   sync.Mutex
	view routes.View
}

func (h *fakeHub) Serving() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

func (h *fakeHub) View(context.Context, routes.Baseline, []*corev1.Pod) (routes.View, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.view, nil
}

func newTestGate(objects ...client.Object) (*gate, *fakeHub, *clocktesting.FakeClock) {
	c := fake.NewClientBuilder().WithObjects(objects...).WithStatusSubresource(&corev1.Pod{}).
		WithIndex(&corev1.Pod{}, "sandbox-baseline", func(o client.Object) []string {
			return []string{o.GetLabels()[sandbox.LabelRole] + "/" + o.GetLabels()[sandbox.LabelWorkload]}
		}).WithIndex(&corev1.Pod{}, indexWaiting, waits).Build()
	hub, clock := &fakeHub{}, clocktesting.NewFakeClock(time.Now())
	return &gate{hub: hub, cache: c, client: c, clock: clock, pods: map[routes.Baseline]map[types.UID]*gated{}}, hub, clock
}

func reconcileGate(t *testing.T, g *gate) time.Duration {
	t.Helper()
	r, err := g.Reconcile(t.Context(), api)
	if err != nil {
		t.Fatal(err)
	}
	return r.RequeueAfter
}

func get(t *testing.T, g *gate, name string) *corev1.Pod {
	t.Helper()
	var pod corev1.Pod
	if err := g.cache.Get(t.Context(), types.NamespacedName{Namespace: "shop", Name: name}, &pod); err != nil {
		t.Fatal(err)
	}
	return &pod
}

func TestGate_TurnsAndNeverBack(t *testing.T) {
	g, hub, clock := newTestGate(forkPod("fork"), baselinePod("a"))
	hub.view = routes.View{Serving: map[types.UID]route.Version{"fork": version(1)}, Routers: map[types.UID]routes.Router{"a": {Acked: version(1)}}}
	reconcileGate(t, g)
	pod := get(t, g, "fork")
	if c := routed(pod); c == nil || c.Status != corev1.ConditionTrue {
		t.Fatalf("%+v", pod.Status.Conditions)
	}
	if len(pod.Status.Conditions) != 3 || !ready(pod, corev1.ContainersReady) {
		t.Errorf("the kubelet's conditions are gone: %+v", pod.Status.Conditions)
	}
	// Nothing that happens later turns it back: not a new baseline pod, not none, not a new leader that knows no router.
	for _, view := range []routes.View{{}, {Serving: hub.view.Serving}} {
		for _, again := range []*gate{g, {hub: hub, cache: g.cache, client: g.client, clock: clock, pods: map[routes.Baseline]map[types.UID]*gated{}}} {
			hub.view = view
			clock.Step(time.Minute)
			reconcileGate(t, again)
			reconcileGate(t, again)
			if c := routed(get(t, g, "fork")); c.Status != corev1.ConditionTrue {
				t.Fatalf("turned back: %+v", c)
			}
		}
	}
}

// staleCache shows pods as they were.
type staleCache struct {
	client.Reader
	pods []corev1.Pod
}

func (s staleCache) List(ctx context.Context, l client.ObjectList, opts ...client.ListOption) error {
	o := (&client.ListOptions{}).ApplyOptions(opts)
	if o.FieldSelector != nil && o.FieldSelector.String() == indexWaiting+"="+api.Workload {
		l.(*corev1.PodList).Items = s.pods
		return nil
	}
	return s.Reader.List(ctx, l, opts...)
}

// The cache may not have seen yet that the gate turned, whoever turned it.
func TestGate_StaleCacheDoesNotTurnItBack(t *testing.T) {
	g, hub, clock := newTestGate(forkPod("fork"), baselinePod("a"))
	before := *get(t, g, "fork")
	hub.view = routes.View{Serving: map[types.UID]route.Version{"fork": version(1)}, Routers: map[types.UID]routes.Router{"a": {Acked: version(1)}}}
	reconcileGate(t, g)
	hub.view = routes.View{}
	stale := staleCache{g.cache, []corev1.Pod{before}}
	other := &gate{hub: hub, cache: stale, client: g.client, clock: clock, pods: map[routes.Baseline]map[types.UID]*gated{}}
	g.cache = stale
	for range 3 {
		clock.Step(time.Minute)
		reconcileGate(t, g)
		reconcileGate(t, other)
		var pod corev1.Pod
		if err := g.client.Get(t.Context(), client.ObjectKeyFromObject(&before), &pod); err != nil || routed(&pod).Status != corev1.ConditionTrue {
			t.Fatalf("%v turned back: %+v", err, pod.Status.Conditions)
		}
	}
}

func TestGate_SaysWhatItWaitsForOnlyAfterAWhile(t *testing.T) {
	g, hub, clock := newTestGate(forkPod("fork"), baselinePod("a"), with(forkPod("starting"), notReady), with(forkPod("ungated"), func(p *corev1.Pod) {
		p.Spec.ReadinessGates = nil
	}))
	hub.view = routes.View{Serving: map[types.UID]route.Version{"fork": version(2)}, Routers: map[types.UID]routes.Router{"a": {Acked: version(1), Connected: true}}}
	if again := reconcileGate(t, g); again != tellAfter || routed(get(t, g, "fork")) != nil {
		t.Fatalf("again in %v, %+v", again, routed(get(t, g, "fork")))
	}
	clock.Step(tellAfter)
	reconcileGate(t, g)
	c := routed(get(t, g, "fork"))
	if c == nil || c.Status != corev1.ConditionFalse || c.Message != "waiting: router of pod a has not acknowledged" {
		t.Fatalf("%+v", c)
	}
	since := c.LastTransitionTime
	// A new message waits its turn, True does not.
	hub.view.Routers = nil
	if again := reconcileGate(t, g); again != tellAfter {
		t.Errorf("again in %v", again)
	}
	clock.Step(tellAfter)
	reconcileGate(t, g)
	if c := routed(get(t, g, "fork")); c.Message != "waiting: router of pod a has not connected" || !c.LastTransitionTime.Equal(&since) {
		t.Errorf("%+v", c)
	}
	hub.view.Routers = map[types.UID]routes.Router{"a": {Acked: version(2)}}
	reconcileGate(t, g)
	if c := routed(get(t, g, "fork")); c.Status != corev1.ConditionTrue {
		t.Errorf("%+v", c)
	}
	for _, name := range []string{"starting", "ungated"} {
		if c := routed(get(t, g, name)); c != nil {
			t.Errorf("pod %s has %+v", name, c)
		}
	}
}

func TestGate_WaitsUntilRoutesAreServed(t *testing.T) {
	g, _, _ := newTestGate(forkPod("fork"))
	g.hub = notServing{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.Reconcile(ctx, api); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

type notServing struct{ hub }

func (notServing) Serving() <-chan struct{} { return nil }
