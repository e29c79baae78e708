// Package wait waits until the API server and its controllers have done what was written.
package wait

import (
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
)

// A Waiter watches the namespace of a client.
type Waiter struct {
	*cluster.Client
	read *read.Reader
}

// New returns a Waiter for the client's cluster and namespace.
func New(c *cluster.Client) *Waiter { return &Waiter{c, read.New(c)} }
