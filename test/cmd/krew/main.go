// Command krew builds the krew archives and manifest of one release.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/krew"
)

func main() {
	r := krew.Release{}
	flag.StringVar(&r.Root, "root", ".", "root of the repository")
	flag.StringVar(&r.Out, "out", "dist/krew", "directory to write to")
	flag.StringVar(&r.Version, "version", "", "version of the release, with a \"v\"")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	archives, err := r.Build(ctx)
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1) //nolint:gocritic // the process ends
	}
	for _, a := range archives {
		fmt.Fprintf(os.Stdout, "%s  %s/%s\n", a.SHA256, r.Out, a.Name)
	}
	fmt.Fprintf(os.Stdout, "%s/sandbox.yaml\n", r.Out)
}
