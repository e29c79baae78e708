package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/calls"
)

// maxCalls is the most a fork may make, watches aside.
const maxCalls = 24

// A reading is what one fork asked of the API server.
type reading struct {
	what    string
	beside  int // sandboxes in the namespace
	calls   []calls.Call
	took    time.Duration
	watches int
}

// calls counts what forks ask of the API server alone and beside many sandboxes. Those have no pods: what they weigh is their objects.
func (b *bench) calls(ctx context.Context, many int) ([]reading, error) {
	cache, err := os.MkdirTemp("", "bench-cache-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(cache) }()
	fork := func(name string, more ...string) ([]calls.Call, error) {
		return calls.Plugin(ctx, append([]string{
			"fork", "deployment/api", "--name=" + name, "--key=" + name, "--kubeconfig=" + b.kubeconfig, "--namespace=" + b.namespace,
		}, more...)...)
	}
	var all []reading
	measure := func(beside int) error {
		name := fmt.Sprintf("m%d", beside)
		for _, kind := range []struct {
			what string
			args []string
		}{
			{"new, the plugin's first command on this machine", []string{"--image=" + apps.Podinfo(1), "--cache-dir=" + filepath.Join(cache, name)}},
			{"the same again with another image", []string{"--image=" + apps.Podinfo(2), "--cache-dir=" + filepath.Join(cache, name)}},
		} {
			start := time.Now()
			made, err := fork(name, kind.args...)
			if err != nil {
				return err
			}
			watches, others := calls.Watches(made)
			all = append(all, reading{kind.what, beside, others, time.Since(start), len(watches)})
		}
		return b.kubectl(ctx, "sandbox", "delete", name)
	}
	if err := measure(0); err != nil {
		return nil, err
	}
	group, made := new(errgroup.Group), make(chan int, many)
	for i := range many {
		made <- i
	}
	close(made)
	for range 4 {
		group.Go(func() error {
			for i := range made {
				if _, err := fork(fmt.Sprintf("many-%d", i), "--env=X=1", "--replicas=0", "--wait=false"); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return all, measure(many)
}

// callResults writes what was counted, as Markdown.
func callResults(all []reading) string {
	var b strings.Builder
	fmt.Fprint(&b, "| fork | other sandboxes | API calls | of them reads | watches | bytes read | routed after |\n|---|---|---|---|---|---|---|\n")
	most := 0
	for _, r := range all {
		reads := 0
		for _, c := range r.calls {
			if c.Method == http.MethodGet {
				reads++
			}
		}
		most = max(most, len(r.calls))
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %d | %d ms |\n", r.what, r.beside, len(r.calls), reads, r.watches, calls.Bytes(r.calls), r.took.Milliseconds())
	}
	fmt.Fprintf(&b, "\nAt most %d calls a fork (target: at most %d). Those of the first row:\n\n", most, maxCalls)
	lines := map[string]int{}
	for _, c := range all[0].calls {
		lines[c.Method+" "+generic(c.Path)]++
	}
	for _, l := range slices.Sorted(maps.Keys(lines)) {
		fmt.Fprintf(&b, "    %d %s\n", lines[l], l)
	}
	return b.String()
}

// generic returns a path without the namespace's name.
func generic(path string) string {
	parts := strings.Split(path, "/")
	for i := range parts[:len(parts)-1] {
		if parts[i] == "namespaces" {
			parts[i+1] = "NS"
		}
	}
	return strings.Join(parts, "/")
}
