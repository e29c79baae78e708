package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/process"
)

// machineDir holds what concerns the machine rather than one clone: which
// cluster has it, and by which processes. It is not in the clone, so that the
// cluster of a clone that was deleted can still be found and ended. After a
// reboot it is gone or its processes are said not to run.
const machineDir = "/run/kubectl-sandbox"

// record is what is written down about the cluster that has the machine.
type record struct {
	State string             `json:"state"` // the folder of the cluster
	Node  process.ID         `json:"node"`
	Parts map[string]running `json:"parts"`
	// Programs are the folders of the programs it runs, inside the node.
	Programs map[string]string `json:"programs"`
	// Sysctls are the settings of the machine as they were before the cluster.
	Sysctls map[string]string `json:"sysctls"`
}

// running is a part that was started.
type running struct {
	process.ID
	// Spec names what it was started with.
	Spec string `json:"spec"`
}

// lockMachine waits until no other command changes the cluster of this machine.
func lockMachine() (unlock func(), err error) {
	for {
		if err := os.MkdirAll(machineDir, 0o755); err != nil {
			return nil, err
		}
		dir, err := os.Open(machineDir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed by a Down that has just ended
		}
		if err != nil {
			return nil, err
		}
		err = syscall.Flock(int(dir.Fd()), syscall.LOCK_EX)
		if err != nil {
			_ = dir.Close()
			if errors.Is(err, syscall.EINTR) {
				continue
			}
			return nil, fmt.Errorf("lock %s: %w", machineDir, err)
		}
		if same(machineDir, dir) {
			return func() { _ = dir.Close() }, nil
		}
		_ = dir.Close() // what was locked has been removed meanwhile
	}
}

func same(path string, open *os.File) bool {
	a, errA := os.Stat(path)
	b, errB := open.Stat()
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// readRecord returns the record, empty if there is none.
func readRecord() (record, error) {
	r := record{Parts: map[string]running{}}
	data, err := os.ReadFile(filepath.Join(machineDir, "cluster.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("%s/cluster.json: %w", machineDir, err)
	}
	return r, nil
}

func (r record) write() error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(machineDir, "cluster.json"), data, 0o600)
}

// removeRecord removes the record and its folder. The machine is locked.
func removeRecord() error {
	return os.RemoveAll(machineDir)
}

// writeFile writes a file as a whole or not at all.
func writeFile(path string, data []byte, mode os.FileMode) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }() // fails once it is renamed
	_, err = file.Write(data)
	err = errors.Join(err, file.Chmod(mode), file.Close())
	if err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
