package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/proxy"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// drainTime is how long requests in flight may take after the router was asked to end. The kubelet ends it last, after
// the app's containers, within the pod's remaining grace period.
const drainTime = 25 * time.Second

// Run serves according to c until ctx is done, completes what is in flight, and returns nil. It fails if it cannot
// listen.
func Run(ctx context.Context, c Config, log *slog.Logger) error {
	r := newRouter(&c, log)
	if err := r.listen(ctx); err != nil {
		return err
	}
	return r.run(ctx)
}

// router is one running router.
type router struct {
	config    *Config
	log       *slog.Logger
	routes    *routes
	metrics   *metrics
	control   *control
	engines   []*proxy.Engine // of each capture, of the outgoing proxy, and of each forward
	listeners []net.Listener  // of each engine
	admin     net.Listener
	began     time.Time
}

func newRouter(c *Config, log *slog.Logger) *router {
	r := &router{config: c, log: log, routes: newRoutes(c.Captures, c.StaleAfter), began: time.Now()}
	n := len(c.Captures) + len(c.Forwards)
	if c.Outgoing.IsValid() {
		n++
	}
	for range n {
		r.engines = append(r.engines, proxy.New(engine.Options{Log: log}))
	}
	r.control = newControl(c, r.routes, &state{dir: c.StateDir}, log, r.retire)
	r.metrics = newMetrics(c.Version, r.routes, r.engines, r.control.connected.Load)
	return r
}

// retire closes idle connections to backends that no table has any more.
func (r *router) retire(gone map[string]struct{}) {
	if len(gone) == 0 {
		return
	}
	for _, e := range r.engines {
		e.Retire(func(id string) bool { _, ok := gone[id]; return ok })
	}
}

// listen opens all listeners, or none.
func (r *router) listen(ctx context.Context) error {
	var lc net.ListenConfig
	open := func(addr string) (net.Listener, error) {
		l, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			r.close()
		}
		return l, err
	}
	for _, c := range r.config.Captures {
		l, err := open(":" + strconv.Itoa(int(c.Listen)))
		if err != nil {
			return fmt.Errorf("can't listen for port %q: %w", c.Name, err)
		}
		r.listeners = append(r.listeners, l)
	}
	if r.config.Outgoing.IsValid() {
		l, err := open(r.config.Outgoing.String())
		if err != nil {
			return fmt.Errorf("can't listen for outgoing requests: %w", err)
		}
		r.listeners = append(r.listeners, l)
	}
	for _, f := range r.config.Forwards {
		l, err := open(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), f.Listen).String())
		if err != nil {
			return fmt.Errorf("can't listen for requests to %s: %w", f.Service, err)
		}
		r.listeners = append(r.listeners, l)
	}
	if r.config.Admin != "" {
		l, err := open(r.config.Admin)
		if err != nil {
			return fmt.Errorf("can't listen for %s: %w", sandbox.EnvRouterAdmin, err)
		}
		r.admin = l
	}
	return nil
}

func (r *router) close() {
	for _, l := range r.listeners {
		_ = l.Close()
	}
}

// decide returns the function that creates the Deciders of the i-th listener's connections.
func (r *router) decide(i int) func(net.Conn) engine.Decider {
	if i < len(r.config.Captures) {
		capture := r.config.Captures[i]
		return func(conn net.Conn) engine.Decider {
			return newInbound(r.routes, r.metrics, r.config, capture, conn.LocalAddr())
		}
	}
	s := stamp{Carriers: r.config.Carriers, key: r.config.Key, metrics: r.metrics}
	if i -= len(r.listeners) - len(r.config.Forwards); i >= 0 {
		f := newForward(r.config.Forwards[i], r.metrics, s)
		return func(net.Conn) engine.Decider { return f }
	}
	return func(conn net.Conn) engine.Decider {
		self := r.config.Outgoing
		if a, ok := conn.LocalAddr().(*net.TCPAddr); ok {
			self = a.AddrPort()
		}
		return &outgoing{metrics: r.metrics, self: self, stamp: s}
	}
}

func (r *router) run(ctx context.Context) error {
	r.control.restore()
	var pool sync.WaitGroup
	serving, stop := context.WithCancel(context.WithoutCancel(ctx)) // it continues while requests in flight complete
	defer stop()
	if len(r.config.Control) > 0 {
		pool.Go(func() { r.control.run(serving) })
	}
	admin := &http.Server{Handler: r.adminHandler(), ReadHeaderTimeout: 10 * time.Second}
	if r.admin != nil {
		pool.Go(func() {
			if err := admin.Serve(r.admin); !errors.Is(err, http.ErrServerClosed) {
				r.log.Error("metrics and health are not served any more", "error", err)
			}
		})
	}
	for i, l := range r.listeners {
		pool.Go(func() { _ = r.engines[i].Serve(serving, l, r.decide(i)) })
	}
	r.log.Info("serving", "ports", sandbox.FormatCaptures(r.config.Captures), "outgoing", r.config.Outgoing.IsValid(), "forwards", sandbox.FormatForwards(r.config.Forwards),
		"version", r.config.Version)
	<-ctx.Done()
	r.log.Info("draining")
	r.close()
	draining, cancel := context.WithTimeout(serving, drainTime)
	defer cancel()
	var drains sync.WaitGroup
	for _, e := range r.engines {
		drains.Go(func() { e.Drain(draining) })
	}
	drains.Wait()
	if len(r.config.Control) > 0 {
		r.control.handOver()
	}
	stop()
	_ = admin.Close()
	pool.Wait()
	r.report()
	return nil
}

// report writes what a check's router sent, for whoever judges the check. If the pod is deleted, there is no report.
func (r *router) report() {
	if r.config.Report == "" {
		return
	}
	b, err := json.Marshal(r.metrics.sent())
	if err == nil {
		err = os.WriteFile(r.config.Report, b, 0o600)
	}
	if err != nil {
		r.log.Error("what was sent can't be reported", "error", err)
	}
}

// adminHandler serves metrics and health. The startup probe uses ready: it delays the app's start until the router has
// a table, for a bounded time, since no pod's start may depend on the control plane.
func (r *router) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", r.metrics.handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if why := r.notReady(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	return mux
}

func (r *router) notReady() string {
	if len(r.config.Captures) == 0 || len(r.config.Control) == 0 || time.Since(r.began) >= r.config.FirstWait {
		return ""
	}
	select {
	case <-r.control.first:
		return ""
	default:
		return "waiting for the first table"
	}
}
