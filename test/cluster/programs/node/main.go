//go:build linux

// Command node is process 1 of the cluster's node. It is started in fresh
// mount, process and network namespaces, lays the node's file tree over the
// machine's, says so, and then only holds the namespaces open. When it dies,
// the kernel ends every process in its process namespace and drops every
// mount made in its mount namespace: nothing of a cluster outlives it.
//
//	node STATE PROGRAMS
//
// STATE appears as /run/node, PROGRAMS read-only as /run/programs, and
// STATE/var as /var; the rest of /run is a fresh tmpfs. So all paths inside are
// the same and short wherever the clone lies (the address of a Unix socket has
// at most 107 bytes), and paths that programs have built in, such as
// /var/lib/kubelet/device-plugins or /run/containerd/s, are not the machine's.
//
// On file descriptor 3 it writes "ready", or the error that it ends with. Then
// it waits for one byte on file descriptor 4, which says that whoever started
// it has put its process id on record; at the end of that file it ends, so that
// no node is ever left that nobody knows of.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	answer := os.NewFile(3, "answer")
	if err := arrange(); err != nil {
		fmt.Fprint(answer, err)
		os.Exit(1)
	}
	// With SIGCHLD ignored the kernel reaps children by itself (wait(2)).
	signal.Ignore(syscall.SIGCHLD, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM)
	fmt.Fprint(answer, "ready")
	_ = answer.Close()
	recorded := os.NewFile(4, "recorded")
	if n, _ := recorded.Read(make([]byte, 1)); n == 0 {
		os.Exit(1)
	}
	_ = recorded.Close()
	for {
		_ = syscall.Pause() // until SIGKILL
	}
}

// arrange makes the mounts.
func arrange() error {
	if len(os.Args) != 3 || os.Getpid() != 1 {
		return errors.New("usage, as process 1 of a process namespace: node STATE PROGRAMS")
	}
	// Held open, so that they can be mounted after what they lie under is covered.
	state, err := os.Open(os.Args[1])
	if err != nil {
		return err
	}
	defer func() { _ = state.Close() }()
	programs, err := os.Open(os.Args[2])
	if err != nil {
		return err
	}
	defer func() { _ = programs.Close() }()
	variable, err := os.Open(os.Args[1] + "/var")
	if err != nil {
		return err
	}
	defer func() { _ = variable.Close() }()

	// Bound while the machine's /proc, which shows the descriptors, is in place.
	if err := mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount("tmpfs", "/run", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=0755"); err != nil {
		return err
	}
	for _, dir := range []string{"/run/node", "/run/programs"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := mount(descriptor(state), "/run/node", "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return err
	}
	if err := mount(descriptor(programs), "/run/programs", "", syscall.MS_BIND, ""); err != nil {
		return err
	}
	if err := mount("", "/run/programs", "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		return err
	}
	if err := mount(descriptor(variable), "/var", "", syscall.MS_BIND, ""); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return err
	}
	// Shared inside, as the kubelet's mount propagation wants it.
	return mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, "")
}

func descriptor(f *os.File) string {
	return fmt.Sprintf("/proc/self/fd/%d", f.Fd())
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := syscall.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}
