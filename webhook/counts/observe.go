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
// An experiment's ConfigMap names keys. They are in the tables of all baselines of its namespace, so that every router
// there counts those of their requests that it does not route. What routers report is written to the ConfigMap as the
// counts of sandboxes are to theirs, with the same marks. A router has taken the table with the keys before it answers
// a flush, since both come by one stream, in this order: from the answer on it counts all of them.

const (
	// maxObserved bounds the keys of one namespace. Those of the experiments made first are observed.
	maxObserved = 512
	// maxObservedData bounds what one experiment's ConfigMap, which holds a report as well, has of this, in bytes.
	maxObservedData = 512 << 10
)

// A run is what an experiment has observed.
type Run struct {
	created time.Time
	Keys    []string // sorted
}

// Observations are the marks of one experiment: by workload, routerID and key, how much of each router's total is in
// the sum.
type Observations map[string]map[string]map[string]route.Observation

// isRun says whether a ConfigMap is an experiment.
func isRun(cm *corev1.ConfigMap) bool {
	return cm.Labels[sandbox.LabelRole] == sandbox.RoleRun && cm.Name == sandbox.RunName(cm.Labels[sandbox.LabelRun])
}

// RunOf reads what an experiment has observed. On its way out, or where it can't be read, that is nothing.
func RunOf(cm *corev1.ConfigMap) Run {
	r := Run{created: cm.CreationTimestamp.Time}
	if isRun(cm) && cm.DeletionTimestamp == nil {
		r.Keys, _ = sandbox.ParseObserve(cm.Data[sandbox.DataObserve])
	}
	return r
}

// Has says whether key is observed.
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

// foldObserved does for one experiment what fold does for a workload of a sandbox's, and drops what is of keys that it
// does not have observed any more.
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
