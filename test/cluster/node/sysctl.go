//go:build linux

package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Limits returns settings of the whole machine that hundreds of pods need higher
// than they usually are, and how high.
func Limits() map[string]int {
	return map[string]int{
		// Each pod that watches files, as every controller does, takes one instance;
		// all pods of one user id share the limit.
		"fs/inotify/max_user_instances": 8192,
		"fs/inotify/max_user_watches":   524288,
		// Neighbours: one a pod, and all network namespaces share the table.
		"net/ipv4/neigh/default/gc_thresh1": 4096,
		"net/ipv4/neigh/default/gc_thresh2": 8192,
		"net/ipv4/neigh/default/gc_thresh3": 16384,
	}
}

// kubelet returns the settings of the whole machine that the kubelet makes when it starts
// (k8s.io/component-helpers/node/util/sysctl).
func kubelet() []string {
	return []string{
		"vm/overcommit_memory", "vm/panic_on_oom",
		"kernel/panic", "kernel/panic_on_oops",
		"kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
	}
}

// Sysctls returns the present values of all settings that a cluster changes.
func Sysctls() (map[string]string, error) {
	values := map[string]string{}
	names := kubelet()
	for name := range Limits() {
		names = append(names, name)
	}
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // this kernel has no such setting
		}
		if err != nil {
			return nil, err
		}
		values[name] = strings.TrimSpace(string(data))
	}
	return values, nil
}

// RaiseLimits raises those of Limits that are lower, and returns what it did,
// a line each.
func RaiseLimits() ([]string, error) {
	present, err := Sysctls()
	if err != nil {
		return nil, err
	}
	var changes []string
	for name, wanted := range Limits() {
		value, ok := present[name]
		if !ok {
			continue
		}
		if n, err := strconv.Atoi(value); err == nil && n >= wanted {
			continue
		}
		if err := write(name, strconv.Itoa(wanted)); err != nil {
			return changes, err
		}
		changes = append(changes, fmt.Sprintf("%s: %s -> %d", strings.ReplaceAll(name, "/", "."), value, wanted))
	}
	return changes, nil
}

// RestoreSysctls sets them to what they were.
func RestoreSysctls(values map[string]string) error {
	present, err := Sysctls()
	if err != nil {
		return err
	}
	var all error
	for name, value := range values {
		if was, ok := present[name]; ok && was != value {
			all = errors.Join(all, write(name, value))
		}
	}
	return all
}

func write(name, value string) error {
	if err := os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0); err != nil {
		return fmt.Errorf("set sysctl %s: %w", strings.ReplaceAll(name, "/", "."), err)
	}
	return nil
}
