package sandbox

import (
	"slices"
	"strings"
)

// Ports of the router's own in an injected pod. Nothing that it adds to a pod listens on any other.
const (
	OutgoingPort    = 15359 // on loopback: the proxy that stamps keys on outgoing HTTP
	AdminPort       = 15360 // metrics, startup and health
	FirstListenPort = 15361 // captured ports: from here upwards, see Listen
)

// RoutesPort is where the webhook's pods serve the route stream, and what routers in isolated pods must be let reach.
const RoutesPort = 9444

// Listen chooses the ports on which the router stands in for ports: counting up from FirstListenPort in order of the ports'
// names, passing over the app's own numbers and over taken, which are all ports that any container of the pod declares, of
// whatever protocol. Admission and the NetworkPolicies that `route` adds both call it, so they agree as long as they see
// the same containers. The result is in order of name. It fails by leaving ports out when the numbers run out; a pod cannot
// declare that many.
func Listen(ports []Port, taken []uint16) []Capture {
	used := make(map[uint16]bool, len(ports)+len(taken))
	for _, n := range taken {
		used[n] = true
	}
	for _, p := range ports {
		used[p.Number] = true
	}
	sorted := slices.SortedFunc(slices.Values(ports), func(a, b Port) int { return strings.Compare(a.Name, b.Name) })
	captures := make([]Capture, 0, len(sorted))
	next := uint32(FirstListenPort)
	for _, p := range sorted {
		for next <= 65535 && used[uint16(next)] {
			next++
		}
		if next > 65535 {
			break
		}
		captures = append(captures, Capture{Port: p, Listen: uint16(next)})
		next++
	}
	return captures
}
