package sandbox

import (
	"slices"
	"strings"
)

// Ports of the router in an injected pod. What we add to a pod listens on no other.
const (
	OutgoingPort    = 15359 // on loopback: the proxy that stamps keys on outgoing HTTP
	AdminPort       = 15360 // metrics, startup and health
	FirstListenPort = 15361 // captured ports: from here upwards, see Listen
)

// RoutesPort is where the webhook's pods serve the route stream. Routers in isolated pods must be able to reach it.
const RoutesPort = 9444

// Listen chooses the ports on which the router listens for ports. It counts up from FirstListenPort in order of the
// ports' names, and skips the app's own numbers and taken: all ports, of any protocol, that containers of the pod
// declare. Admission and the NetworkPolicies of `route` both call it, so they agree if they see the same containers.
// The result is sorted by name. If numbers run out it omits ports, but a pod cannot declare that many.
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
