// Sandbox-router is the sidecar that admission injects: package router, configured by its environment.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/router"
)

// version is set when the program is linked.
var version = "dev" //nolint:gochecknoglobals // -ldflags -X sets globals alone

func main() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:], log); err != nil {
		fmt.Fprintln(os.Stderr, "sandbox-router:", err)
		os.Exit(1) //nolint:gocritic // nothing is left to be stopped
	}
}

func run(ctx context.Context, args []string, log *slog.Logger) error {
	config, err := router.ConfigFromEnv(os.Getenv)
	if err != nil {
		return err
	}
	if slices.Equal(args, []string{"wait"}) { // the postStart hook
		ctx, cancel := context.WithTimeout(ctx, config.FirstWait+time.Minute)
		defer cancel()
		return router.Wait(ctx, config.Admin)
	}
	config.Version = version
	return router.Run(ctx, config, log)
}
