package lifecycle

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllertest"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// feed is an informer whose events a test sends, while handlers are added.
type feed struct {
	*controllertest.FakeInformer
	mu sync.Mutex
}

func (f *feed) AddEventHandlerWithOptions(h toolscache.ResourceEventHandler, o toolscache.HandlerOptions) (
	toolscache.ResourceEventHandlerRegistration, error,
) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.FakeInformer.AddEventHandlerWithOptions(h, o)
}

// fakeCache reads from a client, and has a feed for each kind that is watched.
type fakeCache struct {
	client.Reader
	mu      sync.Mutex
	feeds   map[schema.GroupVersionKind]*feed
	indices []string
	stopped bool
}

func newFakeCache(c client.Reader) *fakeCache {
	return &fakeCache{Reader: c, feeds: map[schema.GroupVersionKind]*feed{}}
}

func (c *fakeCache) GetInformer(_ context.Context, o client.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	gvk, err := apiutil.GVKForObject(o, scheme.Scheme)
	if err != nil {
		return nil, err
	}
	return c.feed(gvk), nil
}

func (c *fakeCache) GetInformerForKind(_ context.Context, gvk schema.GroupVersionKind, _ ...cache.InformerGetOption) (cache.Informer, error) {
	return c.feed(gvk), nil
}

func (c *fakeCache) feed(gvk schema.GroupVersionKind) *feed {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.feeds[gvk] == nil {
		c.feeds[gvk] = &feed{FakeInformer: controllertest.NewFakeInformer(controllertest.Synced)}
	}
	return c.feeds[gvk]
}

func (*fakeCache) RemoveInformer(context.Context, client.Object) error { return nil }
func (*fakeCache) WaitForCacheSync(context.Context) bool               { return true }

func (c *fakeCache) IndexField(_ context.Context, _ client.Object, field string, _ client.IndexerFunc) error {
	c.indices = append(c.indices, field)
	return nil
}

func (c *fakeCache) Start(ctx context.Context) error {
	<-ctx.Done()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
	return nil
}

func (c *fakeCache) isStopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopped
}

// wired is a controller, as it is wired, over a cluster of objects.
type wired struct {
	*testing.T
	client client.Client
	cache  *fakeCache
	events *events.FakeRecorder
	now    time.Time
	mu     sync.Mutex
	opened map[string]*fakeCache // by namespace: those that the controller opened itself
}

// wire runs the controller that build makes.
func wire(t *testing.T, build func(Options) (manager.Runnable, error), objects ...client.Object) *wired {
	c := fake.NewClientBuilder().WithObjects(objects...).WithStatusSubresource(&corev1.Pod{}).
		WithIndex(&appsv1.Deployment{}, "sandbox-name", func(o client.Object) []string { return []string{o.GetLabels()[sandbox.LabelSandbox]} }).
		WithIndex(&appsv1.Deployment{}, "sandbox-baseline", func(o client.Object) []string {
			l := o.GetLabels()
			at := l[sandbox.LabelRole] + "/" + l[sandbox.LabelWorkload]
			return []string{at, at + "/" + l[sandbox.LabelSandbox]}
		}).Build()
	w := &wired{
		T: t, client: c, cache: newFakeCache(c), events: events.NewFakeRecorder(100), now: time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC),
		opened: map[string]*fakeCache{},
	}
	r, err := build(w.options())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	over := make(chan error)
	go func() { over <- r.Start(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-over; err != nil {
			t.Errorf("the controller ended with %v", err)
		}
	})
	return w
}

func (w *wired) options() Options {
	hub := routes.NewServer(routes.Options{Clock: clocktesting.NewFakeClock(w.now)}).Hub
	return Options{
		Hub: hub, Cache: w.cache, Client: w.client, API: w.client, Events: w.events, Clock: clocktesting.NewFakeClock(w.now), Log: logr.Discard(),
		PodCache: func(o cache.Options) (cache.Cache, error) {
			c := newFakeCache(w.client)
			w.mu.Lock()
			defer w.mu.Unlock()
			for namespace := range o.DefaultNamespaces {
				w.opened[namespace] = c
			}
			return c, nil
		},
		StaleAfter: 15 * time.Minute, WarnBefore: 10 * time.Minute,
	}
}

