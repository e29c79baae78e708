// Package delivery brings images to where the nodes of a cluster find them: loaded into the nodes of a local cluster, or
// pushed to a registry.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// A Target is a cluster's way to its images.
type Target struct {
	load     []string // command that loads the archive named by the argument put at its end; empty: push
	registry string
}

// Own is the cluster that the program at path brought up.
func Own(path string) Target { return Target{load: []string{path, "load"}} }

// For returns the target of the cluster that a kubeconfig's context names. With a registry (HOST/PATH), images are pushed
// there. Without, they are loaded by the program that made the cluster, where the context is one that kind, k3d or minikube
// made; any other is an error.
func For(kubeContext, registry string) (Target, error) {
	if registry != "" {
		return Target{registry: strings.TrimSuffix(registry, "/")}, nil
	}
	if cluster, ok := strings.CutPrefix(kubeContext, "kind-"); ok {
		return Target{load: []string{"kind", "load", "image-archive", "--name=" + cluster}}, nil
	}
	if cluster, ok := strings.CutPrefix(kubeContext, "k3d-"); ok {
		return Target{load: []string{"k3d", "image", "import", "--cluster=" + cluster}}, nil
	}
	if kubeContext == "minikube" {
		return Target{load: []string{"minikube", "image", "load"}}, nil
	}
	return Target{}, fmt.Errorf("context %q is of no cluster that images can be loaded into (kind, k3d, minikube): name a registry "+
		"that you may push to and that its nodes pull from, REGISTRY=HOST/PATH", kubeContext)
}

// Reference returns the name under which the cluster finds the image with the given one: its last element below the
// registry, or the name itself where images are loaded.
func (t Target) Reference(image string) string {
	if t.registry == "" {
		return image
	}
	return t.registry + "/" + path.Base(image)
}

// Deliver brings all images of the archives, of the form that `docker save` writes, to the cluster. Output of programs that
// load them goes to log.
func (t Target) Deliver(ctx context.Context, log io.Writer, archives ...string) error {
	for _, archive := range archives {
		if err := t.deliver(ctx, log, archive); err != nil {
			return fmt.Errorf("%s: %w", archive, err)
		}
	}
	return nil
}

func (t Target) deliver(ctx context.Context, log io.Writer, archive string) error {
	if t.registry != "" {
		return t.push(ctx, log, archive)
	}
	cmd := exec.CommandContext(ctx, t.load[0], append(t.load[1:len(t.load):len(t.load)], archive)...) //nolint:gosec // one of those above
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: install it, or name a registry, REGISTRY=HOST/PATH", err)
	} else if err != nil {
		return fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return nil
}

func (t Target) push(ctx context.Context, log io.Writer, archive string) error {
	manifest, err := tarball.LoadManifest(func() (io.ReadCloser, error) { return os.Open(archive) })
	if err != nil {
		return err
	}
	for _, described := range manifest {
		for _, tag := range described.RepoTags {
			from, err := name.NewTag(tag)
			if err != nil {
				return err
			}
			img, err := tarball.ImageFromPath(archive, &from)
			if err != nil {
				return err
			}
			to, err := name.NewTag(t.Reference(tag))
			if err != nil {
				return err
			}
			if err := remote.Write(to, img, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)); err != nil {
				return fmt.Errorf("push %s: %w", to, err)
			}
			fmt.Fprintf(log, "pushed %s\n", to)
		}
	}
	return nil
}
