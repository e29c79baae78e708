// Package counts writes what routers counted to the ConfigMaps of sandboxes, and what they observed to those of
// experiments. What routers there are, and what each of them reported, it is told by an interface.
package counts

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// How requests are counted.
//
// A router reports, per fork, totals since it started. A sandbox's ConfigMap holds the sum over all routers there ever
// were (data.counts) and, beside it, how much of every living router's totals is in that sum already: its mark
// (data.counted). Both are written at once, on the version of the ConfigMap they were made from. So what is added is
// always total minus mark, and it does not matter who writes, how often, or what the lease holder knew before: a new
// one starts with the marks it finds. A fork is its Deployment's UID, in the table, in the report and in the mark: one
// that takes the key or the name of another begins at zero.
//
// No request is counted twice, and none is counted for another fork. A router that ends gracefully hands over what it
// has counted, and waits until that is written. Of one that does not, what it counted after its last report is lost: it
// reports every few seconds, and at once when asked.
//
// What is observed for experiments is counted the same way, and written to theirs: see observe.go.

const (
	// countsInterval is how long a changed count may wait to be written, so also how often a ConfigMap is at most.
	countsInterval = 10 * time.Second
	// maxMissing bounds how many routers sandbox.AnnotationFlushMissing names.
	maxMissing = 5
)

// A report is what a router counted in one life of its process.
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

// Put takes a total in, and says whether it is a new one.
func Put[T comparable](tallies map[string]Tally[T], key string, total T) bool {
	old, ok := tallies[key]
	if ok && old.Total == total {
		return false
	}
	tallies[key] = Tally[T]{Total: total}
	return true
}

// NewReport returns the report of a router's pod, with nothing in it.
func NewReport(uid types.UID) *Report {
	return &Report{
		UID: uid, Forks: map[string]Tally[route.Count]{}, Observed: map[string]map[string]Tally[route.Observation]{},
	}
}

// MarkWritten notes that a total is in the ConfigMap.
func MarkWritten[T comparable](tallies map[string]Tally[T], key string, total T) {
	if t, ok := tallies[key]; ok && t.Total == total {
		t.Written = true
		tallies[key] = t
	}
}

// Unwritten says whether anything of the report is still to be written.
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
