# make cluster        a real Kubernetes on this machine (Linux, root), kubeconfig in .cluster/kubeconfig
# make cluster-down   end it and remove all it has left
#
# kubectl and helm are linked into bin/ by make cluster.

.DEFAULT_GOAL := cluster

CLUSTER_SOURCES := $(shell find test/cluster -name '*.go' -o -path 'test/cluster/config/*' -type f)

# The tests' module builds it: the product's own has no need of what it takes.
bin/cluster: $(CLUSTER_SOURCES) test/go.mod test/go.sum
	cd test && go build -o ../$@ ./cluster/cmd/cluster

.PHONY: cluster cluster-down
cluster: bin/cluster
	bin/cluster up $(UP)

cluster-down: bin/cluster
	bin/cluster down
