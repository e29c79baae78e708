package program

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestKeyChangesWithAllThatTheBuildDependsOn(t *testing.T) {
	module := func() fstest.MapFS {
		return fstest.MapFS{"go.mod": {Data: []byte("module a")}, "go.sum": {Data: []byte("h1")}, "main.go": {Data: []byte("package main")}}
	}
	program := func() Program {
		return Program{Name: "p", Binaries: []Binary{{Name: "b", Package: ".", Tags: []string{"t"}, Variables: map[string]string{"a": "1", "b": "2"}}}, Links: []string{"l"}}
	}
	key := func(p Program, m fs.FS, toolchain string) string {
		t.Helper()
		k, err := Key(p, m, toolchain)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	base := key(program(), module(), "go1")
	for range 20 { // maps have no order
		if again := key(program(), module(), "go1"); again != base {
			t.Fatalf("the same input gave %s and %s", base, again)
		}
	}
	seen := map[string]string{base: "nothing"}
	differs := func(what, k string) {
		t.Helper()
		if same, ok := seen[k]; ok {
			t.Errorf("a change of %s gives the key of a change of %s", what, same)
		}
		seen[k] = what
	}
	differs("toolchain", key(program(), module(), "go2"))
	for _, file := range []string{"go.mod", "go.sum", "main.go"} {
		m := module()
		m[file] = &fstest.MapFile{Data: []byte("other")}
		differs(file, key(program(), m, "go1"))
	}
	m := module()
	m["more.go"] = &fstest.MapFile{Data: nil}
	differs("files", key(program(), m, "go1"))
	for what, change := range map[string]func(*Program){
		"tags":      func(p *Program) { p.Binaries[0].Tags = []string{"u"} },
		"variables": func(p *Program) { p.Binaries[0].Variables["a"] = "3" },
		"package":   func(p *Program) { p.Binaries[0].Package = "./x" },
		"name":      func(p *Program) { p.Binaries[0].Name = "c" },
		"cgo":       func(p *Program) { p.Binaries[0].C = true },
		"links":     func(p *Program) { p.Links = nil },
		"binaries":  func(p *Program) { p.Binaries = append(p.Binaries, Binary{Name: "d", Package: "./d"}) },
	} {
		p := program()
		change(&p)
		differs(what, key(p, module(), "go1"))
	}
}

// TestVersionsComeFromModules holds the table of programs against their modules.
func TestVersionsComeFromModules(t *testing.T) {
	for _, p := range All() {
		gomod, err := os.ReadFile(filepath.Join("..", "programs", p.Name, "go.mod"))
		if err != nil {
			t.Error(err)
			continue
		}
		versions, err := versions(gomod)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, b := range p.Binaries {
			line := strings.Join(b.arguments(versions), " ")
			if strings.ContainsAny(line, "{}") {
				t.Errorf("%s: a version is not in its go.mod: %s", b.Name, line)
			}
		}
	}
}

func TestVersionIsSplit(t *testing.T) {
	versions := map[string]string{"k8s.io/kubernetes": "v1.37.2"}
	if got := expand("{k8s.io/kubernetes} {k8s.io/kubernetes:major} {k8s.io/kubernetes:minor}", versions); got != "v1.37.2 1 37" {
		t.Errorf("got %q", got)
	}
}

func TestEveryModuleIsBuilt(t *testing.T) {
	entries, err := os.ReadDir("../programs")
	if err != nil {
		t.Fatal(err)
	}
	var folders, names []string
	for _, entry := range entries {
		folders = append(folders, entry.Name())
	}
	for _, p := range All() {
		names = append(names, p.Name)
	}
	slices.Sort(names)
	if !slices.Equal(folders, names) {
		t.Errorf("modules %v, programs %v", folders, names)
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("1\n2\n3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for lines, want := range map[int]string{1: "3", 2: "2\n3", 9: "1\n2\n3"} {
		if got, err := Tail(path, lines); err != nil || got != want {
			t.Errorf("%d lines: %q, %v", lines, got, err)
		}
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Tail(path, 3); err != nil || got != "" {
		t.Errorf("of an empty file: %q, %v", got, err)
	}
}
