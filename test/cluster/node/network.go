//go:build linux

package node

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/cluster/process"
)

// Network is what connects the node and the machine. All of it stays inside the
// machine: the node has no route out of it.
type Network struct {
	Interface string    // the machine's end of the cable
	Machine   net.IP    // address of the machine's end
	Node      net.IP    // address of the node's end; both are of one /30
	Pods      net.IPNet // routed to the node
	Services  net.IPNet // routed to the node; inside it kube-proxy has it
}

// blackhole is a bridge without ports, inside the node, that the Services' range
// is routed to: a packet for a Service must have a route before kube-proxy's
// rules give it another destination (and some kernels have no dummy device). A
// packet that no rule wants ends there.
const blackhole = "services"

// Connect makes the network. Where it is there already, it changes nothing.
func (n Network) Connect(id process.ID) error {
	inside, err := handle(id)
	if err != nil {
		return err
	}
	defer inside.Close()
	if _, err := inside.LinkByName("eth0"); err == nil {
		if _, err := netlink.LinkByName(n.Interface); err == nil {
			return nil // the last thing that the first call of Connect made is below
		}
	}
	if err := n.free(); err != nil {
		return err
	}
	if err := n.Disconnect(); err != nil {
		return err
	}
	if err := n.cable(id, inside); err != nil {
		return fmt.Errorf("network between machine and node: %w", errors.Join(err, n.Disconnect()))
	}
	return nil
}

// cable lays the cable and the routes on both of its ends.
func (n Network) cable(id process.ID, inside *netlink.Handle) error {
	// The node forwards between pods; whether the machine does is its own affair.
	forward := func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) }
	if err := within(id, unix.CLONE_NEWNET, forward); err != nil {
		return err
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = n.Interface
	veth := &netlink.Veth{LinkAttrs: attributes, PeerName: "eth0", PeerNamespace: netlink.NsPid(id.PID)}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add interface %s: %w", n.Interface, err)
	}
	if err := up(inside, "lo", nil); err != nil {
		return err
	}
	if err := up(inside, "eth0", n.Node); err != nil {
		return err
	}
	attributes = netlink.NewLinkAttrs()
	attributes.Name = blackhole
	if err := inside.LinkAdd(&netlink.Bridge{LinkAttrs: attributes}); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add bridge %s: %w", blackhole, err)
	}
	if err := up(inside, blackhole, nil); err != nil {
		return err
	}
	hole, err := inside.LinkByName(blackhole)
	if err != nil {
		return err
	}
	if err := inside.RouteReplace(&netlink.Route{LinkIndex: hole.Attrs().Index, Dst: &n.Services, Src: n.Node, Scope: netlink.SCOPE_LINK}); err != nil {
		return fmt.Errorf("route to Services: %w", err)
	}

	machine, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer machine.Close()
	if err := up(machine, n.Interface, n.Machine); err != nil {
		return err
	}
	link, err := machine.LinkByName(n.Interface)
	if err != nil {
		return err
	}
	for _, to := range []*net.IPNet{&n.Pods, &n.Services} {
		if err := machine.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: to, Gw: n.Node}); err != nil {
			return fmt.Errorf("route to %s: %w", to, err)
		}
	}
	return nil
}

// Disconnect removes the cable, and with it the routes over it.
func (n Network) Disconnect() error {
	link, err := netlink.LinkByName(n.Interface)
	if err != nil {
		var missing netlink.LinkNotFoundError
		if errors.As(err, &missing) {
			return nil
		}
		return err
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("remove interface %s: %w", n.Interface, err)
	}
	return nil
}

// free returns an error if the machine uses an address of the network already,
// for something else.
func (n Network) free() error {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, route := range routes {
		if route.Dst == nil || route.Dst.IP.IsUnspecified() {
			continue
		}
		link, err := netlink.LinkByIndex(route.LinkIndex)
		if err == nil && link.Attrs().Name == n.Interface {
			continue
		}
		for _, own := range []net.IPNet{n.Pods, n.Services, {IP: n.Node, Mask: net.CIDRMask(30, 32)}} {
			if own.Contains(route.Dst.IP) || route.Dst.Contains(own.IP) {
				return fmt.Errorf("the cluster's addresses %s are in use on this machine: route %s", &own, strings.TrimSpace(route.String()))
			}
		}
	}
	return nil
}

// handle opens a netlink socket in the node's network namespace.
func handle(id process.ID) (*netlink.Handle, error) {
	namespace, err := netns.GetFromPid(id.PID)
	if err != nil {
		return nil, err
	}
	defer func() { _ = namespace.Close() }()
	if !id.Running() {
		return nil, errors.New("the node does not run")
	}
	return netlink.NewHandleAt(namespace)
}

// up gives an interface an address, if there is one, and switches it on.
func up(h *netlink.Handle, name string, address net.IP) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	if address != nil {
		add := &netlink.Addr{IPNet: &net.IPNet{IP: address, Mask: net.CIDRMask(30, 32)}}
		if err := h.AddrReplace(link, add); err != nil {
			return fmt.Errorf("address of %s: %w", name, err)
		}
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("switch on %s: %w", name, err)
	}
	return nil
}
