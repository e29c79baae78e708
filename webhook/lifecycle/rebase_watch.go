package lifecycle

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/telemetry"
)

// BuiltInKinds are the kinds of baselines that forks can follow in every cluster.
func BuiltInKinds() []schema.GroupVersionKind {
	var kinds []schema.GroupVersionKind
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"} {
		kinds = append(kinds, appsv1.SchemeGroupVersion.WithKind(kind))
	}
	return kinds
}

func newRebaser(o Options) (manager.Runnable, error) {
	f := &rebaser{
		forks: o.Cache, api: o.API, client: o.Client, events: o.Events, clock: o.Clock, log: o.Log.WithName("follow"),
		kinds: append(BuiltInKinds(), o.FollowKinds...), done: map[types.UID]string{},
	}
	c, err := controller.NewTypedUnmanaged("follow", controller.TypedOptions[baselineKey]{
		Logger: o.Log, SkipNameValidation: ptr.To(true), MaxConcurrentReconciles: 4,
		Reconciler: telemetry.Watch(o.Metrics, "follow", f),
	})
	if err != nil {
		return nil, err
	}
	f.controller = c
	f.watches = &watches{
		controller: c, open: map[watched]*watching{}, log: f.log,
		newCache: func(gvk schema.GroupVersionKind, namespace string) (cache.Cache, error) {
			return o.PodCache(cache.Options{
				DefaultNamespaces: map[string]cache.Config{namespace: {}},
				ByObject:          map[client.Object]cache.ByObject{metadataOf(gvk): {Label: notForks(), Transform: stripBaseline}},
			})
		},
	}
	return f, c.Watch(source.TypedKind(o.Cache, &appsv1.Deployment{}, enqueueFollowed(f)))
}

type queue = workqueue.TypedRateLimitingInterface[baselineKey]

// enqueueFollowed enqueues the baseline of a new, changed or deleted fork. On a change it enqueues the previous
// baseline as well.
func enqueueFollowed(f *rebaser) handler.TypedFuncs[*appsv1.Deployment, baselineKey] {
	add := func(d *appsv1.Deployment, q queue) {
		if b, ok := followedBaseline(d); ok {
			q.Add(b)
		}
	}
	return handler.TypedFuncs[*appsv1.Deployment, baselineKey]{
		CreateFunc: func(_ context.Context, e event.TypedCreateEvent[*appsv1.Deployment], q queue) { add(e.Object, q) },
		UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[*appsv1.Deployment], q queue) {
			if e.ObjectOld.Generation != e.ObjectNew.Generation || !maps.Equal(userAnnotations(e.ObjectOld), userAnnotations(e.ObjectNew)) {
				add(e.ObjectOld, q)
				add(e.ObjectNew, q)
			}
		},
		DeleteFunc: func(_ context.Context, e event.TypedDeleteEvent[*appsv1.Deployment], q queue) {
			f.forget(e.Object.UID)
			d := e.Object.DeepCopy()
			d.DeletionTimestamp = nil
			add(d, q)
		},
	}
}

// userAnnotations returns the annotations of a fork without those that the controller writes.
func userAnnotations(d *appsv1.Deployment) map[string]string {
	a := maps.Clone(d.Annotations)
	delete(a, sandbox.AnnotationFollowed)
	delete(a, sandbox.AnnotationRetriedAt)
	return a
}

// watches holds one metadata watch for each kind and namespace of followed baselines.
type watches struct {
	controller controller.TypedController[baselineKey]
	newCache   func(schema.GroupVersionKind, string) (cache.Cache, error)
	log        logr.Logger
	ctx        context.Context // ends when the rebaser does

	mu   sync.Mutex
	open map[watched]*watching
}

type watched struct {
	schema.GroupVersionKind
	namespace string
}

type watching struct {
	cache.Cache
	stop context.CancelFunc
	of   map[baselineKey]bool // the baselines that forks follow
}

