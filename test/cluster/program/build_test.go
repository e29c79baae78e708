package program

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/progress"
)

// builder returns one with a module of its own, that has no dependencies.
func builder(t *testing.T, source string) (Builder, Program) {
	t.Helper()
	dir := t.TempDir()
	module := filepath.Join(dir, "modules", "hello")
	if err := os.MkdirAll(module, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"go.mod": "module hello\n\ngo 1.26\n", "main.go": source} {
		if err := os.WriteFile(filepath.Join(module, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b := Builder{Modules: filepath.Join(dir, "modules"), Cache: filepath.Join(dir, "cache"), Logs: filepath.Join(dir, "log"), Progress: progress.New(t.Output())}
	return b, Program{Name: "hello", Links: []string{"again"}, Binaries: []Binary{{Name: "hello", Package: ".", Variables: map[string]string{"main.word": "hello"}}}}
}

func TestProgramIsBuiltOnceAndRuns(t *testing.T) {
	b, p := builder(t, "package main\nvar word string\nfunc main() { println(word) }\n")
	first, err := b.Ensure(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hello", "again"} {
		out, err := exec.Command(filepath.Join(first["hello"], name)).CombinedOutput()
		if err != nil || string(out) != "hello\n" {
			t.Errorf("%s printed %q, %v", name, out, err)
		}
	}
	if err := os.Remove(filepath.Join(b.Logs, "build-hello.log")); err != nil {
		t.Fatal(err)
	}
	second, err := b.Ensure(t.Context(), p)
	if err != nil || second["hello"] != first["hello"] {
		t.Errorf("then %v, %v", second, err)
	}
	if _, err := os.Stat(filepath.Join(b.Logs, "build-hello.log")); err == nil {
		t.Error("it was built again")
	}
}

func TestFailedBuildLeavesNothingAndShowsItsLog(t *testing.T) {
	b, p := builder(t, "package main\nfunc main() { undefinedThing() }\n")
	_, err := b.Ensure(t.Context(), p)
	if err == nil || !strings.Contains(err.Error(), "undefined: undefinedThing") {
		t.Errorf("error: %v", err)
	}
	left, err := os.ReadDir(b.Cache)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range left {
		if entry.Name() != "hello.lock" {
			t.Errorf("left: %s", entry.Name())
		}
	}
}

func TestUnusedBuildsAreForgotten(t *testing.T) {
	b, p := builder(t, "package main\nfunc main() {}\n")
	old, recent, cut := filepath.Join(b.Cache, "hello-old"), filepath.Join(b.Cache, "hello-recent"), filepath.Join(b.Cache, "hello.new-1")
	for _, dir := range []string{old, recent, cut} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-keep - time.Hour)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Ensure(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{old: false, cut: false, recent: true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s is there: %t", dir, err == nil)
		}
	}
}
