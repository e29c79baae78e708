// Package counts writes what routers counted to the ConfigMaps of sandboxes, and what they observed to those of
// experiments. An interface provides the routers and their reports.
package counts

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// How requests are counted.
//
// A router reports, for each fork, totals since it started. A sandbox's ConfigMap holds the sum over all routers that
// ever ran (data.counts). Beside it is each router's mark (data.counted): how much of its totals the sum contains. One
// write sets both, with the resource version they were computed from. So the amount to add is always total minus mark.
// It does not matter who writes, how often, or what the previous lease holder knew: a new one starts with the marks it
// finds. A fork is identified by its Deployment's UID in tables, reports and marks. So a fork that takes over a key or
// a name starts at zero.
//
// No request is counted twice, and none is counted for another fork. A router that ends gracefully reports its counts,
// and waits until they are written. If it crashes, what it counted since its last report is lost: it reports every few
// seconds, and at once on request.
//
// What is observed for experiments is counted in the same way, and written to their ConfigMaps: see observe.go.

const (
	// countsInterval is how long a changed count may wait to be written, and the shortest interval between two writes.
	countsInterval = 10 * time.Second
	// maxMissing bounds how many routers sandbox.AnnotationFlushMissing names.
	maxMissing = 5
)

// A Report holds what a router counted in one life of its process.
type Report struct {
	UID      types.UID
	Forks    map[string]Tally[route.Count]                  // of forks
	Observed map[string]map[string]Tally[route.Observation] // by ConfigMap of the experiment and key
}

// A Tally is a total of one router.
type Tally[T comparable] struct {
	Total   T
	Written bool // the total is in the ConfigMap
}

// Put stores a total, and reports whether it changed.
func Put[T comparable](tallies map[string]Tally[T], key string, total T) bool {
	old, ok := tallies[key]
	if ok && old.Total == total {
		return false
	}
	tallies[key] = Tally[T]{Total: total}
	return true
}

// NewReport returns an empty report of a pod's router.
func NewReport(uid types.UID) *Report {
	return &Report{
		UID: uid, Forks: map[string]Tally[route.Count]{}, Observed: map[string]map[string]Tally[route.Observation]{},
	}
}

// MarkWritten records that a total is in the ConfigMap.
func MarkWritten[T comparable](tallies map[string]Tally[T], key string, total T) {
	if t, ok := tallies[key]; ok && t.Total == total {
		t.Written = true
		tallies[key] = t
	}
}

// Unwritten reports whether anything of the report is not written yet.
func (r *Report) Unwritten() bool {
	for _, t := range r.Forks {
		if !t.Written {
			return true
		}
	}
	for _, keys := range r.Observed {
		for _, t := range keys {
			if !t.Written {
				return true
			}
		}
	}
	return false
}
