// Command images builds the product's two images, and writes each as an archive that `docker load`, kind, k3d and
// containerd read.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/image"
)

func main() {
	var b builder
	flag.StringVar(&b.root, "root", ".", "root of the repository")
	flag.StringVar(&b.out, "out", "dist/images", "directory for the archives, one file NAME.tar each")
	flag.StringVar(&b.registry, "registry", "ghcr.io/kubectl-sandbox", "what the images' names begin with")
	flag.StringVar(&b.version, "version", "", "tag of the images, and what the programs say their version is")
	flag.StringVar(&b.arch, "arch", runtime.GOARCH, "architecture of the nodes")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for _, name := range []string{"sandbox-webhook", "sandbox-router"} {
		reference, err := b.build(ctx, name)
		if err != nil {
			fmt.Fprintf(os.Stderr, "error: %s: %v\n", name, err)
			os.Exit(1) //nolint:gocritic // the process ends
		}
		fmt.Fprintln(os.Stdout, reference)
	}
}

type builder struct {
	root, out, registry, version, arch string
}

// build builds the program, packs it, and returns the image's name. The archive is there only once it is whole.
func (b builder) build(ctx context.Context, name string) (string, error) {
	if err := os.MkdirAll(b.out, 0o755); err != nil { //nolint:gosec // for everybody to read
		return "", err
	}
	dir, err := os.MkdirTemp(b.out, name+"-*.new")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	program, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", //nolint:gosec // the version is the caller's own
		"-ldflags=-s -w -X main.version="+b.version, "-o", program, "./cmd/"+name)
	cmd.Dir = b.root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+b.arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	img, err := image.Build(image.Spec{Binary: program})
	if err != nil {
		return "", err
	}
	reference := b.registry + "/" + name + ":" + b.version
	file, err := os.Create(program + ".tar")
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	if err := image.Write(file, reference, img); err != nil {
		return "", err
	}
	if err := file.Close(); err != nil {
		return "", err
	}
	return reference, os.Rename(file.Name(), filepath.Join(b.out, name+".tar"))
}
