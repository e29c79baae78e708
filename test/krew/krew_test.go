package krew_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/krew"
)

const (
	root    = "../.."
	release = "v0.1.0"
)

// A plugin is a manifest, with all the fields that krew's documentation ("Writing Krew plugin manifests") knows.
type plugin struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Version          string     `json:"version"`
		ShortDescription string     `json:"shortDescription"`
		Description      string     `json:"description"`
		Caveats          string     `json:"caveats"`
		Homepage         string     `json:"homepage"`
		Platforms        []platform `json:"platforms"`
	} `json:"spec"`
}

type platform struct {
	URI      string                `json:"uri"`
	SHA256   string                `json:"sha256"`
	Selector *metav1.LabelSelector `json:"selector"`
	Bin      string                `json:"bin"`
}

// released returns the platforms that the test builds for: all; with -short this machine's and one of each other system, since each
// takes a compilation of all that kubectl is made of.
func released() []krew.Platform {
	if !testing.Short() {
		return []krew.Platform{{OS: "darwin", Arch: "amd64"}, {OS: "darwin", Arch: "arm64"}, {OS: "linux", Arch: "amd64"},
			{OS: "linux", Arch: "arm64"}, {OS: "windows", Arch: "amd64"}, {OS: "windows", Arch: "arm64"}}
	}
	return []krew.Platform{{OS: "darwin", Arch: "arm64"}, {OS: runtime.GOOS, Arch: runtime.GOARCH}, {OS: "windows", Arch: "amd64"}}
}

