package routes

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// How keys are observed.
//
// An experiment's ConfigMap names keys. They are in the tables of all baselines of its namespace, so that every router there counts
// those of their requests that it does not route. What routers report is written to the ConfigMap as the counts of sandboxes are
// to theirs, with the same marks. A router has taken the table with the keys before it answers a flush, since both come by one
// stream, in this order: from the answer on it counts all of them.

const (
	// maxObserved bounds the keys of one namespace. Those of the experiments made first are observed.
	maxObserved = 512
	// maxObservedData bounds what one experiment's ConfigMap, which holds a report as well, has of this, in bytes.
	maxObservedData = 512 << 10
)

// A run is what an experiment has observed.
type run struct {
	created time.Time
	keys    []string // sorted
}

// seen are the marks of one experiment: by workload, routerID and key, how much of each router's total is in the sum.
type seen map[string]map[string]map[string]route.Observation

// isRun says whether a ConfigMap is an experiment.
func isRun(cm *corev1.ConfigMap) bool {
	return cm.Labels[sandbox.LabelRole] == sandbox.RoleRun && cm.Name == sandbox.RunName(cm.Labels[sandbox.LabelRun])
}

// runOf reads what an experiment has observed. On its way out, or where it can't be read, that is nothing.
func runOf(cm *corev1.ConfigMap) run {
	r := run{created: cm.CreationTimestamp.Time}
	if isRun(cm) && cm.DeletionTimestamp == nil {
		r.keys, _ = sandbox.ParseObserve(cm.Data[sandbox.DataObserve])
	}
	return r
}

// loadRuns takes in all experiments that there are: the first tables of a lease holder must have what those before them had, or
// routers would begin to count anew.
func (s *Server) loadRuns(ctx context.Context) error {
	var all corev1.ConfigMapList
	if err := s.opts.Cache.List(ctx, &all, client.MatchingLabels{sandbox.LabelRole: sandbox.RoleRun}); err != nil {
		return fmt.Errorf("list experiments: %w", err)
	}
	for i := range all.Items {
		s.setRun(client.ObjectKeyFromObject(&all.Items[i]), runOf(&all.Items[i]))
	}
	return nil
}

// setRun has the routers of a namespace observe what an experiment wants observed, where that is another than before.
func (h *Hub) setRun(name types.NamespacedName, r run) {
	h.mu.Lock()
	runs := h.runs[name.Namespace]
	if slices.Equal(runs[name.Name].keys, r.keys) {
		h.mu.Unlock()
		return
	}
	if runs == nil {
		runs = map[string]run{}
		h.runs[name.Namespace] = runs
	}
	if runs[name.Name] = r; len(r.keys) == 0 {
		delete(runs, name.Name)
	}
	before, now := h.observed[name.Namespace], observedOf(runs)
	if h.observed[name.Namespace] = now; len(now) == 0 {
		delete(h.observed, name.Namespace)
		delete(h.runs, name.Namespace)
	}
	concerned := h.in(name.Namespace)
	for _, b := range concerned {
		for _, rep := range b.reports {
			maps.DeleteFunc(rep.runs[name.Name], func(key string, _ tally[route.Observation]) bool { return !r.has(key) })
			if len(rep.runs[name.Name]) == 0 {
				delete(rep.runs, name.Name)
			}
		}
		h.sweep(b)
	}
	h.mu.Unlock()
	if slices.Equal(before, now) {
		return
	}
	for _, b := range concerned {
		h.observe(b)
	}
}

func (r run) has(key string) bool {
	_, ok := slices.BinarySearch(r.keys, key)
	return ok
}

