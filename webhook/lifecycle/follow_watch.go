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

// BuiltInKinds are the kinds of baselines that are followed in every cluster.
func BuiltInKinds() []schema.GroupVersionKind {
	var kinds []schema.GroupVersionKind
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"} {
		kinds = append(kinds, appsv1.SchemeGroupVersion.WithKind(kind))
	}
	return kinds
}

func newFollower(o Options) (manager.Runnable, error) {
	f := &follower{
		forks: o.Cache, api: o.API, client: o.Client, events: o.Events, clock: o.Clock, log: o.Log.WithName("follow"),
		kinds: append(BuiltInKinds(), o.FollowKinds...), done: map[types.UID]string{},
	}
	c, err := controller.NewTypedUnmanaged("follow", controller.TypedOptions[followed]{
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
	return f, c.Watch(source.TypedKind(o.Cache, &appsv1.Deployment{}, forksThatFollow(f)))
}

type queue = workqueue.TypedRateLimitingInterface[followed]

// forksThatFollow enqueues what a new or changed fork follows, and what one that ended or changed its mind did.
func forksThatFollow(f *follower) handler.TypedFuncs[*appsv1.Deployment, followed] {
	add := func(d *appsv1.Deployment, q queue) {
		if b, ok := follows(d); ok {
			q.Add(b)
		}
	}
	return handler.TypedFuncs[*appsv1.Deployment, followed]{
		CreateFunc: func(_ context.Context, e event.TypedCreateEvent[*appsv1.Deployment], q queue) { add(e.Object, q) },
		UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[*appsv1.Deployment], q queue) {
			if e.ObjectOld.Generation != e.ObjectNew.Generation || !maps.Equal(asked(e.ObjectOld), asked(e.ObjectNew)) {
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

// asked returns the annotations of a fork that others than the controller write.
func asked(d *appsv1.Deployment) map[string]string {
	a := maps.Clone(d.Annotations)
	delete(a, sandbox.AnnotationFollowed)
	delete(a, sandbox.AnnotationRetriedAt)
	return a
}

// watches are those of baselines' metadata, of one kind in one namespace each.
type watches struct {
	controller controller.TypedController[followed]
	newCache   func(schema.GroupVersionKind, string) (cache.Cache, error)
	log        logr.Logger
	ctx        context.Context // ends when the follower does

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
	of   map[followed]bool // the baselines that are followed
}

// watch begins to watch a baseline, unless it is watched, and waits until it is.
func (w *watches) watch(ctx context.Context, gvk schema.GroupVersionKind, b followed) error { //nolint:contextcheck // the watch outlives this call
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
		open = &watching{c, stop, map[followed]bool{}}
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

// release ends the watch of a baseline that is not followed any more, with the last of its kind and namespace.
func (w *watches) release(gvk schema.GroupVersionKind, b followed) {
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

// A baselineSource is named in the logs.
type baselineSource struct {
	source.TypedSource[followed]
	watched
}

// MarshalText names the source.
func (s baselineSource) MarshalText() ([]byte, error) {
	return []byte("baselines of kind " + s.Kind + " in namespace " + s.namespace), nil
}

// baselines enqueues baselines that are new, or whose spec changed.
func baselines() handler.TypedFuncs[*metav1.PartialObjectMetadata, followed] {
	add := func(m *metav1.PartialObjectMetadata, q queue) {
		q.Add(followed{m.Namespace, fork.Ref{APIVersion: m.APIVersion, Kind: strings.ToLower(m.Kind), Name: m.Name}})
	}
	return handler.TypedFuncs[*metav1.PartialObjectMetadata, followed]{
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

// notForks selects all but forks: the number of sandboxes makes no watch dearer.
func notForks() labels.Selector {
	r, err := labels.NewRequirement(sandbox.LabelRole, selection.NotIn, []string{sandbox.RoleFork})
	if err != nil {
		panic(err) // constants that do not parse
	}
	return labels.NewSelector().Add(*r)
}

// stripBaseline keeps of a baseline's metadata what tells that it changed.
func stripBaseline(o any) (any, error) {
	m, ok := o.(*metav1.PartialObjectMetadata)
	if !ok {
		return o, nil // a tombstone
	}
	return &metav1.PartialObjectMetadata{TypeMeta: m.TypeMeta, ObjectMeta: metav1.ObjectMeta{
		Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion, Generation: m.Generation,
	}}, nil
}
