package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// A stream serves the route stream in every replica.
type stream struct {
	address string
	handler http.Handler
	secure  func(*tls.Config)
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (*stream) NeedLeaderElection() bool { return false }

// Start implements manager.Runnable. Streams do not end by themselves. At the end, each has a moment to finish what it
// is sending, and is then closed. Routers keep their last table, and dial another replica.
func (s *stream) Start(ctx context.Context) error {
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	s.secure(config)
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	server := &http.Server{
		Handler:           s.handler,
		TLSConfig:         config,
		Protocols:         protocols,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		HTTP2:             &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second, MaxConcurrentStreams: 4},
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("--routes-port: %w", err)
	}
	if err := serveTLS(ctx, server, listener, 3*time.Second); err != nil {
		return fmt.Errorf("serve routes: %w", err)
	}
	return nil
}

// serveTLS serves until the context ends. Then it waits at most the grace period for requests in flight.
func serveTLS(ctx context.Context, server *http.Server, listener net.Listener, grace time.Duration) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		if server.Shutdown(bounded) != nil {
			_ = server.Close()
		}
	}()
	if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-done
	return nil
}