// opens returns the cache of namespace shop that the controller opened; nil: it opened none.
func (w *wired) opens() *fakeCache {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.opened["shop"]
}

// tell sends events to the watches of object o's kind in c, until ok. It repeats them, because an event before a
// handler is added reaches nobody: unlike a real informer, a feed lists nothing to new handlers.
func (w *wired) tell(c *fakeCache, o client.Object, send func(*feed), what string, ok func() bool) {
	w.Helper()
	i, err := c.GetInformer(w.Context(), o)
	if err != nil {
		w.Fatal(err)
	}
	f := i.(*feed)
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.Fatalf("waited in vain until %s", what)
		}
		f.mu.Lock()
		send(f)
		f.mu.Unlock()
	}
}

// added sends the event of a new object.
func (w *wired) added(o client.Object, what string, ok func() bool) {
	w.Helper()
	w.tell(w.cache, o, func(f *feed) { f.Add(o) }, what, ok)
}

// get reads an object again. False: it does not exist.
func (w *wired) get(o client.Object) bool {
	w.Helper()
	err := w.client.Get(w.Context(), client.ObjectKeyFromObject(o), o)
	if err != nil && !apierrors.IsNotFound(err) {
		w.Fatal(err)
	}
	return err == nil
}

func TestRunnables(t *testing.T) {
	c := newFakeCache(fake.NewClientBuilder().Build())
	if err := Index(t.Context(), c); err != nil || len(c.indices) != 1 || c.indices[0] != indexWaiting {
		t.Errorf("indices %q (%v)", c.indices, err)
	}
	w := &wired{T: t, client: fake.NewClientBuilder().Build(), cache: c, events: events.NewFakeRecorder(1), now: time.Now()}
	all, err := Runnables(w.options())
	if err != nil || len(all) != 7 {
		t.Fatalf("%d controllers (%v)", len(all), err)
	}
	replicas := 0 // that run where the lease is not held
	for _, r := range all {
		if l, ok := r.(manager.LeaderElectionRunnable); ok && !l.NeedLeaderElection() {
			replicas++
		}
	}
	if replicas != 1 { // the guard
		t.Errorf("%d controllers run in every replica", replicas)
	}
	for o := range CacheOptions() {
		if _, service := o.(*corev1.Service); !service {
			if _, policy := o.(*networkingv1.NetworkPolicy); !policy {
				t.Errorf("%T is cached", o)
			}
		}
	}
}

func TestExpiry_isToldOfSandboxes(t *testing.T) {
	cm := sandboxMap("pr-1", "2026-01-02T11:00:00Z")
	w := wire(t, newExpiry, cm)
	w.added(cm, "the sandbox is gone", func() bool { return !w.get(cm.DeepCopy()) })
}

func TestAdoption_isToldOfForksPoliciesAndSandboxes(t *testing.T) {
	cm := sandboxMap("pr-1", "")
	meta := metav1.ObjectMeta{Namespace: "shop", Name: "api-pr-1", UID: "f",
		Labels: map[string]string{sandbox.LabelSandbox: "pr-1", sandbox.LabelRole: sandbox.RoleFork}}
	adopted := func(w *wired, o client.Object) func() bool {
		return func() bool {
			return w.get(o) && len(o.GetOwnerReferences()) == 1 && o.GetOwnerReferences()[0].UID == cm.UID
		}
	}
	t.Run("fork", func(t *testing.T) {
		d := &appsv1.Deployment{ObjectMeta: meta}
		w := wire(t, newAdopter, cm.DeepCopy(), d)
		w.added(d.DeepCopy(), "the fork has an owner", adopted(w, d.DeepCopy()))
	})
	t.Run("policy", func(t *testing.T) {
		p := &networkingv1.NetworkPolicy{ObjectMeta: meta}
		w := wire(t, newAdopter, cm.DeepCopy(), p)
		w.added(p.DeepCopy(), "the policy has an owner", adopted(w, p.DeepCopy()))
	})
	t.Run("sandbox that comes after its fork", func(t *testing.T) {
		d := &appsv1.Deployment{ObjectMeta: meta}
		w := wire(t, newAdopter, cm.DeepCopy(), d)
		w.added(cm.DeepCopy(), "the fork has an owner", adopted(w, d.DeepCopy()))
	})
}