// observedOf returns the keys of all experiments of a namespace, sorted.
func observedOf(runs map[string]run) []string {
	names := slices.SortedFunc(maps.Keys(runs), func(a, b string) int {
		if c := runs[a].created.Compare(runs[b].created); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	var all []string
	for _, name := range names {
		for _, key := range runs[name].keys {
			if len(all) < maxObserved && !slices.Contains(all, key) {
				all = append(all, key)
			}
		}
	}
	slices.Sort(all)
	return all
}

// in returns the baselines of a namespace. The caller holds Hub.mu.
func (h *Hub) in(namespace string) (found []*baseline) {
	for name, b := range h.baselines {
		if name.Namespace == namespace {
			found = append(found, b)
		}
	}
	return found
}

// observe publishes a table of the baseline with what is observed now, where it has another.
func (h *Hub) observe(b *baseline) {
	b.build.Lock()
	defer b.build.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.baselines[b.name] != b || b.current == nil {
		return // dropped; or its first table will have it
	}
	t, now := b.current.table, h.observed[b.name.Namespace]
	d := &route.Delta{Base: t.Version, Observe: without(now, t.Observe), Unobserve: without(t.Observe, now)}
	if len(d.Observe)+len(d.Unobserve) > 0 {
		d.Version = h.nextVersion()
		b.publish(t, d)
		h.lag.published(b)
	}
}

// without returns those of all that are not in other; both are sorted.
func without(all, other []string) (rest []string) {
	for _, key := range all {
		if _, ok := slices.BinarySearch(other, key); !ok {
			rest = append(rest, key)
		}
	}
	return rest
}

// countObserved takes in what a router observed, and returns the experiments whose it is and that have not heard of it. The caller
// holds Hub.mu.
func (h *Hub) countObserved(b *baseline, r *router, all map[string]route.Observation) (changed []string) {
	if len(all) == 0 {
		return nil
	}
	for name, run := range h.runs[b.name.Namespace] {
		rose := false
		for _, key := range run.keys {
			total, ok := all[key]
			if !ok {
				continue
			}
			rep := b.report(r)
			if rep.runs[name] == nil {
				rep.runs[name] = map[string]tally[route.Observation]{}
			}
			rose = put(rep.runs[name], key, total) || rose
		}
		if rose {
			changed = append(changed, name)
		}
	}
	return changed
}

// observations returns what the routers of a namespace observed for an experiment, by workload, routerID and key; but for what is
// written of those that are gone: see reports.
func (h *Hub) observations(run types.NamespacedName, gone func(routerID string) bool) seen {
	h.mu.Lock()
	defer h.mu.Unlock()
	found := seen{}
	for _, b := range h.in(run.Namespace) {
		routers := map[string]map[string]route.Observation{}
		for id, rep := range b.reports {
			for key, t := range rep.runs[run.Name] {
				if t.written && gone(id) {
					continue
				}
				if routers[id] == nil {
					routers[id] = map[string]route.Observation{}
				}
				routers[id][key] = t.total
			}
		}
		if len(routers) > 0 {
			found[b.name.Workload] = routers
		}
	}
	return found
}

// observedWritten notes that what was observed is in the experiment's ConfigMap.
func (h *Hub) observedWritten(run types.NamespacedName, all seen) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for workload, routers := range all {
		b := h.baselines[Baseline{run.Namespace, workload}]
		if b == nil {
			continue
		}
		for id, keys := range routers {
			for key, total := range keys {
				if rep := b.reports[id]; rep != nil {
					wrote(rep.runs[run.Name], key, total)
				}
			}
		}
		h.settle(b)
		h.sweep(b)
	}
}

// foldObserved does for one experiment what fold does for a workload of a sandbox's, and drops what is of keys that it does not
// have observed any more.
func foldObserved(sum route.Observed, marked, reports seen, r run, gone func(routerID string) bool) (changed bool) {
	for key := range sum {
		if !r.has(key) {
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
				if mark == had || !ok || !r.has(key) {
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
				if gone(id) || !r.has(key) {
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

// observed follows what an experiment has observed, and writes what was, where it changed or was asked for.
func (c *counter) observed(ctx context.Context, cm *corev1.ConfigMap) (reconcile.Result, error) {
	name, r := client.ObjectKeyFromObject(cm), runOf(cm)
	c.hub.setRun(name, r)
	if !isRun(cm) || cm.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	var answered map[types.UID]bool
	baselines := c.hub.names(cm.Namespace)
	if asked(cm) {
		answered = c.hub.collect(ctx, baselines)
	}
	var pods corev1.PodList
	if err := c.cache.List(ctx, &pods, client.InNamespace(cm.Namespace), client.MatchingFields{indexBaseline: sandbox.RoleBaseline},
		client.UnsafeDisableDeepCopy); err != nil {
		return reconcile.Result{}, err
	}
	// What is not JSON was written by somebody else: begin with nothing.
	sum, marked := route.Observed{}, seen{}
	if json.Unmarshal([]byte(cm.Data[sandbox.DataObserved]), &sum) != nil || sum == nil {
		sum = route.Observed{}
	}
	if json.Unmarshal([]byte(cm.Data[sandbox.DataCounted]), &marked) != nil || marked == nil {
		marked = seen{}
	}
	gone := goneRouters(pods.Items, c.hub.routerIDs(baselines...))
	all := c.hub.observations(name, gone)
	changed := foldObserved(sum, marked, all, r, gone)
	if !changed && !asked(cm) {
		c.hub.observedWritten(name, all) // by the lease holder before this one
		return reconcile.Result{}, nil
	}
	missing := silent(pods.Items, answered)
	data, err := encoded(sandbox.DataObserved, sum, marked)
	if err == nil {
		err = withEnded(data, c.hub.handedOver(baselines...))
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	if len(data[sandbox.DataObserved])+len(data[sandbox.DataCounted]) > maxObservedData {
		if !asked(cm) {
			return reconcile.Result{}, nil
		}
		missing = []string{"more keys, workloads and routers than a ConfigMap holds"}
		return c.write(ctx, cm, nil, missing, func() {})
	}
	return c.write(ctx, cm, data, missing, func() { c.hub.observedWritten(name, all) })
}

// names returns the names of the baselines of a namespace.
func (h *Hub) names(namespace string) (names []Baseline) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.in(namespace) {
		names = append(names, b.name)
	}
	return names
}
