package routes

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/counts"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/telemetry"
)

// Options are the dependencies and settings of a Hub.
type Options struct {
	Cache    cache.Cache          // with CacheOptions and Index, and the Lease
	API      client.Reader        // for reads that bypass the cache
	Client   client.Client        // for writes
	Lease    types.NamespacedName // the lease whose holder serves
	Identity string               // of this process: see Identity
	Log      logr.Logger
	Clock    clock.WithTicker
	// StaleAfter is the age at which routers stop using their tables.
	StaleAfter time.Duration
	Metrics    *telemetry.Set // may be nil
}

// A Server is a Hub that is bound to a lease. It serves streams in every replica, and tables in the one that holds the
// lease. It is a manager.Runnable and a manager.LeaderElectionRunnable.
type Server struct {
	*Hub
	opts  Options
	since time.Time // when it began to serve; set before Hub.serving is closed
}

// NewServer returns a Server. Its tables are built by Start.
func NewServer(o Options) *Server {
	s := &Server{Hub: newHub(cacheState{o.Cache}, o.Clock), opts: o}
	s.lag.metrics = o.Metrics
	return s
}

// NeedLeaderElection returns true: only the lease's holder may call Start.
func (*Server) NeedLeaderElection() bool { return true }

// Handler returns the handler of the route stream, for every replica. It needs HTTP/2, and a server without timeouts
// for reading and writing.
func (s *Server) Handler() http.Handler {
	return &streamHandler{
		hub: s.Hub, gate: newTokenGate(s.opts.Cache, s.opts.Client), holder: s.holder, clock: s.opts.Clock, log: s.opts.Log,
	}
}

// holder returns the address of the route stream of the replica that holds the lease; empty if there is none, or if it
// is this one.
func (s *Server) holder(ctx context.Context) string {
	var l coordinationv1.Lease
	if err := s.opts.Cache.Get(ctx, s.opts.Lease, &l); err != nil {
		return ""
	}
	identity := holder(&l, s.opts.Clock.Now())
	if identity == s.opts.Identity {
		return "" // ours, but not ready to serve yet
	}
	return address(identity)
}

// Start serves tables until ctx ends, which is when the lease is lost. A Server cannot be started again.
func (s *Server) Start(ctx context.Context) error {
	defer close(s.stopped)
	var lease coordinationv1.Lease
	if err := s.opts.API.Get(ctx, s.opts.Lease, &lease); err != nil {
		return fmt.Errorf("read the lease: %w", err)
	}
	if id := ptr.Deref(lease.Spec.HolderIdentity, ""); id != s.opts.Identity {
		return fmt.Errorf("lease %s is held by %q, not by this process", s.opts.Lease, id)
	}
	start := s.opts.Clock.Now()
	if err := s.catchUp(ctx); err != nil {
		return fmt.Errorf("wait for caches as new as the lease: %w", err)
	}
	if err := s.loadRuns(ctx); err != nil {
		return err
	}
	builds, err := s.builds()
	if err != nil {
		return err
	}
	both := counted{s.Hub, s.opts.Cache}
	counting, err := counts.NewController(counts.ControllerOptions{
		Cache: s.opts.Cache, Client: s.opts.Client, Routers: both, Objects: both, Metrics: s.opts.Metrics, Log: s.opts.Log,
	})
	if err != nil {
		return err
	}
	s.since = s.opts.Clock.Now()
	s.serve(term(&lease))
	s.opts.Log.Info("serving routes", "term", term(&lease), "caughtUpIn", s.opts.Clock.Since(start).Round(time.Millisecond).String())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return builds.Start(ctx) })
	g.Go(func() error { return counting.Start(ctx) })
	return g.Wait()
}

// A forkID identifies a fork; without a sandbox, a baseline's neighbours.
type forkID struct {
	Baseline
	Sandbox string
}

// builds returns the controller that rebuilds the route of a fork when an object that it depends on changes.
func (s *Server) builds() (controller.TypedController[forkID], error) {
	c, err := controller.NewTypedUnmanaged("routes", controller.TypedOptions[forkID]{
		Logger:                  s.opts.Log,
		SkipNameValidation:      ptr.To(true), // a process that lost the lease starts new controllers
		MaxConcurrentReconciles: 4,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[forkID](5*time.Millisecond, 5*time.Second),
		Reconciler: telemetry.Watch(s.opts.Metrics, "routes", reconcile.TypedFunc[forkID](func(ctx context.Context, f forkID) (reconcile.Result, error) {
			if f.Sandbox == all {
				return reconcile.Result{}, s.regroup(ctx, f.Baseline)
			}
			if err := s.rebuild(ctx, f.Baseline, f.Sandbox); err != nil {
				return reconcile.Result{}, err
			}
			return reconcile.Result{}, s.spread(ctx, f.Baseline, f.Sandbox)
		})),
	})
	if err != nil {
		return nil, err
	}
	err = c.Watch(source.TypedKind(s.opts.Cache, &appsv1.Deployment{}, enqueue[*appsv1.Deployment]()))
	if err != nil {
		return nil, err
	}
	err = c.Watch(source.TypedKind(s.opts.Cache, replicaSet(), enqueue[*metav1.PartialObjectMetadata]()))
	if err != nil {
		return nil, err
	}
	pods := enqueue[*corev1.Pod]()
	deleted := pods.DeleteFunc
	pods.DeleteFunc = func(ctx context.Context, e event.TypedDeleteEvent[*corev1.Pod], q forkQueue) {
		if b, role := BaselineOf(e.Object); role == sandbox.RoleBaseline {
			s.forget(b, e.Object.UID)
		}
		deleted(ctx, e, q)
	}
	if err := c.Watch(source.TypedKind(s.opts.Cache, &corev1.Pod{}, pods)); err != nil {
		return nil, err
	}
	if err := c.Watch(source.TypedKind(s.opts.Cache, &corev1.Pod{}, regroups(s.Hub, membership))); err != nil {
		return nil, err
	}
	return c, c.Watch(source.TypedKind(s.opts.Cache, &corev1.Service{}, regroups(s.Hub, leads)))
}

type forkQueue = workqueue.TypedRateLimitingInterface[forkID]

// enqueue enqueues the fork that an object belongs to.
func enqueue[T client.Object]() handler.TypedFuncs[T, forkID] {
	add := func(o client.Object, q forkQueue) {
		b, role := BaselineOf(o)
		if name := o.GetLabels()[sandbox.LabelSandbox]; role == sandbox.RoleFork && b.Workload != "" && name != "" {
			q.Add(forkID{b, name})
		}
	}
	return handler.TypedFuncs[T, forkID]{
		CreateFunc: func(_ context.Context, e event.TypedCreateEvent[T], q forkQueue) { add(e.Object, q) },
		UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[T], q forkQueue) {
			add(e.ObjectOld, q)
			add(e.ObjectNew, q)
		},
		DeleteFunc: func(_ context.Context, e event.TypedDeleteEvent[T], q forkQueue) { add(e.Object, q) },
	}
}
