package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
)

// Bounds of connections to admission, which anybody in the cluster may open. Before a request is known, they hold at
// most maxConnections times some 60 KB. The API server's headers are shorter than 1 KB, and its timeouts than
// reviewTimeout.
const (
	maxConnections   = 256
	maxReviewHeaders = 4 << 10 // net/http adds as much
	headerTimeout    = 3 * time.Second
	reviewTimeout    = 6 * time.Second // until a review is read; as much again until its response is written
)

// reviews serves admission instead of controller-runtime's server, which accepts any number of connections, and headers
// of 1 MB.
type reviews struct {
	webhook.Server // for its mux
	address        string
	secure         func(*tls.Config)
	headers, whole time.Duration // headerTimeout, reviewTimeout
	listening      atomic.Bool
}

// Start implements manager.Runnable.
func (s *reviews) Start(ctx context.Context) error {
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	s.secure(config)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	answered := context.WithoutCancel(ctx) // requests in flight at the end are completed
	server := &http.Server{
		Handler:           s.WebhookMux(),
		TLSConfig:         config,
		Protocols:         protocols,
		BaseContext:       func(net.Listener) context.Context { return answered },
		ReadHeaderTimeout: s.headers,
		ReadTimeout:       s.whole,
		WriteTimeout:      2 * s.whole,
		IdleTimeout:       time.Second, // connections are closed after a response
		MaxHeaderBytes:    maxReviewHeaders,
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("--admission-port: %w", err)
	}
	s.listening.Store(true)
	if err := serveTLS(ctx, server, netutil.LimitListener(listener, maxConnections), 2*s.whole); err != nil {
		return fmt.Errorf("serve admission: %w", err)
	}
	return nil
}

// StartedChecker returns a check that passes once the port is open. It opens no connection. If an attacker held all
// connections, a failing check would remove this replica from the Service, and leave fewer for the others.
func (s *reviews) StartedChecker() healthz.Checker {
	return func(*http.Request) error {
		if !s.listening.Load() {
			return errors.New("admission is not listening yet")
		}
		return nil
	}
}
