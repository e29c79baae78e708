package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/engine/proxy"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/preview"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// handshakeTimeout bounds a client's TLS handshake.
const handshakeTimeout = 10 * time.Second

// maxHead is the longest request head, in bytes, that is accepted from outside.
const maxHead = 64 << 10

// A Gateway serves previews. Create it with New.
type Gateway struct {
	options Options
	handler *handler
	engine  *proxy.Engine
	log     *slog.Logger
	certs   *certwatcher.CertWatcher // nil: no TLS

	synced, draining atomic.Bool
}

// New returns a gateway that reads from reader, a cache with CacheOptions and Index.
func New(o Options, reader client.Reader, log *slog.Logger) (*Gateway, error) {
	e := proxy.New(engine.Options{Log: log, MaxHead: maxHead, HeadTimeout: 20 * time.Second, IdleTimeout: o.IdleTimeout})
	var dialer net.Dialer
	g := &Gateway{options: o, engine: e, log: log, handler: &handler{
		directory: newDirectory(reader, time.Now), renderer: new(preview.Renderer), metrics: newMetrics(o.Version, &e.Stats), log: log, now: time.Now,
		dial:   func(ctx context.Context, addr string) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", addr) },
		domain: o.Domain, carriers: route.Carriers{Header: o.KeyHeader, Member: o.KeyMember}, behind: o.BehindProxy, ribbon: o.Ribbon,
	}}
	g.handler.synced = &g.synced
	if o.PasswordFile != "" {
		password, err := os.ReadFile(o.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("--proxy-password-file: %w", err)
		}
		if g.handler.password = strings.TrimSpace(string(password)); len(g.handler.password) < 16 {
			return nil, fmt.Errorf("--proxy-password-file: %s holds no password of at least 16 characters", o.PasswordFile)
		}
	}
	if o.CertificatesDir != "" {
		var err error
		if g.certs, err = certwatcher.New(filepath.Join(o.CertificatesDir, "tls.crt"), filepath.Join(o.CertificatesDir, "tls.key")); err != nil {
			return nil, fmt.Errorf("--certificates-dir: %w", err)
		}
	}
	return g, nil
}

// Run serves until ctx is done, and then until requests in flight have ended or time is up. It fails if it cannot
// listen, or if the cache cannot be filled.
func (g *Gateway) Run(ctx context.Context, c cache.Cache) error {
	if err := g.handler.directory.watch(ctx, c); err != nil {
		return err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", g.options.Address)
	if err != nil {
		return fmt.Errorf("--address: %w", err)
	}
	defer l.Close() //nolint:errcheck // closed before, or unused
	admin, err := lc.Listen(ctx, "tcp", g.options.AdminAddress)
	if err != nil {
		return fmt.Errorf("--admin-address: %w", err)
	}
	// ctx may end before endpoints and kube-proxy know: serve requests that still arrive.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	var pool sync.WaitGroup
	defer pool.Wait()
	defer stop()
	if g.certs != nil {
		pool.Go(func() {
			if err := g.certs.Start(serving); err != nil {
				g.log.Error("certificates are not read anew any more", "error", err)
			}
		})
	}
	server := &http.Server{Handler: g.adminHandler(), ReadHeaderTimeout: handshakeTimeout}
	defer server.Close() //nolint:errcheck // nothing to do about it
	pool.Go(func() {
		if err := server.Serve(admin); !errors.Is(err, http.ErrServerClosed) {
			g.log.Error("metrics and health are not served any more", "error", err)
		}
	})
	failed := make(chan error, 1)
	pool.Go(func() {
		if err := c.Start(serving); err != nil {
			failed <- fmt.Errorf("watch the cluster: %w", err)
		}
	})
	pool.Go(func() { g.synced.Store(c.WaitForCacheSync(serving)) })
	pool.Go(func() { g.accept(serving, netutil.LimitListener(l, g.options.MaxConnections)) })
	g.log.Info("serving previews", "domain", g.options.Domain, "address", l.Addr(), "tls", g.certs != nil, "version", g.options.Version)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	g.draining.Store(true)
	g.log.Info("stopping", "in", g.options.ShutdownDelay)
	time.Sleep(g.options.ShutdownDelay)
	_ = l.Close()
	draining, cancel := context.WithTimeout(serving, g.options.DrainTime)
	defer cancel()
	g.engine.Drain(draining)
	return nil
}

// accept serves the connections to l, until l is closed.
func (g *Gateway) accept(ctx context.Context, l net.Listener) {
	var pause time.Duration
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			go g.serve(ctx, conn)
		case errors.Is(err, net.ErrClosed):
			return
		default: // out of descriptors, or the client has disconnected already
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			g.log.Warn("accept failed", "error", err, "pause", pause)
			time.Sleep(pause)
		}
	}
}

func (g *Gateway) serve(ctx context.Context, conn net.Conn) {
	c := &connection{handler: g.handler}
	if a, err := netip.ParseAddrPort(conn.RemoteAddr().String()); err == nil {
		c.client = a.Addr()
	}
	if g.certs != nil {
		secure := tls.Server(conn, &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: g.configFor})
		handshake, cancel := context.WithTimeout(ctx, handshakeTimeout)
		err := secure.HandshakeContext(handshake)
		cancel()
		if err != nil {
			_ = conn.Close()
			return
		}
		conn, c.tls = secure, true
	}
	g.engine.ServeConn(ctx, conn, c)
}

// configFor negotiates the protocol that the Service speaks. The gateway forwards HTTP/1.1 and HTTP/2 without
// conversion, so a browser must not speak HTTP/2 to a Service that does not. A client that speaks only HTTP/2, such as
// a gRPC client, gets HTTP/2.
func (g *Gateway) configFor(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	protocols := []string{"http/1.1"}
	if !slices.Contains(hello.SupportedProtos, "http/1.1") && len(hello.SupportedProtos) > 0 || g.speaksHTTP2(hello.Context(), hello.ServerName) {
		protocols = []string{"h2", "http/1.1"}
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: g.certs.GetCertificate, NextProtos: protocols}, nil
}

// speaksHTTP2 reports whether the Service of a host speaks only HTTP/2.
func (g *Gateway) speaksHTTP2(ctx context.Context, host string) bool {
	label, ok := strings.CutSuffix(strings.ToLower(host), "."+g.options.Domain)
	if !ok || !g.synced.Load() {
		return false
	}
	e, ok, err := g.handler.directory.entry(ctx, label)
	if err != nil || !ok {
		return false
	}
	s, err := g.handler.directory.service(ctx, e)
	return err == nil && s != nil && onlyHTTP2(s)
}

// adminHandler serves metrics and health.
func (g *Gateway) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(g.handler.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		switch {
		case g.draining.Load():
			http.Error(w, "stopping", http.StatusServiceUnavailable)
		case !g.synced.Load():
			http.Error(w, "reading the cluster's state", http.StatusServiceUnavailable)
		default:
			_, _ = w.Write([]byte("ok\n"))
		}
	})
	return mux
}
