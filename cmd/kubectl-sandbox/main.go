// Command kubectl-sandbox is the plugin that kubectl runs for `kubectl sandbox`.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/command"
)

// version is set when the program is linked.
var version = "v0.0.0-dev" //nolint:gochecknoglobals // by -ldflags "-X main.version=..."

func main() {
	// The first signal ends the command in order; after it, a second one ends the process.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	streams := genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr}
	cmd := command.New(streams)
	cmd.Version = version
	os.Exit(command.Run(ctx, cmd, os.Args[1:]))
}
