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

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
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

// decideCase is what is known, and the condition that it leads to.
type decideCase struct {
	name            string
	baseline        []*corev1.Pod
	view            routes.View
	reason, message string
}

func TestDecide(t *testing.T) {
	router := func(counter uint64, connected bool) routes.Router {
		return routes.Router{Acked: version(counter), Connected: connected}
	}
	serving := map[types.UID]route.Version{"fork": version(5)}
	now := time.Now()
	for _, tt := range []decideCase{
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
			"without a router, which no acknowledgement helps",
			[]*corev1.Pod{baselinePod("a"), with(baselinePod("d"), noRouter)},
			routes.View{Serving: serving, Routers: map[types.UID]routes.Router{"a": router(4, true)}},
			"RouterMissing", "baseline pod d has no router, and keeps all requests that reach it",
		}, {
			"declined",
			[]*corev1.Pod{baselinePod("a"), with(baselinePod("d"), noRouter, func(p *corev1.Pod) {
				p.Annotations = map[string]string{sandbox.AnnotationInjected: "declined: port-moved: port http of container api is 8081, but 8080 in annotation x"}
			})},
			routes.View{Serving: serving, Routers: map[types.UID]routes.Router{"a": router(5, true)}},
			"RouterDeclined", "baseline pod d has no router, as admission declined (port-moved): port http of container api is 8081, but 8080 in annotation x",
		}, {
			"frozen",
			[]*corev1.Pod{baselinePod("a"), baselinePod("b"), baselinePod("e")},
			routes.View{Serving: serving, Routers: map[types.UID]routes.Router{"a": router(4, true), "b": router(4, true), "e": router(5, true)}},
			"RouterNotAcknowledged", "the routers of pods a, b have not acknowledged the route yet",
		}, {
			"disconnected",
			[]*corev1.Pod{baselinePod("a"), baselinePod("e")},
			routes.View{Serving: serving, Routers: map[types.UID]routes.Router{"a": router(4, false), "e": router(5, true)}},
			"RouterNotAcknowledged", "the router of pod a has lost the control plane before acknowledging the route",
		}, {
			"disconnected for too long",
			[]*corev1.Pod{baselinePod("a"), baselinePod("e")},
			routes.View{Serving: serving, Routers: map[types.UID]routes.Router{"a": {Acked: version(5), Lost: now.Add(-2 * time.Hour)}, "e": router(5, true)}},
			"RouterStale", "the router of pod a has lost the control plane for so long that the table is not used any more",
		}, {
			"new",
			[]*corev1.Pod{baselinePod("c"), baselinePod("e")},
			routes.View{Serving: serving, Routers: map[types.UID]routes.Router{"e": router(5, true)}},
			"RouterNotConnected", "the router of pod c has not connected to the control plane, so it is not known which routes are in force there",
		}, {
			"many",
			[]*corev1.Pod{baselinePod("a"), baselinePod("b"), baselinePod("c"), baselinePod("d"), baselinePod("e"), baselinePod("f"), baselinePod("g")},
			routes.View{Serving: serving},
			"RouterNotConnected", "the routers of pods a, b, c, d, e and 2 more have not connected to the control plane, so it is not known which routes are in force there",
		}, {
			"no baseline pod",
			nil, routes.View{Serving: serving},
			"NoBaselinePod", "the baseline deployment/api has no ready pod",
		}, {
			"none that is ready",
			[]*corev1.Pod{with(baselinePod("a"), notReady)}, routes.View{Serving: serving, Routers: map[types.UID]routes.Router{"a": router(5, true)}},
			"NoBaselinePod", "the baseline deployment/api has no ready pod: pod/a: the pod is starting",
		}, {
			"not in the table",
			[]*corev1.Pod{baselinePod("a")}, routes.View{Routers: map[types.UID]routes.Router{"a": router(5, true)}},
			"OlderRevision", "the routers have not been sent this pod yet: requests with the key go to an older revision, if there is one",
		}, {
			"key taken",
			[]*corev1.Pod{baselinePod("a")}, routes.View{Problems: map[string]health.Claim{"pr-1": {Code: health.KeyTaken, Message: "taken"}}},
			"KeyTaken", "taken",
		}, {
			"no router has tried the port",
			[]*corev1.Pod{baselinePod("a")}, routes.View{Serving: serving, Dials: true, Routers: map[types.UID]routes.Router{"a": router(5, true)}},
			"PortNotTried", "no router has tried to connect to the fork's port yet",
		}, {
			"nothing listens",
			[]*corev1.Pod{baselinePod("a")}, routes.View{Serving: serving, Dials: true, Dialed: map[types.UID]string{"fork": "port http (8080): connection refused"},
				Routers: map[types.UID]routes.Router{"a": router(5, true)}},
			"PortNotListening", "no router could connect to the fork: port http (8080): connection refused",
		}, {
			"a router connected",
			[]*corev1.Pod{baselinePod("a")}, routes.View{Serving: serving, Dials: true, Dialed: map[types.UID]string{"fork": ""},
				Routers: map[types.UID]routes.Router{"a": router(5, true)}},
			ReasonRouted, "the routers of all ready baseline pods route the key to this pod",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, _ := Decide(forkPod("fork"), &health.Baseline{Pods: tt.baseline}, nil, tt.view, time.Hour, now)
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
	// Nothing that happens later turns it back: not a new baseline pod, not none, not a new leader that knows no
	// router.
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

// The cache may not show yet that the gate is True, whoever set it.
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
	if again := reconcileGate(t, g); again != conditionDelay || routed(get(t, g, "fork")) != nil {
		t.Fatalf("again in %v, %+v", again, routed(get(t, g, "fork")))
	}
	clock.Step(conditionDelay)
	reconcileGate(t, g)
	c := routed(get(t, g, "fork"))
	if c == nil || c.Status != corev1.ConditionFalse || c.Message != "the router of pod a has not acknowledged the route yet" {
		t.Fatalf("%+v", c)
	}
	since := c.LastTransitionTime
	// A new message waits its turn, True does not.
	hub.view.Routers = nil
	if again := reconcileGate(t, g); again != conditionDelay {
		t.Errorf("again in %v", again)
	}
	clock.Step(conditionDelay)
	reconcileGate(t, g)
	if c := routed(get(t, g, "fork")); c.Reason != "RouterNotConnected" || !c.LastTransitionTime.Equal(&since) {
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
