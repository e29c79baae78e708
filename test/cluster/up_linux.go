package cluster

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/node"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/process"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/program"
)

// startTimeout bounds each wait for the cluster to get somewhere.
const startTimeout = 2 * time.Minute

// Up brings the cluster up and returns once its node is ready and a Service is
// reached by its name. What runs already and is as it should be stays as it is;
// what a crash or a kill has left is mended. Objects in the API survive that,
// and the end of all of the cluster's processes, but not Down.
func (c *Cluster) Up(ctx context.Context) error {
	start := time.Now()
	if err := c.check(); err != nil {
		return err
	}
	if err := node.KeepFiles(); err != nil {
		return err
	}
	// Before a long build, and again once the machine is locked.
	if err := c.hold(ctx, false); err != nil {
		return err
	}
	folders, err := c.programs(ctx)
	if err != nil {
		return err
	}
	unlock, err := lockMachine()
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.hold(ctx, true); err != nil {
		return err
	}
	r, err := readRecord()
	if err != nil {
		return err
	}
	u := &up{Cluster: c, record: r, folders: folders, values: newValues(folders)}
	if err := u.run(ctx); err != nil {
		return fmt.Errorf("%w\n(logs: %s; make cluster tries again, make cluster-down removes everything)", err, c.path("log"))
	}
	c.progress.Say("cluster is up: %s (KUBECONFIG=%s)", time.Since(start).Round(10*time.Millisecond), c.Kubeconfig())
	return nil
}

// check returns an error if the machine can't have a cluster.
func (c *Cluster) check() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("a cluster of its own needs root, for it makes namespaces and mounts: run this as root, or do without: %s", WayOut)
	}
	if err := os.MkdirAll(c.config.State, 0o755); err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(c.config.State, &fs); err != nil {
		return fmt.Errorf("%s: %w", c.config.State, err)
	}
	if fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return fmt.Errorf("%s lies on overlayfs, which can't hold container images: name another folder by --state (inside a container: one on a volume), or do without: %s", c.config.State, WayOut)
	}
	return nil
}

// hold makes sure that no other clone's cluster has the machine. It stops one
// only if the machine is locked.
func (c *Cluster) hold(ctx context.Context, locked bool) error {
	r, err := readRecord()
	if err != nil {
		return err
	}
	if r.State == "" || r.State == c.config.State {
		return nil
	}
	if !r.Node.Running() {
		if !locked {
			return nil
		}
		return c.stop(ctx, r) // a wreck: nothing runs, something may be left
	}
	_, err = os.Stat(r.State)
	gone := errors.Is(err, fs.ErrNotExist)
	if !gone && !c.config.TakeOver {
		return fmt.Errorf("the cluster of %s has this machine, and there can be only one: make cluster-down there ends it; make cluster UP=--take-over here stops it, and make cluster there starts it again with what it held", filepath.Dir(r.State))
	}
	if !locked {
		return nil
	}
	c.progress.Say("stopping the cluster of %s", r.State)
	return c.stop(ctx, r)
}

