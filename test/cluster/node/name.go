package node

// Cgroup is a control group, named by its path from the root of each hierarchy
// of control groups of version 1, or of the one of version 2.
type Cgroup string

const (
	// Group holds all of a cluster.
	Group Cgroup = "/kubectl-sandbox"
	// Daemons holds the programs of the node itself. The kubelet makes another
	// one below Group for the pods.
	Daemons = Group + "/node"
)
