// Command deliver brings image archives to the nodes of a cluster.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/delivery"
)

func main() {
	own := flag.String("own", "", "path of the program that brought up the cluster; empty: the cluster of the current context")
	registry := flag.String("registry", "", "registry to push to, HOST/PATH; empty: load into the nodes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *own, *registry, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1) //nolint:gocritic // the process ends
	}
}

func run(ctx context.Context, own, registry string, archives []string) error {
	target := delivery.Own(own)
	if own == "" {
		out, err := exec.CommandContext(ctx, "kubectl", "config", "current-context").Output()
		if err != nil {
			return fmt.Errorf("kubectl config current-context: %w", err)
		}
		if target, err = delivery.For(strings.TrimSpace(string(out)), registry); err != nil {
			return err
		}
	}
	return target.Deliver(ctx, os.Stderr, archives...)
}
