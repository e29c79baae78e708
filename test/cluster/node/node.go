//go:build linux

// Package node makes the machine within the machine that a cluster runs on: a
// process that holds mount, process and network namespaces, the network between
// it and the machine, and its control groups.
//
// All that a cluster starts runs in these namespaces. So ending one process ends
// the cluster: the kernel then ends every other process in the process
// namespace, and with the last of them go all mounts, interfaces, routes and
// packet filter rules. The machine itself only has one end of a virtual cable,
// two routes into it, a control group and a few raised limits, which Remove
// takes back.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/process"
)

// namespaces that the node does not share with the machine.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// KeepFiles has no program that this process starts from now on inherit the open
// files that it inherited itself, but for the standard three. What runs as long
// as a cluster does would hold on to them for that long: to the lock of a
// `flock FILE make cluster`, to the end of a pipe that somebody reads to its end.
func KeepFiles() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// Start starts the node: binary is programs/node, whose doc comment says what
// state and programs are for. recorded is called once the node's process is
// there; only when it returns nil does the node stay. It outlives the context.
func Start(ctx context.Context, binary, state, programs, log string, recorded func(process.ID) error) (process.ID, error) {
	var none process.ID
	answer, answerEnd, err := os.Pipe()
	if err != nil {
		return none, err
	}
	defer func() { _ = answer.Close() }()
	recordEnd, record, err := os.Pipe()
	if err != nil {
		return none, errors.Join(err, answerEnd.Close())
	}
	defer func() { _ = record.Close() }()
	output, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return none, errors.Join(err, answerEnd.Close(), recordEnd.Close())
	}
	defer func() { _ = output.Close() }()

	command := exec.CommandContext(context.WithoutCancel(ctx), binary, state, programs)
	command.Dir, command.Env = "/", []string{}
	command.Stdout, command.Stderr = output, output
	command.ExtraFiles = []*os.File{answerEnd, recordEnd}
	command.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces, Setsid: true}
	if err := errors.Join(command.Start(), answerEnd.Close(), recordEnd.Close()); err != nil {
		return none, fmt.Errorf("start the node in namespaces of its own: %w", err)
	}
	go func() { _ = command.Wait() }() // no zombie while this process lives
	said, err := io.ReadAll(answer)
	if err != nil {
		return none, err
	}
	if string(said) != "ready" {
		return none, fmt.Errorf("the node did not start: %s", said)
	}
	id, err := process.Of(command.Process.Pid)
	if err != nil {
		return none, fmt.Errorf("the node did not stay: %w", err)
	}
	if err := Daemons.Join(id.PID); err != nil {
		return none, err
	}
	if err := recorded(id); err != nil {
		return none, err // and with record closed unwritten, the node ends
	}
	if _, err := record.Write([]byte{1}); err != nil {
		return none, fmt.Errorf("the node did not stay: %w", err)
	}
	return id, nil
}

// Run starts a command in the node's namespaces, and in Daemons: without that, it
// would count as part of whatever session happened to start the cluster, and be
// stopped or short of memory along with it. The command's path is one inside
// the node. The caller waits for it.
func Run(id process.ID, command *exec.Cmd) error {
	if err := within(id, namespaces, command.Start); err != nil {
		return err
	}
	if err := Daemons.Join(command.Process.Pid); err != nil {
		return errors.Join(err, command.Process.Kill())
	}
	return nil
}

// Find returns the processes of the node itself, pods' not among them, that run
// a command of this name.
func Find(id process.ID, name string) ([]process.ID, error) {
	namespace := func(pid string) string { // unreadable of one that has ended
		link, _ := os.Readlink("/proc/" + pid + "/ns/pid")
		return link
	}
	own := namespace(strconv.Itoa(id.PID))
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []process.ID
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || namespace(entry.Name()) != own {
			continue
		}
		arguments, err := os.ReadFile("/proc/" + entry.Name() + "/cmdline")
		if err != nil {
			continue
		}
		command, _, _ := strings.Cut(string(arguments), "\x00")
		if path.Base(command) != name {
			continue
		}
		if this, err := process.Of(pid); err == nil {
			found = append(found, this)
		}
	}
	return found, nil
}

// within calls do on a thread that is in the given namespaces of the node's, as
// far as a thread can be: a process namespace holds for the children it makes.
func within(id process.ID, flags int, do func() error) error {
	handle, err := unix.PidfdOpen(id.PID, 0)
	if err != nil {
		return fmt.Errorf("the node (process %d): %w", id.PID, err)
	}
	defer func() { _ = unix.Close(handle) }()
	if !id.Running() { // checked after the handle is held, so it is this one or none
		return errors.New("the node does not run")
	}
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with this goroutine, for no other may
		// find itself in the node.
		runtime.LockOSThread()
		result <- func() error {
			// A thread that shares its root and working directory with others
			// can't change its mount namespace (setns(2)).
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			if err := unix.Setns(handle, flags); err != nil {
				return fmt.Errorf("enter the node's namespaces: %w", err)
			}
			return do()
		}()
	}()
	return <-result
}

// Stop ends the node and with it all that runs in it. The process of a process
// namespace's init is gone only when all others in it are (pid_namespaces(7)).
func Stop(ctx context.Context, id process.ID) error {
	return id.Kill(ctx)
}
