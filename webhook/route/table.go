// Package route is what the control plane and the routers share: the table of routes of one baseline, how a request's
// key is found, and the encoding of tables. It imports nothing of Kubernetes.
package route

import (
	"cmp"
	"maps"
	"slices"
)

// A Version orders the tables of one baseline. Term counts lease transitions, so that every table of a new lease holder
// is newer than all of its predecessor's. Counter counts within a term.
type Version struct {
	Term    int64  `json:"term"`
	Counter uint64 `json:"counter"`
}

// Compare returns -1, 0 or +1 if v is older than, the same as, or newer than w.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Term, w.Term), cmp.Compare(v.Counter, w.Counter))
}

// A Table holds every route of one baseline. It is immutable once published: a change creates a new one.
type Table struct {
	Version Version         `json:"version"`
	Routes  map[string]Fork `json:"routes,omitempty"` // by routing key
	// Observe holds the keys whose requests are counted if they pass the baseline without being routed. Sorted.
	Observe []string `json:"observe,omitempty"`
}

// A Fork is the destination of a key's requests.
type Fork struct {
	Sandbox string `json:"sandbox"`
	Name    string `json:"name"` // the fork's Deployment
	UID     string `json:"uid"`  // of the Deployment: counts are of this fork, not of a later one with its name and key
	// FallBack sends requests to the baseline while Pods is empty; otherwise they get 503.
	FallBack bool `json:"fallBack,omitempty"`
	// Pods are the fork's pods that can serve: containers ready, of the newest revision that has any. Sorted by name.
	Pods []Pod `json:"pods,omitempty"`
	// Only, if not empty, restricts the route to these captured ports. It is set if the fork is of another workload, which
	// shares Services for these ports with this one.
	Only []string `json:"only,omitempty"`
	// Reason says, for people, why Pods is empty.
	Reason string `json:"reason,omitempty"`
}

// A Pod is one that serves a fork.
type Pod struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
	IP   string `json:"ip"`
	// Ports maps names of captured ports to this pod's port numbers; a missing name has the baseline's number.
	Ports map[string]uint16 `json:"ports,omitempty"`
}

// A Delta turns the table of version Base into that of version Version.
type Delta struct {
	Base    Version         `json:"base"`
	Version Version         `json:"version"`
	Set     map[string]Fork `json:"set,omitempty"`
	Remove  []string        `json:"remove,omitempty"`
	// Observe and Unobserve are the keys to add to the table's Observe, and to remove from it.
	Observe   []string `json:"observe,omitempty"`
	Unobserve []string `json:"unobserve,omitempty"`
}

// Apply returns the table with d applied, and false if d is not based on t's version.
func (t *Table) Apply(d *Delta) (*Table, bool) {
	if d.Base != t.Version || d.Version.Compare(t.Version) <= 0 {
		return nil, false
	}
	routes := maps.Clone(t.Routes)
	if routes == nil {
		routes = make(map[string]Fork, len(d.Set))
	}
	for _, key := range d.Remove {
		delete(routes, key)
	}
	maps.Copy(routes, d.Set)
	observe := t.Observe
	if len(d.Observe)+len(d.Unobserve) > 0 {
		observe = slices.DeleteFunc(slices.Concat(t.Observe, d.Observe), func(key string) bool { return slices.Contains(d.Unobserve, key) })
		slices.Sort(observe)
		observe = slices.Compact(observe)
	}
	return &Table{Version: d.Version, Routes: routes, Observe: observe}, true
}
