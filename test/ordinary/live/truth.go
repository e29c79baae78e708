package live

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/ordinary"
)

// A witness asks the product about a sandbox again and again.
type witness struct {
	cluster   *Cluster
	namespace string

	mu     sync.Mutex
	truths []ordinary.Truth
}

// run asks while exists says that there is a sandbox, until the context ends.
func (w *witness) run(ctx context.Context, exists func() bool) {
	tick := time.NewTicker(ordinary.PollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !exists() {
			continue
		}
		t := w.ask(ctx)
		if ctx.Err() == nil && exists() {
			w.mu.Lock()
			w.truths = append(w.truths, t)
			w.mu.Unlock()
		}
	}
}

// all returns the answers so far.
func (w *witness) all() []ordinary.Truth {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]ordinary.Truth(nil), w.truths...)
}

// ask asks once.
func (w *witness) ask(ctx context.Context) ordinary.Truth {
	t := ordinary.Truth{Begin: time.Now()}
	out, err := w.cluster.run(ctx, "kubectl-sandbox", "status", sandbox, "-n", w.namespace, "-o", "json")
	t.End = time.Now()
	if err != nil {
		t.Err = err.Error()
		return t
	}
	if err := read(out, &t); err != nil {
		if text, err := w.cluster.run(ctx, "kubectl-sandbox", "status", sandbox, "-n", w.namespace); err == nil {
			readText(text, &t)
			t.End = time.Now()
			return t
		}
		t.Err = err.Error()
	}
	return t
}

// readText reads what people read, of versions that have no SandboxStatus.
func readText(out string, t *ordinary.Truth) {
	t.Routed = true
	var rest []string
	for line := range strings.Lines(out) {
		cells := regexp.MustCompile(`\s{3,}`).Split(strings.TrimSpace(line), -1)
		switch {
		case len(cells) >= 6 && cells[0] != "FORK":
			if state := cells[4]; state != "Routed" {
				t.Routed = false
				rest = append(rest, state)
			}
		case len(cells) >= 6, strings.HasPrefix(line, "sandbox "), strings.HasPrefix(line, "requests:"), strings.TrimSpace(line) == "":
		default:
			t.Routed = false
			rest = append(rest, strings.TrimSpace(line))
		}
	}
	t.Message = strings.Join(rest, "; ")
	if _, command, ok := strings.Cut(t.Message, "kubectl sandbox "); ok {
		command, _, _ = strings.Cut(command, ";")
		t.Command = "kubectl sandbox " + command
	}
}

// read reads a SandboxStatus.
func read(out string, t *ordinary.Truth) error {
	var s struct {
		Kind       string
		Conditions []struct{ Type, Status, Reason, Message, Command string }
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return fmt.Errorf("status -o json: %w", err)
	}
	for _, c := range s.Conditions {
		if s.Kind == "SandboxStatus" && c.Type == "Routed" {
			t.Routed, t.Reason, t.Message, t.Command = c.Status == "True", c.Reason, c.Message, c.Command
			return nil
		}
	}
	return fmt.Errorf("status -o json: kind %q without a condition Routed: %.200s", s.Kind, strings.TrimSpace(out))
}
