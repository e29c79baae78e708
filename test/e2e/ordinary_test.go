package e2e

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/ordinary"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/ordinary/live"
)

// The short form of `make ordinary`: sequences that broke a promise once, and as many random ones as there is time for.
func TestNoPromiseIsBrokenByOrdinaryWork(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../ordinary/testdata/sequences/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no sequences: %v", err)
	}
	var kept []ordinary.Sequence
	for _, f := range files {
		kept = append(kept, must[ordinary.Sequence](t)(ordinary.Parse(string(must[[]byte](t)(os.ReadFile(f))))))
	}
	c := must[*live.Cluster](t)(live.New(shared.kubeconfig, shared.programs, t.TempDir(), shared.appliers))
	if err := c.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	summary, err := c.Run(t.Context(), live.Options{
		Seed: 13, Duration: 90 * time.Second, Lanes: 2, Length: 12, First: kept, Shared: true, Say: t.Logf,
	})
	if err != nil {
		t.Error(err)
	}
	t.Log(summary.Line())
	if summary.Requests["keyed"] < 100 || summary.Truths < 5 || len(summary.Kinds) < 4 {
		t.Errorf("that is too little to tell: %s", summary.Markdown())
	}
	if summary.Violations() > 0 {
		t.Error(summary.Markdown())
	}
}
