package experiment

import (
	"fmt"
	"slices"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// Evidence is all that is known of one check of one variant: what became of its Job, and what was seen of the requests it sent and
// of the fork it was to test, from before the Job was made until after it ended. Only one check of a variant runs at a time, so
// what was counted for the variant's key in that window is the check's.
type Evidence struct {
	Job JobEnd
	// Sent is what the check's own router passed on, over all pods of the Job; nil: not known.
	Sent *route.Sent
	// Before and After are the variant's sandbox at both ends of the window.
	Before, After State
	// Seen is what was seen at any time within it.
	Seen Seen
	// Passed is what passed workloads within the window with the variant's key without being routed to a fork, by workload label, and
	// Baseline the same with the key of the baseline's requests, where the check sends such; nil: not known. PassedMissing are the
	// routers that did not say.
	Passed, Baseline map[string]route.Observation
	PassedMissing    string
}

// PassedIn returns what was observed of a key between two looks, by workload label.
func PassedIn(before, after route.Observed, key string) map[string]route.Observation {
	passed := map[string]route.Observation{}
	for workload, all := range after[key] {
		more, ok := all.Since(before[key][workload])
		if !ok {
			more = all // it has begun anew
		}
		if more.Requests > 0 {
			passed[workload] = more
		}
	}
	return passed
}

// A State is a sandbox at one time.
type State struct {
	// Exists says that the sandbox is there, and not on its way out; UID identifies it.
	Exists bool
	UID    string
	// Counted says that Counts are exact as of then, but for those of the routers that Uncounted names.
	Counted   bool
	Uncounted string
	Counts    route.Totals // by workload label
	Forks     []ForkState
	// Routers identify each life of each router in front of the forks' baselines, as "POD/...", and Elsewhere of those in front of
	// other workloads, by label.
	Routers   []string
	Elsewhere map[string][]string
	// Ended are pods whose routers have ended and had handed over before what they had counted.
	Ended []string
	// Routerless are the baselines' ready pods without a router, "POD of WORKLOAD".
	Routerless []string
	// Beside are the labels of workloads that are not forked and whose pods stand behind Services of the forks' baselines.
	Beside []string
}

// A ForkState is a fork at one time.
type ForkState struct {
	Name     string // of its Deployment
	Workload string // label of its baseline
	UID      string
	Revision string // another one, another pod template
	Ready    bool
	Waiting  string // why requests do not reach it, where they do not
	Pods     []ForkPod
}

// identity tells a fork from what it was, or will be: "customer-a (UID), revision 2, of sha256:...". Pods that ran different images are
// told by Judge.
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
	Image     string `json:"image"`            // asked for
	Digest    string `json:"digest,omitempty"` // that runs: sha256:...
}

// Seen is what states between the two ends of a window add to them.
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

// counted returns what was counted for the sandbox within the window, over all its forks, and by workload.
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

// less returns a - b, and zero where a count has begun anew.
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
