package routes

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/counts"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// loadRuns reads all experiments. The first tables of a lease holder must have the keys that earlier tables had, or
// routers would start their counts again.
func (s *Server) loadRuns(ctx context.Context) error {
	var all corev1.ConfigMapList
	if err := s.opts.Cache.List(ctx, &all, client.MatchingLabels{sandbox.LabelRole: sandbox.RoleRun}); err != nil {
		return fmt.Errorf("list experiments: %w", err)
	}
	for i := range all.Items {
		s.setRun(client.ObjectKeyFromObject(&all.Items[i]), counts.RunOf(&all.Items[i]))
	}
	return nil
}

// setRun makes the routers of a namespace observe an experiment's keys, if these have changed.
func (h *Hub) setRun(name types.NamespacedName, r counts.Run) {
	h.mu.Lock()
	runs := h.runs[name.Namespace]
	if slices.Equal(runs[name.Name].Keys, r.Keys) {
		h.mu.Unlock()
		return
	}
	if runs == nil {
		runs = map[string]counts.Run{}
		h.runs[name.Namespace] = runs
	}
	if runs[name.Name] = r; len(r.Keys) == 0 {
		delete(runs, name.Name)
	}
	before, now := h.observed[name.Namespace], counts.ObservedOf(runs)
	if h.observed[name.Namespace] = now; len(now) == 0 {
		delete(h.observed, name.Namespace)
		delete(h.runs, name.Namespace)
	}
	concerned := h.in(name.Namespace)
	for _, b := range concerned {
		for _, rep := range b.reports {
			maps.DeleteFunc(rep.Observed[name.Name], func(key string, _ counts.Tally[route.Observation]) bool { return !r.Has(key) })
			if len(rep.Observed[name.Name]) == 0 {
				delete(rep.Observed, name.Name)
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

// in returns the baselines of a namespace. The caller holds Hub.mu.
func (h *Hub) in(namespace string) (found []*baseline) {
	for name, b := range h.baselines {
		if name.Namespace == namespace {
			found = append(found, b)
		}
	}
	return found
}

// observe publishes a table of the baseline with the observed keys, if they have changed.
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

// without returns the elements of all that are not in other; both are sorted.
func without(all, other []string) (rest []string) {
	for _, key := range all {
		if _, ok := slices.BinarySearch(other, key); !ok {
			rest = append(rest, key)
		}
	}
	return rest
}

// countObserved stores what a router observed, and returns the experiments to which that is news. The caller holds
// Hub.mu.
func (h *Hub) countObserved(b *baseline, r *router, all map[string]route.Observation) (changed []string) {
	if len(all) == 0 {
		return nil
	}
	for name, run := range h.runs[b.name.Namespace] {
		rose := false
		for _, key := range run.Keys {
			total, ok := all[key]
			if !ok {
				continue
			}
			rep := b.report(r)
			if rep.Observed[name] == nil {
				rep.Observed[name] = map[string]counts.Tally[route.Observation]{}
			}
			rose = counts.Put(rep.Observed[name], key, total) || rose
		}
		if rose {
			changed = append(changed, name)
		}
	}
	return changed
}

// observations returns what the routers of a namespace observed for an experiment, by workload, routerID and key. It
// omits what is written of routers that are gone: see reports.
func (h *Hub) observations(run types.NamespacedName, gone func(routerID string) bool) counts.Observations {
	h.mu.Lock()
	defer h.mu.Unlock()
	found := counts.Observations{}
	for _, b := range h.in(run.Namespace) {
		routers := map[string]map[string]route.Observation{}
		for id, rep := range b.reports {
			for key, t := range rep.Observed[run.Name] {
				if t.Written && gone(id) {
					continue
				}
				if routers[id] == nil {
					routers[id] = map[string]route.Observation{}
				}
				routers[id][key] = t.Total
			}
		}
		if len(routers) > 0 {
			found[b.name.Workload] = routers
		}
	}
	return found
}

// observedWritten records that the observations are in the experiment's ConfigMap.
func (h *Hub) observedWritten(run types.NamespacedName, all counts.Observations) {
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
					counts.MarkWritten(rep.Observed[run.Name], key, total)
				}
			}
		}
		h.settle(b)
		h.sweep(b)
	}
}

// names returns the baselines of a namespace.
func (h *Hub) names(namespace string) (names []Baseline) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range h.in(namespace) {
		names = append(names, b.name)
	}
	return names
}
