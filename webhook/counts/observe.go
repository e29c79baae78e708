package counts

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// How keys are observed.
//
// An experiment's ConfigMap names keys. The tables of all baselines of its namespace contain them, so that every router
// there counts requests with these keys that it does not route. The reports are written to the experiment's ConfigMap
// in the same way as the counts of sandboxes, with the same marks. Tables and flush requests come in one stream, in
// order. So a router that responds to a flush already counts all keys of the tables before it.

const (
	// maxObserved bounds the keys of one namespace. Older experiments come first.
	maxObserved = 512
	// maxObservedData bounds the observations in one experiment's ConfigMap, in bytes: it holds a report as well.
	maxObservedData = 512 << 10
)

// A Run is what an experiment observes.
type Run struct {
	created time.Time
	Keys    []string // sorted
}

// Observations are the marks of one experiment: by workload, routerID and key, how much of each router's total is in
// the sum.
type Observations map[string]map[string]map[string]route.Observation

// isRun reports whether a ConfigMap is an experiment.
func isRun(cm *corev1.ConfigMap) bool {
	return cm.Labels[sandbox.LabelRole] == sandbox.RoleRun && cm.Name == sandbox.RunName(cm.Labels[sandbox.LabelRun])
}

// RunOf reads what an experiment observes: nothing if it is being deleted or can't be read.
func RunOf(cm *corev1.ConfigMap) Run {
	r := Run{created: cm.CreationTimestamp.Time}
	if isRun(cm) && cm.DeletionTimestamp == nil {
		r.Keys, _ = sandbox.ParseObserve(cm.Data[sandbox.DataObserve])
	}
	return r
}

// Has reports whether key is observed.
func (r Run) Has(key string) bool {
	_, ok := slices.BinarySearch(r.Keys, key)
	return ok
}

// ObservedOf returns the keys of all experiments of a namespace, sorted.
func ObservedOf(runs map[string]Run) []string {
	names := slices.SortedFunc(maps.Keys(runs), func(a, b string) int {
		if c := runs[a].created.Compare(runs[b].created); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	var all []string
	for _, name := range names {
		for _, key := range runs[name].Keys {
			if len(all) < maxObserved && !slices.Contains(all, key) {
				all = append(all, key)
			}
		}
	}
	slices.Sort(all)
	return all
}

// foldObserved does for an experiment what fold does for a workload of a sandbox. It also drops keys that the
// experiment no longer observes.
func foldObserved(
	sum route.Observed, marked, reports Observations, r Run, gone func(routerID string) bool,
) (changed bool) {
	for key := range sum {
		if !r.Has(key) {
			delete(sum, key)
			changed = true
		}
	}
	for workload, routers := range reports {
		for id, keys := range routers {
			for key, total := range keys {
				mark := total
				mark.Last = 0 // it rises with the others
				had := marked[workload][id][key]
				more, ok := total.Since(had)
				if mark == had || !ok || !r.Has(key) {
					continue
				}
				if sum[key] == nil {
					sum[key] = map[string]route.Observation{}
				}
				sum[key][workload] = sum[key][workload].Add(more)
				if marked[workload] == nil {
					marked[workload] = map[string]map[string]route.Observation{}
				}
				if marked[workload][id] == nil {
					marked[workload][id] = map[string]route.Observation{}
				}
				marked[workload][id][key] = mark
				changed = true
			}
		}
	}
	for workload, routers := range marked {
		for id, keys := range routers {
			for key := range keys {
				if gone(id) || !r.Has(key) {
					delete(keys, key)
					changed = true
				}
			}
			if len(keys) == 0 {
				delete(routers, id)
			}
		}
		if len(routers) == 0 {
			delete(marked, workload)
		}
	}
	return changed
}
