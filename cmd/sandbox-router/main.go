// Sandbox-router is the sidecar that admission injects: package router, configured by its environment.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/router"
)

// version is set when the program is linked.
var version = "dev" //nolint:gochecknoglobals // -ldflags -X sets globals alone

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, log); err != nil {
		log.Error(err.Error())
		os.Exit(1) //nolint:gocritic // nothing is left to be stopped
	}
}

func run(ctx context.Context, log *slog.Logger) error {
	config, err := router.ConfigFromEnv(os.Getenv)
	if err != nil {
		return err
	}
	config.Version = version
	return router.Run(ctx, config, log)
}
