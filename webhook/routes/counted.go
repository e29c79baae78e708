package routes

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/counts"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// counted adapts a Hub to the interfaces of package counts, which identify routers and objects by workloads of one
// namespace.
type counted struct {
	*Hub
	cache client.Reader
}

// baselinesOf returns workloads of a namespace as baselines.
func baselinesOf(namespace string, workloads []string) []Baseline {
	names := make([]Baseline, 0, len(workloads))
	for _, w := range workloads {
		names = append(names, Baseline{namespace, w})
	}
	return names
}

func workloadsOf(names []Baseline) []string {
	workloads := make([]string, 0, len(names))
	for _, b := range names {
		workloads = append(workloads, b.Workload)
	}
	return workloads
}

// Notify implements Routers.
func (c counted) Notify(f func(configMap types.NamespacedName, now bool)) { c.onCount(f) }

// Workloads implements Routers.
func (c counted) Workloads(namespace string) []string { return workloadsOf(c.names(namespace)) }

// Neighbours implements Routers. They are those of the last build of the baseline's table.
func (c counted) Neighbours(namespace, workload string) []string {
	return workloadsOf(c.Hub.near(Baseline{namespace, workload}))
}

// Collect implements Routers.
func (c counted) Collect(ctx context.Context, namespace string, workloads []string) map[types.UID]bool {
	return c.collect(ctx, baselinesOf(namespace, workloads))
}

// IDs implements Routers.
func (c counted) IDs(namespace string, workloads []string) map[types.UID]string {
	return c.routerIDs(baselinesOf(namespace, workloads)...)
}

// Ended implements Routers.
func (c counted) Ended(namespace string, workloads []string) []string {
	return c.handedOver(baselinesOf(namespace, workloads)...)
}

// Counted implements Routers.
func (c counted) Counted(
	namespace, workload, sandboxName string, gone func(routerID string) bool,
) (string, map[string]route.Count) {
	return c.Hub.reports(Baseline{namespace, workload}, sandboxName, gone)
}

// CountsWritten implements Routers.
func (c counted) CountsWritten(namespace, workload, sandboxName string, counts map[string]route.Count) {
	c.written(Baseline{namespace, workload}, sandboxName, counts)
}

// Observe implements Routers.
func (c counted) Observe(experiment types.NamespacedName, r counts.Run) { c.setRun(experiment, r) }

// Observed implements Routers.
func (c counted) Observed(experiment types.NamespacedName, gone func(routerID string) bool) counts.Observations {
	return c.observations(experiment, gone)
}

// ObservationsWritten implements Routers.
func (c counted) ObservationsWritten(experiment types.NamespacedName, all counts.Observations) {
	c.observedWritten(experiment, all)
}

// Forked implements Objects.
func (c counted) Forked(ctx context.Context, namespace, sandboxName string) ([]string, error) {
	forks, err := Deployments(ctx, c.cache, namespace, sandboxName)
	if err != nil {
		return nil, err
	}
	var found []string
	for i := range forks {
		if b, _ := BaselineOf(&forks[i]); !slices.Contains(found, b.Workload) {
			found = append(found, b.Workload)
		}
	}
	return found, nil
}

// Pods implements Objects.
func (c counted) Pods(ctx context.Context, namespace string) ([]corev1.Pod, error) {
	return podsIn(ctx, c.cache, namespace)
}
