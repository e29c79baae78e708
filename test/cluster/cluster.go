// Package cluster brings up a real single-node Kubernetes on a bare Linux
// machine: etcd, API server, controller manager, scheduler, kubelet, kube-proxy,
// containerd, runc, CNI and CoreDNS, all built from their Go modules. No
// container engine, image registry or virtual machine takes part.
//
// Its node is in namespaces of its own (package node), so what is left to do to
// the machine is small and is taken back by Down. Pods, Services and the API
// server are reached from the machine by their addresses, and reach nothing
// outside it.
package cluster

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/progress"
)

// WayOut is how to go on without a cluster of one's own.
const WayOut = "make demo CLUSTER=current runs on the cluster of the current kubeconfig context instead"

// ErrNoCluster is returned by what needs a running cluster when there is none.
var ErrNoCluster = errors.New("no cluster runs here: make cluster starts one")

// Config says which cluster is meant.
type Config struct {
	// Root is the clone of the repository.
	Root string
	// State is the folder for all that the cluster keeps: .cluster in Root by
	// default. It must not lie on overlayfs.
	State string
	// Bin is the folder that kubectl and helm are linked into: bin in Root by
	// default.
	Bin string
	// Cache is the folder for built programs, shared by all clones: by default
	// kubectl-sandbox/programs in the user's cache folder.
	Cache string
	// TakeOver lets Up stop the cluster of another clone that holds the machine.
	TakeOver bool
	// Progress is where progress is told; nothing is by default.
	Progress io.Writer
}

// Cluster is a cluster, whether it runs or not.
type Cluster struct {
	config   Config
	progress *progress.Reporter
}

// New returns the cluster of a clone. It starts nothing.
func New(config Config) (*Cluster, error) {
	if config.Root == "" {
		return nil, errors.New("the folder of the repository is not given")
	}
	if config.Cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("no folder for built programs: %w (set XDG_CACHE_HOME)", err)
		}
		config.Cache = filepath.Join(user, "kubectl-sandbox", "programs")
	}
	if config.State == "" {
		config.State = filepath.Join(config.Root, ".cluster")
	}
	if config.Bin == "" {
		config.Bin = filepath.Join(config.Root, "bin")
	}
	for _, path := range []*string{&config.Root, &config.State, &config.Bin, &config.Cache} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return nil, err
		}
		*path = absolute
	}
	if config.Progress == nil {
		config.Progress = io.Discard
	}
	return &Cluster{config: config, progress: progress.New(config.Progress)}, nil
}

// FindRoot returns the clone that a folder lies in.
func FindRoot(from string) (string, error) {
	from, err := filepath.Abs(from)
	if err != nil {
		return "", err
	}
	for dir := from; ; dir = filepath.Dir(dir) {
		if info, err := os.Stat(filepath.Join(dir, modules)); err == nil && info.IsDir() {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not in a clone of kubectl-sandbox", from)
		}
	}
}

// modules is the folder in a clone that holds the programs' modules.
const modules = "test/cluster/programs"

// Kubeconfig is the path of the administrator's kubeconfig. The file is there
// once Up has succeeded.
func (c *Cluster) Kubeconfig() string { return c.path("kubeconfig") }

// LogPath is the path of the log of a part, "node" among them.
func (c *Cluster) LogPath(part string) string { return c.path("log", part+".log") }

// Parts returns the names of the programs that make up the cluster.
func (c *Cluster) Parts() []string {
	names := []string{"node"}
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return names
}

func (c *Cluster) path(elements ...string) string {
	return filepath.Join(append([]string{c.config.State}, elements...)...)
}

// PartStatus tells of one part.
type PartStatus struct {
	Name    string
	PID     int // on the machine; 0 if it was never started
	Running bool
}
