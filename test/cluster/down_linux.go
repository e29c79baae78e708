package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/node"
)

// Down ends the cluster and removes all that it has left on the machine, the
// state folder included. It is no error if there is none.
func (c *Cluster) Down(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("ending the cluster needs root")
	}
	unlock, err := lockMachine()
	if err != nil {
		return err
	}
	defer unlock()
	r, err := readRecord()
	if err != nil {
		return err
	}
	if r.State == "" || r.State == c.config.State {
		if err := c.stop(ctx, r); err != nil {
			return err
		}
	}
	// A cluster of another clone's is left alone; this one's own is not running.
	return os.RemoveAll(c.config.State)
}

// stop ends the cluster on record, whichever clone's it is, and takes back what
// it changed on the machine. What it holds stays. The machine is locked.
func (c *Cluster) stop(ctx context.Context, r record) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := node.Stop(ctx, r.Node); err != nil {
		return err
	}
	if err := network().Disconnect(); err != nil {
		return err
	}
	if err := node.Group.Remove(ctx); err != nil {
		return err
	}
	if err := node.RestoreSysctls(r.Sysctls); err != nil {
		return err
	}
	return removeRecord()
}

func network() node.Network {
	pods, services := ranges()
	return node.Network{
		Interface: "kubectl-sandbox",
		Machine:   net.ParseIP(machineIP), Node: net.ParseIP(nodeIP),
		Pods: pods, Services: services,
	}
}
