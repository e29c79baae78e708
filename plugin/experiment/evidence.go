package experiment

import (
	"fmt"
	"slices"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// Evidence is everything that is known about one check of one variant: how its Job ended, and the state of its
// requests and of the fork, from before the Job was created until after it ended. Only one check of a variant runs at
// a time, so the counts of the variant's key in that window belong to the check.
type Evidence struct {
	Job JobEnd
	// Sent is what the check's own router passed on, over all pods of the Job; nil if unknown.
	Sent *route.Sent
	// Before and After are the states of the variant's sandbox at both ends of the window.
	Before, After State
	// Seen adds up the states within the window.
	Seen Seen
	// Passed holds, by workload label, the requests with the variant's key that workloads received within the window
	// without routing them to a fork. Baseline holds the same for the key of the baseline's requests, if the check
	// sends such. Both are nil if unknown. PassedMissing names the routers that did not report.
	Passed, Baseline map[string]route.Observation
	PassedMissing    string
}

// PassedIn returns what was observed of a key between two observations, by workload label.
func PassedIn(before, after route.Observed, key string) map[string]route.Observation {
	passed := map[string]route.Observation{}
	for workload, all := range after[key] {
		more, ok := all.Since(before[key][workload])
		if !ok {
			more = all // the count was reset
		}
		if more.Requests > 0 {
			passed[workload] = more
		}
	}
	return passed
}

// A State is the state of a sandbox at one time.
type State struct {
	// Exists means that the sandbox exists and is not being deleted; UID identifies it.
	Exists bool
	UID    string
	// Counted means that Counts are exact at that time, except for the routers that Uncounted names.
	Counted   bool
	Uncounted string
	Counts    route.Totals // by workload label
	Forks     []ForkState
	// Routers identifies each run of each router in front of the forks' baselines, as "POD/...". Elsewhere identifies
	// those in front of other workloads, by label.
	Routers   []string
	Elsewhere map[string][]string
	// Ended are pods whose routers ended after they had handed over their counts.
	Ended []string
	// Routerless are the ready pods without a router that requests could reach, "POD of WORKLOAD".
	Routerless []string
	// Beside are the labels of workloads that are not forked and whose pods are behind Services of the forks'
	// baselines.
	Beside []string
}

// A ForkState is the state of a fork at one time.
type ForkState struct {
	Name     string // of its Deployment
	Workload string // label of its baseline
	UID      string
	Revision string // changes with the pod template
	Ready    bool
	Waiting  string // why requests do not reach it; empty if they do
	Pods     []ForkPod
}

// identity distinguishes a fork from its earlier and later versions: "customer-a (UID), revision 2, of sha256:...".
// If pods ran different images, Judge reports that.
func (f *ForkState) identity() string {
	s := fmt.Sprintf("%s (%s), revision %s", f.Name, f.UID, f.Revision)
	if len(f.Pods) > 0 {
		for _, i := range f.Pods[0].Images {
			s += ", " + i.Container + " of " + none(i.Digest)
		}
	}
	return s
}

// A ForkPod is a pod of a fork.
type ForkPod struct {
	UID      string
	Name     string
	Restarts int32 // over all its containers
	Images   []Image
}

// An Image is what a container runs.
type Image struct {
	Container string `json:"container"`
	Image     string `json:"image"`            // as requested
	Digest    string `json:"digest,omitempty"` // that runs: sha256:...
}

// Seen holds what states between the two ends of a window add to them.
type Seen struct {
	Routerless []string // without a router at any time
	Beside     []string // State.Beside at any time
	Unready    []string // "FORK: WAITING" at any time
	Digests    map[string][]string
}

// See adds a state.
func (s *Seen) See(state *State) {
	add := func(to *[]string, what string) {
		if !slices.Contains(*to, what) {
			*to = append(*to, what)
		}
	}
	for _, b := range state.Routerless {
		add(&s.Routerless, b)
	}
	for _, b := range state.Beside {
		add(&s.Beside, b)
	}
	if s.Digests == nil {
		s.Digests = map[string][]string{}
	}
	for _, f := range state.Forks {
		if !f.Ready {
			add(&s.Unready, f.Name+": "+f.Waiting)
		}
		for _, p := range f.Pods {
			for _, i := range p.Images {
				if i.Digest == "" {
					continue
				}
				at := f.Name + ", container " + i.Container
				all := s.Digests[at]
				add(&all, i.Digest)
				s.Digests[at] = all
			}
		}
	}
}

// counted returns the counts of the sandbox within the window, over all its forks, and by workload.
func (e *Evidence) counted() (total route.Count, by route.Totals) {
	by = route.Totals{}
	for workload, after := range e.After.Counts {
		before := e.Before.Counts[workload]
		d := route.Count{
			Fork: less(after.Fork, before.Fork), FellBack: less(after.FellBack, before.FellBack),
			Refused: less(after.Refused, before.Refused), Unfinished: less(after.Unfinished, before.Unfinished),
		}
		by[workload] = d
		total = total.Add(d)
	}
	return total, by
}

// less returns a - b, and zero if a count was reset.
func less(a, b uint64) uint64 {
	if a < b {
		return 0
	}
	return a - b
}

// A Window is when a check ran.
type Window struct {
	Began time.Time `json:"began,omitzero"`
	Ended time.Time `json:"ended,omitzero"`
}
