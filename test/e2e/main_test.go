// Package e2e tests the product on a real Kubernetes, with programs nobody of its authors wrote.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/appliers"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/audit/collect"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/progress"
)

// shared is the cluster that all tests use, each in a namespace of its own.
var shared *world

func TestMain(m *testing.M) {
	if fault := os.Getenv(faultEnv); fault != "" {
		os.Exit(pluginWithFault(fault))
	}
	w, err := prepare(context.Background())
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
	shared = w
	os.Exit(audited(w, m.Run))
}

// audited runs the tests, and reads what the product's own programs wrote and counted meanwhile: a failure of theirs that no test
// announced fails the suite.
func audited(w *world, tests func() int) int {
	ctx := context.Background()
	fail := func(err error) int {
		fmt.Fprintf(os.Stderr, "error: audit of the product's logs and metrics: %v\n", err)
		return 1
	}
	collector, err := collect.Start(ctx, w.client, &w.ledger)
	if err != nil {
		return fail(err)
	}
	code := tests()
	if err := collector.Finish(ctx); err != nil {
		return fail(err)
	}
	if report := w.ledger.Report(w.ledger.Unannounced()); report != "" {
		return fail(errors.New(report))
	}
	return code
}

// prepare returns the cluster of this clone, with the product and the programs on it. With KUBECONFIG set, as make does, the
// product is there already.
func prepare(ctx context.Context) (*world, error) {
	root, err := cluster.FindRoot(".")
	if err != nil {
		return nil, err
	}
	report := progress.New(os.Stderr)
	c, err := cluster.New(cluster.Config{Root: root, Progress: os.Stderr})
	if err != nil {
		return nil, err
	}
	if os.Getenv("KUBECONFIG") == "" {
		install := exec.CommandContext(ctx, "make", "-C", root, "install", "browser", "playwright", "nginx")
		install.Stdout, install.Stderr = os.Stderr, os.Stderr
		if err := install.Run(); err != nil {
			return nil, fmt.Errorf("make install browser playwright nginx: %w", err)
		}
	} else if kubeconfig := os.Getenv("KUBECONFIG"); kubeconfig != c.Kubeconfig() {
		// Tests freeze processes, read interfaces and dial pods: they must be on the node.
		return nil, fmt.Errorf("KUBECONFIG is %s: these tests run on this machine's own cluster only, %s", kubeconfig, c.Kubeconfig())
	}
	builder, err := apps.Builder(root, report)
	if err != nil {
		return nil, err
	}
	archives, err := apps.Archives(ctx, builder, apps.Catalogue())
	if err != nil {
		return nil, err
	}
	if err := report.Step("loading images of the programs", func() error { return c.Load(ctx, archives...) }); err != nil {
		return nil, err
	}
	folders, err := builder.Ensure(ctx, apps.Interop())
	if err != nil {
		return nil, err
	}
	w, err := newWorld(c.Kubeconfig(), filepath.Join(root, "bin"), "kubectl-sandbox")
	if err != nil {
		return nil, err
	}
	w.cluster = c
	if w.appliers, err = appliers.New(ctx, root, w.programs, w.kubeconfig, report); err != nil {
		return nil, err
	}
	w.interop = filepath.Join(folders[apps.Interop().Name], apps.GRPCClient)
	return w, nil
}