func TestRelease(t *testing.T) {
	dir := t.TempDir()
	r := krew.Release{Root: root, Out: dir, Version: release}
	if testing.Short() {
		r.Platforms = released()
	}
	if _, err := r.Build(t.Context()); err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile(filepath.Join(dir, "sandbox.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var p plugin
	if err := yaml.UnmarshalStrict(manifest, &p); err != nil {
		t.Fatalf("manifest: %v", err)
	}
	t.Run("manifest keeps krew's rules", func(t *testing.T) { checkManifest(t, p) })
	t.Run("every platform has one archive", func(t *testing.T) { checkPlatforms(t, p, dir) })
	t.Run("checksums are of the archives", func(t *testing.T) {
		cmd := exec.CommandContext(t.Context(), "sha256sum", "--check", "--strict", "sha256sums.txt")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("a second build makes the same bytes", func(t *testing.T) {
		again := krew.Release{Root: root, Out: t.TempDir(), Version: release, Platforms: r.Platforms}
		if _, err := again.Build(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"sandbox.yaml", "sha256sums.txt"} {
			first, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			second, err := os.ReadFile(filepath.Join(again.Out, name))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(first, second) {
				t.Errorf("%s differs:\n%s\n%s", name, first, second)
			}
		}
	})
	t.Run("installed, it runs through kubectl", func(t *testing.T) { checkInstalled(t, p, dir) })
	// krew itself can't be had as a Go module; where it is installed it does the same once more.
	if _, err := exec.LookPath("kubectl-krew"); err == nil {
		t.Run("krew installs it", func(t *testing.T) { checkKrew(t, dir) })
	} else {
		t.Logf("krew is not installed here (%v): its documented steps were done instead", err)
	}
}

func checkManifest(t *testing.T, p plugin) {
	if p.APIVersion != "krew.googlecontainertools.github.com/v1alpha2" || p.Kind != "Plugin" {
		t.Errorf("is a %s %s", p.APIVersion, p.Kind)
	}
	// "Plugin names must be all lowercase and separate words with hyphens"; the file bears the name.
	if p.Name != "sandbox" || !regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`).MatchString(p.Name) {
		t.Errorf("name is %q", p.Name)
	}
	if rest, ok := strings.CutPrefix(p.Spec.Version, "v"); !ok || p.Spec.Version != release {
		t.Errorf("version is %q", p.Spec.Version)
	} else if _, err := version.ParseSemantic(rest); err != nil {
		t.Errorf("version: %v", err)
	}
	short := p.Spec.ShortDescription
	if short == "" || len(short) > 50 || strings.ContainsAny(short, "\r\n") || strings.HasSuffix(short, ".") {
		t.Errorf("shortDescription is %q (%d characters)", short, len(short))
	}
	if p.Spec.Description == "" || p.Spec.Caveats == "" || !strings.HasPrefix(p.Spec.Homepage, "https://") {
		t.Error("lacks description, caveats or homepage")
	}
	for _, line := range strings.Split(p.Spec.Description+p.Spec.Caveats, "\n") {
		if len(line) > 80 && !strings.Contains(line, "KREW_ROOT") {
			t.Errorf("line of more than 80 characters: %q", line)
		}
	}
	if len(p.Spec.Platforms) == 0 {
		t.Error("has no platform")
	}
	for _, pl := range p.Spec.Platforms {
		if !regexp.MustCompile(`^[a-f0-9]{64}$`).MatchString(pl.SHA256) {
			t.Errorf("%s: sha256 is %q", pl.URI, pl.SHA256)
		}
		if !strings.HasPrefix(pl.URI, "https://") || !strings.HasSuffix(pl.URI, ".tar.gz") || !strings.Contains(pl.URI, "/"+release+"/") {
			t.Errorf("uri is %q", pl.URI)
		}
	}
}

// checkPlatforms holds that selectors name each released platform once, and no other, and that the archive is whole.
func checkPlatforms(t *testing.T, p plugin, dir string) {
	platforms := released()
	if len(p.Spec.Platforms) != len(platforms) {
		t.Errorf("manifest has %d platforms, want %d", len(p.Spec.Platforms), len(platforms))
	}
	for _, want := range platforms {
		pl := choose(t, p, want)
		for _, requirement := range pl.Selector.MatchExpressions {
			t.Errorf("%v: selector has an expression: %v", want, requirement)
		}
		files := unpack(t, readArchive(t, dir, pl))
		if strings.HasSuffix(pl.Bin, ".exe") != (want.OS == "windows") {
			t.Errorf("%v: bin is %q", want, pl.Bin)
		}
		if bin, ok := files[pl.Bin]; !ok || bin.mode&0o111 == 0 {
			t.Errorf("%v: no program %q in the archive", want, pl.Bin)
		} else if !bytes.HasPrefix(bin.content, magic(want.OS)) {
			t.Errorf("%v: %s is no program for that system: it begins with % x", want, pl.Bin, bin.content[:4])
		}
		if license := files["LICENSE"]; !bytes.Contains(license.content, []byte("Apache License")) {
			t.Errorf("%v: no LICENSE in the archive", want)
		}
		if complete := files["kubectl_complete-sandbox"]; complete.mode&0o111 == 0 {
			t.Errorf("%v: no completion program in the archive", want)
		}
		if !bytes.Contains(files[pl.Bin].content, []byte(release)) {
			t.Errorf("%v: program does not know version %s", want, release)
		}
	}
}

// checkInstalled does the steps that krew's documentation gives for an installation, and calls the plugin as one would.
func checkInstalled(t *testing.T, p plugin, dir string) {
	pl := choose(t, p, krew.Platform{OS: runtime.GOOS, Arch: runtime.GOARCH})
	home := t.TempDir()
	store, bin := filepath.Join(home, "store", p.Name, p.Spec.Version), filepath.Join(home, "bin")
	for _, d := range []string{store, bin} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, f := range unpack(t, readArchive(t, dir, pl)) {
		if err := os.WriteFile(filepath.Join(store, name), f.content, f.mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(store, pl.Bin), filepath.Join(bin, "kubectl-"+p.Name)); err != nil {
		t.Fatal(err)
	}
	checkCalls(t, home)
}

// checkKrew installs the archive with krew.
func checkKrew(t *testing.T, dir string) {
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "kubectl-krew", "install", "--manifest="+filepath.Join(dir, "sandbox.yaml"),
		"--archive="+filepath.Join(dir, "kubectl-sandbox_"+runtime.GOOS+"_"+runtime.GOARCH+".tar.gz"))
	cmd.Env = append(os.Environ(), "KREW_ROOT="+home)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	checkCalls(t, home)
}

// checkCalls does what the caveats say about completion, and calls the plugin installed in home through kubectl, with
// nothing else but the system's programs on the PATH.
func checkCalls(t *testing.T, home string) {
	bin := filepath.Join(home, "bin")
	kubectl, err := filepath.Abs(filepath.Join(root, "bin", "kubectl"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(kubectl); err != nil {
		t.Fatalf("%v: run `make tools`", err)
	}
	for link, target := range map[string]string{
		"kubectl":                  kubectl,
		"kubectl_complete-sandbox": filepath.Join(home, "store", "sandbox", release, "kubectl_complete-sandbox"),
	} {
		if err := os.Symlink(target, filepath.Join(bin, link)); err != nil {
			t.Fatal(err)
		}
	}
	call := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "kubectl"), args...)
		cmd.Env = []string{"PATH=" + bin + ":/usr/bin:/bin", "HOME=" + t.TempDir(), "KUBECONFIG=/dev/null"}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	if out := call("sandbox", "version", "--client"); !strings.Contains(out, release) {
		t.Errorf("kubectl sandbox version --client printed %q, want %s in it", out, release)
	}
	if out := call("plugin", "list"); !strings.Contains(out, filepath.Join(bin, "kubectl-sandbox")) || strings.Contains(out, "overshadow") {
		t.Errorf("kubectl plugin list printed %q", out)
	}
	if out := call("__complete", "sandbox", "ver"); !strings.Contains(out, "version") {
		t.Errorf("completion of `kubectl sandbox ver` printed %q, want version in it", out)
	}
}

// choose returns the one platform of the manifest that krew would on want.
func choose(t *testing.T, p plugin, want krew.Platform) platform {
	t.Helper()
	var chosen []platform
	for _, pl := range p.Spec.Platforms {
		selector, err := metav1.LabelSelectorAsSelector(pl.Selector)
		if err != nil {
			t.Fatal(err)
		}
		if selector.Empty() {
			t.Fatalf("%s: selector is empty", pl.URI)
		}
		if selector.Matches(labels.Set{"os": want.OS, "arch": want.Arch}) {
			chosen = append(chosen, pl)
		}
	}
	if len(chosen) != 1 {
		t.Fatalf("%d platforms of the manifest select %v, want 1", len(chosen), want)
	}
	return chosen[0]
}

func readArchive(t *testing.T, dir string, pl platform) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, path.Base(pl.URI)))
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != pl.SHA256 {
		t.Errorf("%s: sha256 is not the archive's", pl.URI)
	}
	return content
}

type entry struct {
	mode    os.FileMode
	content []byte
}

// unpack reads an archive as krew does: regular files and directories only, no absolute path and no "..".
func unpack(t *testing.T, archive []byte) map[string]entry {
	t.Helper()
	zip, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]entry{}
	for r := tar.NewReader(zip); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		} else if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg || strings.ContainsAny(h.Name, `/\`) || strings.Contains(h.Name, "..") {
			t.Errorf("archive has entry %q of type %c", h.Name, h.Typeflag)
			continue
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = entry{h.FileInfo().Mode(), content}
	}
}

// magic returns how a 64-bit program of an operating system begins.
func magic(system string) []byte {
	switch system {
	case "windows":
		return []byte("MZ")
	case "darwin":
		return []byte{0xcf, 0xfa, 0xed, 0xfe}
	}
	return []byte("\x7fELF")
}
