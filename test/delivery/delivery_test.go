package delivery_test

import (
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/delivery"
)

func TestDeliver_PushesEveryImageOfAnArchive(t *testing.T) {
	quiet := registry.Logger(log.New(io.Discard, "", 0)) //nolint:forbidigo // the type that the registry takes
	server := httptest.NewServer(registry.New(quiet))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	images := map[string]v1.Image{"example.test/a:1": image(t), "example.test/deep/b:2": image(t)}
	archive := write(t, images)

	target, err := delivery.For("somewhere", host+"/team/")
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Deliver(t.Context(), io.Discard, archive); err != nil {
		t.Fatal(err)
	}
	for ref, want := range images {
		at, err := name.ParseReference(target.Reference(ref))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(at.Name(), host+"/team/") {
			t.Errorf("%s is found as %s", ref, at)
		}
		got, err := remote.Image(at)
		if err != nil {
			t.Fatal(err)
		}
		// The archive keeps layers and configuration, not the manifest.
		wantConfig, err := want.ConfigName()
		if err != nil {
			t.Fatal(err)
		}
		if gotConfig, err := got.ConfigName(); err != nil || gotConfig != wantConfig {
			t.Errorf("%s: configuration is %v (%v), want %v", at, gotConfig, err, wantConfig)
		}
	}
}

func TestDeliver_SaysWhatRefusedIt(t *testing.T) {
	server := httptest.NewServer(nil) // answers 404 to everything
	server.Close()
	target, err := delivery.For("", strings.TrimPrefix(server.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	archive := write(t, map[string]v1.Image{"example.test/a:1": image(t)})
	if err := target.Deliver(t.Context(), io.Discard, archive); err == nil || !strings.Contains(err.Error(), archive+": push ") {
		t.Errorf("got %v, want what could not be pushed", err)
	}
	if err := target.Deliver(t.Context(), io.Discard, "absent.tar"); err == nil || !strings.Contains(err.Error(), "absent.tar") {
		t.Errorf("got %v, want the archive's name", err)
	}
}

func TestDeliver_CallsTheLoaderOncePerArchive(t *testing.T) {
	calls := filepath.Join(t.TempDir(), "calls")
	loader := filepath.Join(t.TempDir(), "loader")
	if err := os.WriteFile(loader, []byte("#!/bin/sh\necho \"$@\" >>"+calls+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := delivery.Own(loader).Deliver(t.Context(), io.Discard, "a.tar", "b.tar"); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(calls); string(got) != "load a.tar\nload b.tar\n" {
		t.Errorf("called with %q", got)
	}
	if got := delivery.Own(loader).Reference("example.test/a:1"); got != "example.test/a:1" {
		t.Errorf("a loaded image is found as %s", got)
	}
}

func TestFor_KnowsClustersByTheirContext(t *testing.T) {
	dir := t.TempDir()
	for _, program := range []string{"kind", "k3d", "minikube"} {
		if err := os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\necho "+program+" \"$@\"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	for context, want := range map[string]string{
		"kind-dev": "kind load image-archive --name=dev a.tar\n",
		"k3d-dev":  "k3d image import --cluster=dev a.tar\n",
		"minikube": "minikube image load a.tar\n",
	} {
		target, err := delivery.For(context, "")
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := target.Deliver(t.Context(), &out, "a.tar"); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("context %s: ran %q, want %q", context, out.String(), want)
		}
	}
	if _, err := delivery.For("production", ""); err == nil || !strings.Contains(err.Error(), "REGISTRY=") {
		t.Errorf("got %v, want the way out", err)
	}
	t.Setenv("PATH", t.TempDir())
	target, err := delivery.For("kind-dev", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := target.Deliver(t.Context(), io.Discard, "a.tar"); err == nil || !strings.Contains(err.Error(), exec.ErrNotFound.Error()) {
		t.Errorf("got %v, want that the program is missing", err)
	}
}

func image(t *testing.T) v1.Image {
	t.Helper()
	img, err := random.Image(512, 2)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func write(t *testing.T, images map[string]v1.Image) string {
	t.Helper()
	tagged := map[name.Tag]v1.Image{}
	for ref, img := range images {
		tag, err := name.NewTag(ref)
		if err != nil {
			t.Fatal(err)
		}
		tagged[tag] = img
	}
	path := filepath.Join(t.TempDir(), "images.tar")
	if err := tarball.MultiWriteToFile(path, tagged); err != nil {
		t.Fatal(err)
	}
	return path
}