func TestGuard_watchesThePodsOfASwitchedServicesNamespace(t *testing.T) {
	s := switched()
	api := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api"}}
	w := wire(t, newGuard, s, api, ofAPI("named", "http"))
	number := func() bool {
		now := s.DeepCopy()
		return w.get(now) && now.Spec.Ports[1].TargetPort.IntValue() == 8080
	}
	w.added(s.DeepCopy(), "the pods of the namespace are watched", func() bool { return w.opens() != nil })
	if number() {
		t.Fatal("the port is a number though all pods have the name")
	}
	pods := w.opens()
	nameless := ofAPI("nameless")
	if err := w.client.Create(t.Context(), nameless.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	w.tell(pods, nameless, func(f *feed) { f.Add(nameless.DeepCopy()) }, "the port is a number again", number)
	if !strings.Contains(<-w.events.Events, "nameless") {
		t.Error("no event names the pod")
	}

	// Without the mark there is nothing to guard any more, nor to watch.
	marked := s.DeepCopy()
	w.get(marked)
	unmarked := marked.DeepCopy()
	unmarked.Labels, unmarked.Annotations = nil, nil
	if err := w.client.Update(t.Context(), unmarked); err != nil {
		t.Fatal(err)
	}
	w.tell(w.cache, s, func(f *feed) { f.Update(marked.DeepCopy(), unmarked.DeepCopy()) }, "the watch has ended", pods.isStopped)
}

func TestGuard_isToldOfWorkloadsThatAreDeleted(t *testing.T) {
	s := switched()
	w := wire(t, newGuard, s)
	w.added(s.DeepCopy(), "the pods of the namespace are watched", func() bool { return w.opens() != nil })
	gone := metadataOf(appsv1.SchemeGroupVersion.WithKind("Deployment"))
	gone.Namespace, gone.Name = "shop", "api"
	w.tell(w.opens(), gone, func(f *feed) { f.Delete(gone.DeepCopy()) }, "the Service is released", func() bool {
		now := s.DeepCopy()
		return w.get(now) && now.Annotations[sandbox.AnnotationTargetPorts] == ""
	})
}

func TestFollower_watchesWhatForksFollow(t *testing.T) {
	baseline, d := followScene(t)
	w := wire(t, newRebaser, baseline.DeepCopy())
	body, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.client.Patch(t.Context(), d, client.RawPatch(types.ApplyPatchType, body), client.FieldOwner(sandbox.FieldManager)); err != nil {
		t.Fatal(err)
	}
	w.get(d)
	w.added(d.DeepCopy(), "the baseline is watched", func() bool { return w.opens() != nil })

	var now appsv1.Deployment
	now.Namespace, now.Name = baseline.Namespace, baseline.Name
	w.get(&now)
	now.Generation++
	now.Spec.Template.Spec.ServiceAccountName = "other"
	if err := w.client.Update(t.Context(), &now); err != nil {
		t.Fatal(err)
	}
	was, is := metadataOf(appsv1.SchemeGroupVersion.WithKind("Deployment")), metadataOf(appsv1.SchemeGroupVersion.WithKind("Deployment"))
	was.ObjectMeta, is.ObjectMeta = baseline.ObjectMeta, now.ObjectMeta
	watch := w.opens()
	w.tell(watch, is, func(f *feed) { f.Update(was.DeepCopy(), is.DeepCopy()) }, "the fork follows", func() bool {
		rebased := d.DeepCopy()
		return w.get(rebased) && rebased.Spec.Template.Spec.ServiceAccountName == "other"
	})

	// With the last fork, the watch goes.
	if err := w.client.Delete(t.Context(), d.DeepCopy()); err != nil {
		t.Fatal(err)
	}
	w.tell(w.cache, d, func(f *feed) { f.Delete(d.DeepCopy()) }, "the watch has ended", watch.isStopped)
}
