module github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/programs/pause

go 1.26.0
