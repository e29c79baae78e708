package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/lifecycle"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/telemetry"
)

// control runs what needs the lease, or caches of the whole cluster: route tables and controllers. It is separate from
// admission, so that a slow or unavailable API server, or a lost lease, does not stop a replica from admitting pods.
// Pods that are created at such a moment would never get a router.
type control struct {
	config  *rest.Config
	options Options
	bundle  func() []byte
	metrics *telemetry.Set
	log     logr.Logger
	current atomic.Pointer[term]
}

// A term is the time until the lease is lost, with what runs in it.
type term struct {
	routes  *routes.Server
	handler http.Handler
	pods    client.Reader // a cache
}

// ServeHTTP serves the route stream.
func (c *control) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t := c.current.Load()
	if t == nil {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "starting", http.StatusServiceUnavailable)
		return
	}
	t.handler.ServeHTTP(w, r)
}

// state returns the metrics' view of sandboxes and routers; false unless this replica holds the lease.
func (c *control) state() (telemetry.State, bool) {
	t := c.current.Load()
	if t == nil {
		return telemetry.State{}, false
	}
	return t.routes.State(context.Background()) // reads caches only
}

// namedWait is how long a review of a Service waits until pods are listed. That only takes time after a start.
const namedWait = 200 * time.Millisecond

// named reports whether all pods that a Service selects are known to have the names of its targetPorts.
func (c *control) named(s *corev1.Service) bool {
	t := c.current.Load()
	if t == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), namedWait)
	defer cancel()
	return lifecycle.Named(ctx, t.pods, s)
}

// trust passes on a new bundle.
func (c *control) trust(bundle []byte) {
	if t := c.current.Load(); t != nil {
		if err := t.routes.SetTrust(bundle); err != nil {
			c.log.Error(err, "tell routers what to trust")
		}
	}
}

// run starts a new term whenever the lease was lost, until ctx ends or something else fails.
func (c *control) run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := c.term(ctx)
		c.current.Store(nil)
		if err != nil && !errors.Is(err, errLeaseLost) {
			return err
		}
		if err != nil {
			c.log.Error(err, "start anew")
		}
	}
	return nil
}

func (c *control) term(ctx context.Context) error {
	lease := types.NamespacedName{Namespace: c.options.Namespace, Name: c.options.Lease}
	byObject := routes.CacheOptions()
	maps.Copy(byObject, lifecycle.CacheOptions())
	byObject[&coordinationv1.Lease{}] = cache.ByObject{
		Namespaces: map[string]cache.Config{lease.Namespace: {}},
		Field:      fields.OneTermEqualSelector("metadata.name", lease.Name),
	}
	mgr, err := manager.New(c.config, manager.Options{
		Logger:                 c.log,
		MapperProvider:         c.options.resources,
		Cache:                  cache.Options{ByObject: byObject, ReaderFailOnMissingInformer: true},
		Metrics:                metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress: "0",
	})
	if err != nil {
		return fmt.Errorf("set up controllers: %w", err)
	}
	if err := routes.Index(ctx, mgr.GetCache()); err != nil {
		return err
	}
	if err := lifecycle.Index(ctx, mgr.GetCache()); err != nil {
		return err
	}
	identity := routes.Identity(net.JoinHostPort(c.options.PodIP, strconv.Itoa(c.options.RoutesPort)))
	leader, err := newElection(c.config, lease, identity)
	if err != nil {
		return err
	}
	server := routes.NewServer(routes.Options{
		Cache: mgr.GetCache(), API: mgr.GetAPIReader(), Client: mgr.GetClient(),
		Lease: lease, Identity: identity, Log: c.log.WithName("routes"), Clock: clock.RealClock{},
		StaleAfter: c.options.RouterStaleAfter, Metrics: c.metrics,
	})
	runnables, err := lifecycle.Runnables(lifecycle.Options{
		Hub: server.Hub, Cache: mgr.GetCache(), Client: mgr.GetClient(), PodCache: c.podCache(mgr),
		API: mgr.GetAPIReader(), FollowKinds: c.options.followKinds(),
		Events: mgr.GetEventRecorder("kubectl-sandbox"), Clock: clock.RealClock{}, Log: c.log.WithName("lifecycle"),
		WarnBefore: c.options.WarnBefore, StaleAfter: c.options.RouterStaleAfter, Metrics: c.metrics,
	})
	if err != nil {
		return err
	}
	for _, r := range append(runnables, server) {
		if needs, ok := r.(manager.LeaderElectionRunnable); !ok || needs.NeedLeaderElection() {
			leader.members = append(leader.members, r)
		} else if err := mgr.Add(r); err != nil {
			return err
		}
	}
	if err := mgr.Add(leader); err != nil {
		return err
	}
	c.current.Store(&term{server, server.Handler(), mgr.GetCache()})
	if bundle := c.bundle(); bundle != nil {
		c.trust(bundle)
	}
	return mgr.Start(ctx)
}

func (c *control) podCache(mgr manager.Manager) func(cache.Options) (cache.Cache, error) {
	return func(o cache.Options) (cache.Cache, error) {
		o.Scheme, o.Mapper, o.HTTPClient = mgr.GetScheme(), mgr.GetRESTMapper(), mgr.GetHTTPClient()
		return cache.New(c.config, o)
	}
}
