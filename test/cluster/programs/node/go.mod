module github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/programs/node

go 1.26.0