// watch starts the watch of a baseline if there is none, and waits until it is synced.
func (w *watches) watch(ctx context.Context, gvk schema.GroupVersionKind, b baselineKey) error { //nolint:contextcheck // the watch outlives this call
	at := watched{gvk, b.namespace}
	w.mu.Lock()
	open := w.open[at]
	if open == nil {
		c, err := w.newCache(gvk, b.namespace)
		if err == nil {
			_, err = c.GetInformer(ctx, metadataOf(gvk), cache.BlockUntilSynced(false))
		}
		if err == nil {
			err = w.controller.Watch(baselineSource{source.TypedKind(c, metadataOf(gvk), baselines()), at})
		}
		if err != nil {
			w.mu.Unlock()
			return fmt.Errorf("watch %s of namespace %s: %w", gvk.Kind, b.namespace, err)
		}
		ctx, stop := context.WithCancel(w.ctx)
		open = &watching{c, stop, map[baselineKey]bool{}}
		w.open[at] = open
		go func() {
			if err := c.Start(ctx); err != nil {
				w.log.Error(err, "watch of baselines ended", "kind", gvk.Kind, "namespace", b.namespace)
			}
		}()
	}
	open.of[b] = true
	w.mu.Unlock()
	if !open.WaitForCacheSync(ctx) {
		return fmt.Errorf("%s of namespace %s are not listed yet", gvk.Kind, b.namespace)
	}
	return nil
}

// release ends the watch of a baseline's kind and namespace once no fork follows any baseline there.
func (w *watches) release(gvk schema.GroupVersionKind, b baselineKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	at := watched{gvk, b.namespace}
	open := w.open[at]
	if open == nil {
		return
	}
	delete(open.of, b)
	if len(open.of) == 0 {
		open.stop()
		delete(w.open, at)
	}
}

// A baselineSource is a source with a readable name in the logs.
type baselineSource struct {
	source.TypedSource[baselineKey]
	watched
}

// MarshalText returns the name of the source.
func (s baselineSource) MarshalText() ([]byte, error) {
	return []byte("baselines of kind " + s.Kind + " in namespace " + s.namespace), nil
}

// baselines enqueues baselines that are new, or whose generation or uid changed.
func baselines() handler.TypedFuncs[*metav1.PartialObjectMetadata, baselineKey] {
	add := func(m *metav1.PartialObjectMetadata, q queue) {
		q.Add(baselineKey{m.Namespace, fork.Ref{APIVersion: m.APIVersion, Kind: strings.ToLower(m.Kind), Name: m.Name}})
	}
	return handler.TypedFuncs[*metav1.PartialObjectMetadata, baselineKey]{
		CreateFunc: func(_ context.Context, e event.TypedCreateEvent[*metav1.PartialObjectMetadata], q queue) {
			add(e.Object, q)
		},
		UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[*metav1.PartialObjectMetadata], q queue) {
			if e.ObjectOld.Generation != e.ObjectNew.Generation || e.ObjectOld.UID != e.ObjectNew.UID {
				add(e.ObjectNew, q)
			}
		},
	}
}

func metadataOf(gvk schema.GroupVersionKind) *metav1.PartialObjectMetadata {
	m := &metav1.PartialObjectMetadata{}
	m.SetGroupVersionKind(gvk)
	return m
}

// notForks selects everything but forks, so that the cost of a watch does not grow with the number of sandboxes.
func notForks() labels.Selector {
	r, err := labels.NewRequirement(sandbox.LabelRole, selection.NotIn, []string{sandbox.RoleFork})
	if err != nil {
		panic(err) // only if the constants are invalid
	}
	return labels.NewSelector().Add(*r)
}

// stripBaseline keeps the metadata that identifies a baseline and shows that it changed.
func stripBaseline(o any) (any, error) {
	m, ok := o.(*metav1.PartialObjectMetadata)
	if !ok {
		return o, nil // a tombstone
	}
	return &metav1.PartialObjectMetadata{TypeMeta: m.TypeMeta, ObjectMeta: metav1.ObjectMeta{
		Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion, Generation: m.Generation,
	}}, nil
}
