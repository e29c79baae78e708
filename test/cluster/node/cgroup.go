//go:build linux

package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Make makes the group in every hierarchy, if it is not there. Its parent must be.
func (g Cgroup) Make() error {
	hierarchies, err := hierarchies()
	if err != nil {
		return err
	}
	if len(hierarchies) == 0 {
		return errors.New("no control groups are mounted; wanted below /sys/fs/cgroup")
	}
	for _, h := range hierarchies {
		dir := filepath.Join(h.mount, string(g))
		if err := h.enable(filepath.Dir(dir)); err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make control group: %w", err)
		}
		if !h.unified {
			if err := inheritCPUs(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// Remove removes the group and all below. It waits for processes in them to be
// gone, but ends none.
func (g Cgroup) Remove(ctx context.Context) error {
	hierarchies, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		for {
			err := removeGroup(filepath.Join(h.mount, string(g)))
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("remove control group: %w", err)
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	return nil
}

// Join moves a process into the group. It is no error if the process has ended.
func (g Cgroup) Join(pid int) error {
	hierarchies, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		procs := filepath.Join(h.mount, string(g), "cgroup.procs")
		err := os.WriteFile(procs, []byte(strconv.Itoa(pid)), 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("move process %d into its control group: %w", pid, err)
		}
	}
	return nil
}

// removeGroup removes a control group and those below it. Its files are the
// kernel's and go with it.
func removeGroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeGroup(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	err = unix.Rmdir(dir)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// hierarchy is a mounted tree of control groups.
type hierarchy struct {
	mount   string
	unified bool // version 2
}

func hierarchies() ([]hierarchy, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	var found []hierarchy
	for lines := bufio.NewScanner(file); lines.Scan(); {
		// proc_pid_mountinfo(5): id parent device root mount-point options ... - type source options
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(kind) < 1 {
			continue
		}
		if h := (hierarchy{fields[4], kind[0] == "cgroup2"}); (h.unified || kind[0] == "cgroup") && !slices.Contains(found, h) {
			found = append(found, h)
		}
	}
	return found, nil
}

// enable hands all of a version 2 group's controllers on to the groups below it.
func (h hierarchy) enable(dir string) error {
	if !h.unified {
		return nil
	}
	controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(controllers)) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
			return fmt.Errorf("hand on controller %s in %s: %w", controller, dir, err)
		}
	}
	return nil
}

// inheritCPUs gives a version 1 cpuset its parent's processors and memory nodes:
// it starts with none, and then takes no process.
func inheritCPUs(dir string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // not a cpuset
		}
		if err != nil {
			return err
		}
		if strings.TrimSpace(string(own)) != "" {
			continue
		}
		parents, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), parents, 0); err != nil {
			return err
		}
	}
	return nil
}
