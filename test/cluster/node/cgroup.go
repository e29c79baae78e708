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

const daemons = Cgroup + "/node"

// MakeCgroups makes the control groups, in each hierarchy of version 1, or in
// that of version 2.
func MakeCgroups() error {
	hierarchies, err := hierarchies()
	if err != nil {
		return err
	}
	if len(hierarchies) == 0 {
		return errors.New("no control groups are mounted; wanted below /sys/fs/cgroup")
	}
	for _, h := range hierarchies {
		if err := h.enable(h.mount); err != nil {
			return err
		}
		for _, group := range []string{Cgroup, daemons} {
			dir := filepath.Join(h.mount, group)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("make control group: %w", err)
			}
			if err := inheritCPUs(dir); err != nil {
				return err
			}
		}
		if err := h.enable(filepath.Join(h.mount, Cgroup)); err != nil {
			return err
		}
	}
	return nil
}

// RemoveCgroups removes the control groups and all below. It waits for
// processes in them to be gone, but ends none.
func RemoveCgroups(ctx context.Context) error {
	hierarchies, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		top := filepath.Join(h.mount, Cgroup)
		for {
			err := removeGroup(top)
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

// join moves a process into the node's control group. Without it, a cluster
// would count as part of whatever session happened to start it, and be stopped
// or short of memory along with that.
func join(pid int) error {
	hierarchies, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		procs := filepath.Join(h.mount, daemons, "cgroup.procs")
		err := os.WriteFile(procs, []byte(strconv.Itoa(pid)), 0)
		if err != nil && !errors.Is(err, unix.ESRCH) { // ended by itself: whoever waits for it sees why
			return fmt.Errorf("move process %d into its control group: %w", pid, err)
		}
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
	defer file.Close()
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
		if strings.TrimSpace(string(parents)) == "" {
			continue // version 2, where nothing means the parent's
		}
		if err := os.WriteFile(filepath.Join(dir, name), parents, 0); err != nil {
			return err
		}
	}
	return nil
}
