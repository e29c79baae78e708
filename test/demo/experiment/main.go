// Command experiment holds `kubectl sandbox test` to what it must say, on a real cluster: of five variants of HotROD's customer
// service, each made to be good or bad in one way; or, with -alarms, of variants that equal the baseline.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"k8s.io/client-go/kubernetes"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/delivery"
)

func main() {
	var s stage
	flag.StringVar(&s.root, "root", ".", "root of the repository")
	flag.StringVar(&s.own, "own", "", "path of the program that brought up the cluster; empty: the cluster of the current context")
	flag.StringVar(&s.registry, "registry", "", "registry to push images to, HOST/PATH; empty: load them into the nodes")
	flag.StringVar(&s.namespace, "namespace", "hotrod-experiment", "namespace for the application; made if need be, and kept")
	flag.StringVar(&s.out, "out", "dist/experiment", "folder for the reports")
	runs := flag.Int("runs", 1, "how many experiments")
	equal := flag.Bool("alarms", false, "variants equal the baseline, and alarms are counted")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, &s, *runs, *equal); err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1) //nolint:gocritic // the process ends
	}
}

func run(ctx context.Context, s *stage, runs int, equal bool) error {
	if err := s.connect(); err != nil {
		return err
	}
	if err := os.MkdirAll(s.out, 0o755); err != nil { //nolint:gosec // reports are for everybody
		return err
	}
	if err := s.deploy(ctx); err != nil {
		return err
	}
	if equal {
		return s.alarms(ctx, runs)
	}
	return s.verdicts(ctx, runs)
}

// A stage is where experiments are run.
type stage struct {
	root, own, registry, namespace, out string

	target delivery.Target
	client kubernetes.Interface
}

func (s *stage) connect() error {
	config, target, err := delivery.Connect(s.own, s.registry)
	if err != nil {
		return err
	}
	s.target = target
	s.client, err = kubernetes.NewForConfig(config)
	return err
}

// sandbox runs a `kubectl sandbox` command.
func (s *stage) sandbox(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "kubectl", append([]string{"sandbox", "--namespace=" + s.namespace}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl sandbox %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// test runs `kubectl sandbox test`, which shows what it says, and returns its report. It writes reports in all formats, under name.
func (s *stage) test(ctx context.Context, name string, show bool, args ...string) (*experiment.Report, error) {
	file := func(format string) string { return filepath.Join(s.out, name+"."+format) }
	args = append([]string{"sandbox", "test", "--namespace=" + s.namespace}, args...)
	for format, end := range map[string]string{"json": "json", "junit": "xml", "markdown": "md", "html": "html"} {
		args = append(args, "--report="+format+"="+file(end))
	}
	if err := os.Remove(file("json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "kubectl", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it cleans up
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, os.Stderr
	failed := cmd.Run()
	if show {
		fmt.Print(said.String()) //nolint:forbidigo // the program's output
	}
	raw, err := os.ReadFile(file("json"))
	if err != nil { // it has no verdict
		return nil, fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), errors.Join(failed, err))
	}
	report := &experiment.Report{}
	if err := json.Unmarshal(raw, report); err != nil {
		return nil, fmt.Errorf("%s: %w", file("json"), err)
	}
	return report, nil
}
