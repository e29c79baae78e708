// Command coredns is CoreDNS with the plugins that a cluster's own names need.
// Names outside the cluster are refused: pods of this cluster reach nothing
// outside the machine, so there is no forward plugin, and none of the cloud
// providers' plugins with their SDKs.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance"
	_ "github.com/coredns/coredns/plugin/metrics"
	_ "github.com/coredns/coredns/plugin/ready"
)

func main() {
	// The order is the order in which a query passes through the plugins; it is
	// that of CoreDNS's own plugin.cfg.
	dnsserver.Directives = []string{"ready", "health", "prometheus", "errors", "loadbalance", "kubernetes"}
	coremain.Run()
}
