package image

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// program builds a static binary and returns its path.
func program(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "app")
	if err := os.WriteFile(source, []byte("package main\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", binary, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return binary
}

func build(t *testing.T, spec Spec) v1.Image {
	t.Helper()
	img, err := Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestEqualInputGivesEqualBytes(t *testing.T) {
	binary := program(t)
	extra := filepath.Join(t.TempDir(), "folder")
	if err := os.MkdirAll(filepath.Join(extra, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b", "sub/c"} {
		if err := os.WriteFile(filepath.Join(extra, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	archive := func() []byte {
		img := build(t, Spec{Binary: binary, Files: map[string]string{"/data": extra, "/etc/one": filepath.Join(extra, "a")}, Env: []string{"A=1"}, Ports: []string{"1/tcp", "2/tcp"}})
		var b bytes.Buffer
		if err := Write(&b, "localhost/app:1", img); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	first := archive()
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(binary, later, later); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(extra, "b"), 0o644); err != nil { // another umask
		t.Fatal(err)
	}
	if !bytes.Equal(first, archive()) {
		t.Error("a second image of the same files differs")
	}
}

func TestImageHoldsWhatItIsToRun(t *testing.T) {
	img := build(t, Spec{Binary: program(t), Cmd: []string{"serve"}, Ports: []string{"8080/tcp"}})
	if err := validate.Image(img, validate.Fast); err != nil {
		t.Error(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := config.Config; config.Architecture != runtime.GOARCH || config.OS != "linux" || got.User != "65532:65532" ||
		!slices.Equal(got.Entrypoint, []string{"/app"}) || !slices.Equal(got.Cmd, []string{"serve"}) || len(got.ExposedPorts) != 1 {
		t.Errorf("config: %s/%s %+v", config.OS, config.Architecture, got)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	modes := map[string]int64{}
	for r := tar.NewReader(content); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		modes[h.Name] = h.Mode
		if !h.ModTime.Equal(time.Unix(0, 0)) || h.Uid != 0 || h.Gid != 0 {
			t.Errorf("%s: %v, owner %d:%d", h.Name, h.ModTime, h.Uid, h.Gid)
		}
	}
	for name, mode := range map[string]int64{"app": 0o755, "tmp/": 0o1777, "etc/passwd": 0o644} {
		if modes[name] != mode {
			t.Errorf("%s has mode %o", name, modes[name])
		}
	}
}

func TestArchiveIsReadBackByItsName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.tar")
	img := build(t, Spec{Binary: program(t), Root: true})
	if err := WriteFile(path, "example.com/team/app:v1", img); err != nil {
		t.Fatal(err)
	}
	back, err := tarball.ImageFromPath(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(path) })
	if err != nil || len(manifest) != 1 || !slices.Equal(manifest[0].RepoTags, []string{"example.com/team/app:v1"}) {
		t.Errorf("manifest %+v, %v", manifest, err)
	}
	wanted, _ := img.ConfigName()
	got, err := back.ConfigName()
	if err != nil || got != wanted {
		t.Errorf("config %s, want %s, %v", got, wanted, err)
	}
}

func TestWhatCannotRunIsRefused(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dynamic, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		script:                        "is no Linux executable",
		dynamic:                       "is dynamically linked",
		filepath.Join(dir, "nowhere"): "no such file",
	} {
		if _, err := Build(Spec{Binary: path}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	img := build(t, Spec{Binary: program(t)})
	out := filepath.Join(dir, "app.tar")
	for _, name := range []string{"", "app", "App:1", "app:1:2"} {
		if err := WriteFile(out, name, img); err == nil {
			t.Errorf("image name %q was taken", name)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
