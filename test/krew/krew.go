// Package krew makes what a release puts into the krew index: an archive of the plugin for every platform, and the manifest.
package krew

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"text/template"
)

// A Platform is an operating system and an architecture, by Go's names, which are krew's as well.
type Platform struct{ OS, Arch string }

// Platforms returns those that the plugin is released for.
func Platforms() []Platform {
	return []Platform{
		{"darwin", "amd64"}, {"darwin", "arm64"},
		{"linux", "amd64"}, {"linux", "arm64"},
		{"windows", "amd64"}, {"windows", "arm64"},
	}
}

// An Archive is one platform's download.
type Archive struct {
	Platform
	Name   string // of the file
	SHA256 string // of its content, hexadecimal
	Bin    string // the plugin's program in it
}

// A Release is what to make.
type Release struct {
	Root    string // of the repository
	Out     string // directory for archives, manifest (sandbox.yaml) and checksums (sha256sums.txt)
	Version string // with a "v"

	Platforms []Platform // empty: all of Platforms
}

// Build builds the plugin for each platform, packs the archives and writes manifest and checksums beside them. The same
// sources make the same bytes.
func (r Release) Build(ctx context.Context) ([]Archive, error) {
	if err := os.MkdirAll(r.Out, 0o755); err != nil { //nolint:gosec // a directory of downloads
		return nil, err
	}
	platforms := r.Platforms
	if len(platforms) == 0 {
		platforms = Platforms()
	}
	var archives []Archive
	for _, p := range platforms {
		a, err := r.archive(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("%s/%s: %w", p.OS, p.Arch, err)
		}
		archives = append(archives, a)
	}
	manifest, err := r.manifest(archives)
	if err != nil {
		return nil, err
	}
	var sums bytes.Buffer
	for _, a := range archives {
		fmt.Fprintf(&sums, "%s  %s\n", a.SHA256, a.Name)
	}
	return archives, cmp.Or(r.write("sandbox.yaml", manifest), r.write("sha256sums.txt", sums.Bytes()))
}

func (r Release) archive(ctx context.Context, p Platform) (Archive, error) {
	a := Archive{Platform: p, Bin: "kubectl-sandbox", Name: fmt.Sprintf("kubectl-sandbox_%s_%s.tar.gz", p.OS, p.Arch)}
	if p.OS == "windows" {
		a.Bin += ".exe"
	}
	program, err := r.build(ctx, p, a.Bin)
	if err != nil {
		return a, err
	}
	files := []file{{name: a.Bin, mode: 0o755, content: program}}
	for name, mode := range map[string]int64{"LICENSE": 0o644, "krew/kubectl_complete-sandbox": 0o755} {
		content, err := os.ReadFile(filepath.Join(r.Root, name))
		if err != nil {
			return a, err
		}
		files = append(files, file{filepath.Base(name), mode, content})
	}
	packed, err := pack(files)
	if err != nil {
		return a, err
	}
	sum := sha256.Sum256(packed)
	a.SHA256 = hex.EncodeToString(sum[:])
	return a, r.write(a.Name, packed)
}

// build returns the plugin's program for p.
func (r Release) build(ctx context.Context, p Platform, name string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "krew-build-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program := filepath.Join(dir, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", //nolint:gosec // the version is the caller's own
		"-ldflags=-s -w -X main.version="+r.Version, "-o", program, "./cmd/kubectl-sandbox")
	cmd.Dir = r.Root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+p.OS, "GOARCH="+p.Arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return os.ReadFile(program)
}

func (r Release) manifest(archives []Archive) ([]byte, error) {
	t, err := template.ParseFiles(filepath.Join(r.Root, "krew", "sandbox.yaml.tmpl"))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = t.Execute(&out, struct {
		Version  string
		Archives []Archive
	}{r.Version, archives})
	return out.Bytes(), err
}

func (r Release) write(name string, content []byte) error {
	return os.WriteFile(filepath.Join(r.Out, name), content, 0o644) //nolint:gosec // for everybody to download
}

type file struct {
	name    string
	mode    int64
	content []byte
}

// pack returns a gzipped tar of files whose bytes depend on nothing else: in order of name, with no time and no owner.
func pack(files []file) ([]byte, error) {
	slices.SortFunc(files, func(a, b file) int { return cmp.Compare(a.name, b.name) })
	var out bytes.Buffer
	zip := gzip.NewWriter(&out)
	archive := tar.NewWriter(zip)
	for _, f := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.content)), Format: tar.FormatUSTAR}
		if err := archive.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := archive.Write(f.content); err != nil {
			return nil, err
		}
	}
	if err := cmp.Or(archive.Close(), zip.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
