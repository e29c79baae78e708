package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/image"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/node"
)

// Load puts the images of archives, as docker save or package image write them,
// where the kubelet finds them. Pods that use them should not set
// imagePullPolicy Always: there is no registry.
func (c *Cluster) Load(ctx context.Context, archives ...string) error {
	for _, path := range archives {
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		err = c.LoadFrom(ctx, file)
		_ = file.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// LoadFrom is Load for an archive that is not a file.
func (c *Cluster) LoadFrom(ctx context.Context, archive io.Reader) error {
	r, err := c.running()
	if err != nil {
		return err
	}
	if _, err := r.ctr(ctx, archive, "images", "import", "-"); err != nil {
		return fmt.Errorf("load image: %w", err)
	}
	return nil
}

// Exec starts a command in the node, where the machine's files and programs are
// in place but for /run and /var, and processes and interfaces are the node's.
// The programs of the cluster, ctr among them, are found. The caller waits for
// it.
func (c *Cluster) Exec(ctx context.Context, in io.Reader, out, errs io.Writer, name string, args ...string) error {
	r, err := c.running()
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, "/usr/bin/env", append([]string{"--", name}, args...)...)
	command.Env = environment(r.Programs)
	command.Stdin, command.Stdout, command.Stderr = in, out, errs
	if err := node.Run(r.Node, command); err != nil {
		return err
	}
	return command.Wait()
}

// Status tells of each part whether it runs.
func (c *Cluster) Status() ([]PartStatus, error) {
	r, err := c.running()
	if err != nil {
		return nil, err
	}
	status := []PartStatus{{Name: "node", PID: r.Node.PID, Running: true}}
	for _, p := range parts() {
		part := r.Parts[p.name]
		status = append(status, PartStatus{Name: p.name, PID: part.PID, Running: part.Running()})
	}
	return status, nil
}

// running returns the record of this cluster, or ErrNoCluster.
func (c *Cluster) running() (record, error) {
	r, err := readRecord()
	if err != nil {
		return r, err
	}
	if r.State != c.config.State || !r.Node.Running() {
		return r, ErrNoCluster
	}
	return r, nil
}

// images makes the images that the cluster itself needs and loads them, but for
// those that it has.
func (u *up) images(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var have []byte
	for { // until containerd answers
		var err error
		if have, err = u.record.ctr(ctx, nil, "images", "list", "--quiet"); err == nil {
			break
		}
		if !u.record.Parts["containerd"].Running() {
			return u.ended("containerd")
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("containerd does not answer: %w", err)
		case <-time.After(25 * time.Millisecond):
		}
	}
	names := strings.Fields(string(have))
	for program, name := range map[string]string{"pause": u.values.Pause, "coredns": u.values.CoreDNS} {
		if slices.Contains(names, name) {
			continue
		}
		img, err := image.Build(image.Spec{Binary: filepath.Join(u.folders[program], program)})
		if err != nil {
			return err
		}
		read, write := io.Pipe()
		go func() { write.CloseWithError(image.Write(write, name, img)) }()
		_, err = u.record.ctr(ctx, read, "images", "import", "-")
		_ = read.Close() // ends the writer if it was not read to the end
		if err != nil {
			return fmt.Errorf("load image %s: %w", name, err)
		}
	}
	return nil
}

// ctr runs containerd's own client and returns what it prints.
func (r record) ctr(ctx context.Context, in io.Reader, args ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, r.Programs["containerd"]+"/ctr", append([]string{"--namespace=k8s.io"}, args...)...)
	var out, errs bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = in, &out, &errs
	command.Env = environment(r.Programs)
	if err := node.Run(r.Node, command); err != nil {
		return nil, err
	}
	if err := command.Wait(); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("ctr: %s: %s", err.Error(), complaint(errs.String()))
	}
	return out.Bytes(), nil
}

// complaint returns the last line of what ctr has said, without its name.
func complaint(said string) string {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	return strings.TrimPrefix(lines[len(lines)-1], "ctr: ")
}

// environment is that of all programs in the node: nothing of whoever happened
// to start them.
func environment(programs map[string]string) []string {
	search := []string{programs["containerd"], programs["runc"], programs["kubernetes"],
		"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
	return []string{"HOME=/root", "PATH=" + strings.Join(search, ":")}
}
