// Command apps builds images of third-party programs and brings them to the nodes of a cluster.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/progress"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/delivery"
)

func main() {
	root := flag.String("root", ".", "root of the repository")
	own := flag.String("own", "", "path of the program that brought up the cluster; empty: the cluster of the current context")
	registry := flag.String("registry", "", "registry to push to, HOST/PATH; empty: load into the nodes")
	match := flag.String("match", "", "only images whose name contains this")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *root, *own, *registry, *match); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1) //nolint:gocritic // the process ends
	}
}

func run(ctx context.Context, root, own, registry, match string) error {
	var images []apps.Image
	for _, i := range apps.Catalogue() {
		if strings.Contains(i.Ref, match) {
			images = append(images, i)
		}
	}
	builder, err := apps.Builder(root, progress.New(os.Stderr))
	if err != nil {
		return err
	}
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
	archives, err := apps.Archives(ctx, builder, images)
	if err != nil {
		return err
	}
	for _, path := range archives {
		err := builder.Progress.Step("loading "+strings.TrimSuffix(filepath.Base(path), ".tar"), func() error {
			return target.Deliver(ctx, os.Stderr, path)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