// programs installs and builds what is missing, and returns the programs' folders.
func (c *Cluster) programs(ctx context.Context) (map[string]string, error) {
	// A login shell of a user may lack the folders of a machine's own programs.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin"); err != nil {
		return nil, err
	}
	logs := c.path("log")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return nil, err
	}
	if missing := program.Missing(ctx, program.Runtime()...); len(missing) > 0 {
		err := c.progress.Step("installing Debian packages: "+strings.Join(missing, ", "), func() error {
			var said bytes.Buffer
			if err := program.Install(ctx, &said, missing...); err != nil {
				return fmt.Errorf("%w\n%s", err, said.Bytes())
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	builder := program.Builder{
		Modules: filepath.Join(c.config.Root, modules), Cache: c.config.Cache, Logs: logs, Progress: c.progress,
	}
	folders, err := builder.Ensure(ctx, program.All()...)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.config.Bin, 0o755); err != nil {
		return nil, err
	}
	for name, folder := range map[string]string{"kubectl": folders["kubernetes"], "helm": folders["helm"]} {
		if err := link(filepath.Join(folder, name), filepath.Join(c.config.Bin, name)); err != nil {
			return nil, err
		}
	}
	return folders, nil
}

// up is one run of Up. The machine is locked.
type up struct {
	*Cluster
	record  record
	folders map[string]string
	values  values
	// seen are the parts that this run has found running or started.
	seen []string
	// kubelet is when this run started the kubelet, if it did.
	kubelet time.Time
}

func (u *up) run(ctx context.Context) error {
	if err := u.prepare(); err != nil {
		return err
	}
	if err := u.node(ctx); err != nil {
		return err
	}
	all := parts()
	const first = 3 // etcd, containerd, API server: the others need them to be there
	for _, p := range all[:first] {
		if err := u.part(ctx, p); err != nil {
			return err
		}
	}
	images := make(chan error, 1)
	go func() { images <- u.images(ctx) }()
	client, err := newClient(u.Kubeconfig())
	if err != nil {
		return err
	}
	if err := u.wait(ctx, "waiting for the API server", client.serving); err != nil {
		return errors.Join(err, <-images)
	}
	if err := <-images; err != nil {
		return err
	}
	for _, p := range all[first:] {
		if err := u.part(ctx, p); err != nil {
			return err
		}
	}
	dns, err := render("config/coredns.yaml", dnsManifest, u.values)
	if err != nil {
		return err
	}
	if err := client.apply(ctx, dns); err != nil {
		return fmt.Errorf("apply CoreDNS: %w", err)
	}
	return u.wait(ctx, "waiting for node and DNS", func(ctx context.Context) error {
		if err := client.nodeReady(ctx, u.kubelet); err != nil {
			return err
		}
		if err := client.namespaceReady(ctx, "default"); err != nil {
			return err
		}
		return resolves(ctx)
	})
}

// node makes sure that the node is there, with its network and control groups.
func (u *up) node(ctx context.Context) error {
	if u.record.Node.Running() && !u.sees() {
		u.progress.Say("%s was removed under a running cluster: starting anew", u.config.State)
		if err := u.stop(ctx, u.record); err != nil {
			return err
		}
		u.record = record{}
	}
	if err := os.MkdirAll(machineDir, 0o755); err != nil {
		return err
	}
	if u.record.Sysctls == nil {
		sysctls, err := node.Sysctls()
		if err != nil {
			return err
		}
		u.record.Sysctls = sysctls
	}
	if !u.record.Node.Running() {
		// What a node that was killed has left would make the kubelet ask
		// containerd, in vain and for long, about pods that are gone.
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if err := node.Group.Remove(ctx); err != nil {
			return fmt.Errorf("%w (is there a process in it that is not of a cluster on record?)", err)
		}
	}
	for _, group := range []node.Cgroup{node.Group, node.Daemons} {
		if err := group.Make(); err != nil {
			return err
		}
	}
	if !u.record.Node.Running() {
		u.record.State, u.record.Parts = u.config.State, map[string]running{}
		binary := filepath.Join(u.folders["node"], "node")
		recorded := func(id process.ID) error {
			u.record.Node = id
			return u.record.write()
		}
		if _, err := node.Start(ctx, binary, u.config.State, u.config.Cache, u.LogPath("node"), recorded); err != nil {
			return err
		}
	}
	u.record.Programs = u.values.Programs
	changes, err := node.RaiseLimits()
	if len(changes) > 0 {
		u.progress.Say("raised limits of this machine, until cluster down: %s", strings.Join(changes, ", "))
	}
	if err != nil {
		return err
	}
	return network().Connect(u.record.Node)
}

// sees reports whether the running node has this state, rather than one that
// was removed and made again.
func (u *up) sees() bool {
	inside, errInside := os.Stat(fmt.Sprintf("/proc/%d/root%s", u.record.Node.PID, insideState))
	outside, errOutside := os.Stat(u.config.State)
	return errInside == nil && errOutside == nil && os.SameFile(inside, outside)
}

// part makes sure that a part runs, and with what it should.
func (u *up) part(ctx context.Context, p part) error {
	spec, err := u.spec(p)
	if err != nil {
		return err
	}
	u.seen = append(u.seen, p.name)
	now := u.record.Parts[p.name]
	if now.Running() && now.Spec == spec {
		return nil
	}
	// Not just the one on record: an Up that was killed may have started another.
	copies, err := node.Find(u.record.Node, p.name)
	if err != nil {
		return err
	}
	for _, one := range copies {
		if err := one.Kill(ctx); err != nil {
			return err
		}
	}
	output, err := os.OpenFile(u.LogPath(p.name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = output.Close() }()
	command := exec.CommandContext(context.WithoutCancel(ctx), u.values.Programs[p.program]+"/"+p.name, p.args...)
	command.Env = environment(u.values.Programs)
	command.Stdout, command.Stderr = output, output
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if p.name == "kubelet" {
		u.kubelet = time.Now()
	}
	if err := node.Run(u.record.Node, command); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	id, err := process.Of(command.Process.Pid)
	go func() { _ = command.Wait() }() // no zombie while this process lives; it is the node's child after that
	if err != nil {
		return u.ended(p.name)
	}
	u.record.Parts[p.name] = running{ID: id, Spec: spec}
	return u.record.write()
}

// spec names all that a part is started with.
func (u *up) spec(p part) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q\n", u.values.Programs[p.program], p.args)
	for _, path := range p.files {
		content, err := os.ReadFile(u.path(path))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%q\n", content)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// wait polls until reached returns nil. It gives up when a part has ended, since
// no waiting will mend that.
func (u *up) wait(ctx context.Context, what string, reached func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("not within %s", startTimeout))
	defer cancel()
	return u.progress.Step(what, func() error {
		for {
			err := reached(ctx)
			if err == nil {
				return nil
			}
			for _, name := range u.seen {
				if !u.record.Parts[name].Running() {
					return u.ended(name)
				}
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s: %w: %w", what, context.Cause(ctx), err)
			case <-time.After(25 * time.Millisecond):
			}
		}
	})
}

// ended is the error for a part that does not run on.
func (u *up) ended(name string) error {
	tail, err := program.Tail(u.LogPath(name), 20)
	if err != nil {
		return fmt.Errorf("%s ended, and its log can't be read: %w", name, err)
	}
	return fmt.Errorf("%s ended; the end of %s:\n%s", name, u.LogPath(name), tail)
}
