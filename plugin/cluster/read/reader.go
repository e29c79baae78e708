// Package read reads the state of a cluster for package plan: what a command is planned from, and what is shown of it.
package read

import "github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"

// A Reader reads one cluster.
type Reader struct{ *cluster.Client }

// New returns a Reader of the client's cluster and namespace.
func New(c *cluster.Client) *Reader { return &Reader{c} }
