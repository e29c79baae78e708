package node

// Cgroup is the control group, from the root of each hierarchy, that all of the
// cluster is in: the programs of the node itself in "node" below it, and the
// pods in the one that the kubelet makes below it.
const Cgroup = "/kubectl-sandbox"
