//go:build linux

// Package process names a process for longer than its id is its own.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ID is the identity of a process. Its process id alone is not one: the kernel
// gives the number to another process once this one is gone. Together with the
// boot and the time of the start within it, it is.
type ID struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks from the boot on, proc_pid_stat(5) field 22
	Boot  string `json:"boot"`  // /proc/sys/kernel/random/boot_id
}

// Of returns the identity of the process that has this id now.
func Of(pid int) (ID, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ID{}, err
	}
	start, _, err := stat(pid)
	if err != nil {
		return ID{}, err
	}
	return ID{PID: pid, Start: start, Boot: strings.TrimSpace(string(boot))}, nil
}

// Running reports whether the process still runs. One that has ended and that
// its parent has not waited for yet (a zombie) does not.
func (id ID) Running() bool {
	if id.PID <= 0 {
		return false
	}
	now, err := Of(id.PID)
	if err != nil || now != id {
		return false
	}
	_, ended, err := stat(id.PID)
	return err == nil && !ended
}

// Kill ends the process with SIGKILL and waits until it is gone. It is no error
// if it was gone before. The signal can't reach another process that got the
// same id: os.FindProcess holds on to the very process (pidfd_open(2)), and the
// identity is checked after that.
func (id ID) Kill(ctx context.Context) error {
	if id.PID <= 1 {
		return nil
	}
	handle, err := os.FindProcess(id.PID)
	if err != nil {
		return nil // gone
	}
	defer func() { _ = handle.Release() }()
	if !id.Running() {
		return nil
	}
	if err := handle.Signal(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill process %d: %w", id.PID, err)
	}
	for id.Running() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d does not end: %w", id.PID, ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

// stat returns the start time of a process, and whether it has ended.
func stat(pid int) (start uint64, ended bool, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false, err
	}
	return parseStat(data)
}

// parseStat reads proc_pid_stat(5). The second field is the name of the program
// in parentheses and may itself hold spaces and parentheses, so fields count
// from the last closing one.
//
// A process of several threads is a zombie as soon as its first thread is, while others may still hold its files open, sockets
// that listen among them: it has ended when it is the only thread left.
func parseStat(data []byte) (start uint64, ended bool, err error) {
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return 0, false, fmt.Errorf("no program name in %q", data)
	}
	fields := strings.Fields(string(data[end+1:]))
	const stateField, threadsField, startField = 0, 17, 19 // counted from the third, which is the first after the name
	if len(fields) <= startField || len(fields[stateField]) != 1 {
		return 0, false, fmt.Errorf("too few fields in %q", data)
	}
	start, err = strconv.ParseUint(fields[startField], 10, 64)
	if err != nil {
		return 0, false, err
	}
	threads, err := strconv.Atoi(fields[threadsField])
	state := fields[stateField]
	return start, state == "X" || state == "Z" && threads <= 1, err
}
