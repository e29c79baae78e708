package counts

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Routers are what counted, by the workloads of one namespace whose routers they are.
type Routers interface {
	// Notify has f called whenever a count changed that belongs into a ConfigMap; now says that somebody waits for it
	// to be written.
	Notify(f func(configMap types.NamespacedName, now bool))
	// Workloads returns those whose routers are known.
	Workloads(namespace string) []string
	// Neighbours returns those whose routers count requests for the forks of one as well.
	Neighbours(namespace, workload string) []string
	// Collect asks the connected routers of the workloads for their counts, and returns the pods whose routers answered
	// in time.
	Collect(ctx context.Context, namespace string, workloads []string) map[types.UID]bool
	// IDs returns the routerID of each known router of the workloads, by its pod's UID.
	IDs(namespace string, workloads []string) map[types.UID]string
	// Ended returns the pods whose routers ended, or are about to, after all that they counted was taken in.
	Ended(namespace string, workloads []string) []string

	// Counted returns the fork of a sandbox, "" where it has no route, and what was counted for it, by routerID. What
	// is written of routers that are gone is left out.
	Counted(namespace, workload, sandboxName string, gone func(routerID string) bool) (
		fork string, counts map[string]route.Count)
	// CountsWritten notes that counts are in the sandbox's ConfigMap.
	CountsWritten(namespace, workload, sandboxName string, counts map[string]route.Count)

	// Observe has all routers of an experiment's namespace observe what it wants observed.
	Observe(experiment types.NamespacedName, r Run)
	// Observed returns what was observed for an experiment; but for what is written of routers that are gone.
	Observed(experiment types.NamespacedName, gone func(routerID string) bool) Observations
	// ObservationsWritten notes that what was observed is in the experiment's ConfigMap.
	ObservationsWritten(experiment types.NamespacedName, all Observations)
}

// Objects are those of the cluster that counts are of.
type Objects interface {
	// Forked returns the workloads that a sandbox forks.
	Forked(ctx context.Context, namespace, sandboxName string) ([]string, error)
	// Pods returns the pods of all baselines of a namespace. They must not be changed.
	Pods(ctx context.Context, namespace string) ([]corev1.Pod, error)
}

// A counter writes counts to the ConfigMaps of sandboxes and experiments.
type Counter struct {
	routers Routers
	objects Objects
	cache   client.Reader
	client  client.Client
}

// NewCounter returns a counter that reads ConfigMaps by cache and writes them by c.
func NewCounter(routers Routers, objects Objects, cache client.Reader, c client.Client) *Counter {
	return &Counter{routers, objects, cache, c}
}

// Reconcile writes the counts of one sandbox, or what was observed for one experiment, where they changed or were asked
// for.
func (c *Counter) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var cm corev1.ConfigMap
	err := c.cache.Get(ctx, req.NamespacedName, &cm)
	switch {
	case apierrors.IsNotFound(err):
		c.routers.Observe(req.NamespacedName, Run{})
		return reconcile.Result{}, nil
	case err != nil:
		return reconcile.Result{}, err
	case cm.Labels[sandbox.LabelRole] == sandbox.RoleRun:
		return c.observed(ctx, &cm)
	}
	return c.counts(ctx, &cm)
}

// asked says whether somebody waits for the counts.
func asked(cm *corev1.ConfigMap) bool {
	nonce := cm.Annotations[sandbox.AnnotationFlush]
	return nonce != "" && nonce != cm.Annotations[sandbox.AnnotationFlushed]
}

func (c *Counter) counts(ctx context.Context, cm *corev1.ConfigMap) (reconcile.Result, error) {
	name := cm.Labels[sandbox.LabelSandbox]
	if cm.Name != sandbox.ConfigMapName(name) || cm.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	forked, err := c.objects.Forked(ctx, cm.Namespace, name)
	if err != nil {
		return reconcile.Result{}, err
	}
	counting := slices.Clone(forked)
	for _, workload := range forked {
		for _, n := range c.routers.Neighbours(cm.Namespace, workload) {
			if !slices.Contains(counting, n) {
				counting = append(counting, n)
			}
		}
	}
	var answered map[types.UID]bool
	if asked(cm) {
		answered = c.routers.Collect(ctx, cm.Namespace, counting)
	}
	// A router that is no neighbour's any more may be again: its mark stays while it lives.
	every, err := c.objects.Pods(ctx, cm.Namespace)
	if err != nil {
		return reconcile.Result{}, err
	}
	gone := goneRouters(every, c.routers.IDs(cm.Namespace, c.routers.Workloads(cm.Namespace)))

	totals, marked := storedCounts(cm)
	changed := false
	counts := make([]map[string]route.Count, len(forked))
	for i, workload := range forked {
		var fork string
		fork, counts[i] = c.routers.Counted(cm.Namespace, workload, name, gone)
		if fork != "" {
			changed = fold(totals, marked, workload, fork, counts[i], gone) || changed
		}
	}
	written := func() {
		for i, workload := range forked {
			c.routers.CountsWritten(cm.Namespace, workload, name, counts[i])
		}
	}
	if !changed && !asked(cm) {
		written() // by the lease holder before this one
		return reconcile.Result{}, nil
	}
	data, err := encoded(sandbox.DataCounts, totals, marked)
	if err == nil {
		err = withEnded(data, c.routers.Ended(cm.Namespace, counting))
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	var missing []string
	for i := range every {
		if slices.Contains(counting, every[i].Labels[sandbox.LabelWorkload]) {
			missing = append(missing, silent(every[i:i+1], answered)...)
		}
	}
	return c.write(ctx, cm, data, missing, written)
}

// storedCounts reads what a sandbox's ConfigMap holds. What is not JSON was written by somebody else: begin with
// nothing, as for a new sandbox.
func storedCounts(cm *corev1.ConfigMap) (route.Totals, marks) {
	totals, marked := route.Totals{}, marks{}
	if json.Unmarshal([]byte(cm.Data[sandbox.DataCounts]), &totals) != nil || totals == nil {
		totals = route.Totals{}
	}
	if json.Unmarshal([]byte(cm.Data[sandbox.DataCounted]), &marked) != nil || marked == nil {
		marked = marks{}
	}
	return totals, marked
}

// silent names the pods whose routers should have answered, and have not.
func silent(pods []corev1.Pod, answered map[types.UID]bool) (names []string) {
	for i := range pods {
		if health.HasRouter(&pods[i]) && pods[i].DeletionTimestamp == nil && !answered[pods[i].UID] {
			names = append(names, pods[i].Name)
		}
	}
	return names
}

// encoded returns the data that holds sums under a name of their own, and how much of each router's total is in them.
func encoded(name string, sums, marked any) (map[string]string, error) {
	a, err := json.Marshal(sums)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(marked)
	return map[string]string{name: string(a), sandbox.DataCounted: string(b)}, err
}

// write writes data, where there is any, and the answer to who waits for it, and calls written when they are there.
func (c *Counter) write(
	ctx context.Context, cm *corev1.ConfigMap, data map[string]string, missing []string, written func(),
) (reconcile.Result, error) {
	meta := map[string]any{"uid": cm.UID, "resourceVersion": cm.ResourceVersion}
	if asked(cm) {
		a := map[string]any{
			sandbox.AnnotationFlushed: cm.Annotations[sandbox.AnnotationFlush], sandbox.AnnotationFlushMissing: nil,
		}
		if len(missing) > 0 {
			slices.Sort(missing)
			a[sandbox.AnnotationFlushMissing] = list(missing, maxMissing)
		}
		meta["annotations"] = a
	}
	change := map[string]any{"metadata": meta}
	if data != nil {
		change["data"] = data
	}
	patch, err := json.Marshal(change)
	if err != nil {
		return reconcile.Result{}, err
	}
	switch err := c.client.Patch(ctx, cm.DeepCopy(), client.RawPatch(types.MergePatchType, patch)); {
	case apierrors.IsConflict(err):
		return reconcile.Result{RequeueAfter: 20 * time.Millisecond}, nil // the cache is behind; it comes
	case err != nil:
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	written()
	return reconcile.Result{}, nil
}

// observed follows what an experiment has observed, and writes what was, where it changed or was asked for.
func (c *Counter) observed(ctx context.Context, cm *corev1.ConfigMap) (reconcile.Result, error) {
	name, r := client.ObjectKeyFromObject(cm), RunOf(cm)
	c.routers.Observe(name, r)
	if !isRun(cm) || cm.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	var answered map[types.UID]bool
	workloads := c.routers.Workloads(cm.Namespace)
	if asked(cm) {
		answered = c.routers.Collect(ctx, cm.Namespace, workloads)
	}
	pods, err := c.objects.Pods(ctx, cm.Namespace)
	if err != nil {
		return reconcile.Result{}, err
	}
	// What is not JSON was written by somebody else: begin with nothing.
	sum, marked := route.Observed{}, Observations{}
	if json.Unmarshal([]byte(cm.Data[sandbox.DataObserved]), &sum) != nil || sum == nil {
		sum = route.Observed{}
	}
	if json.Unmarshal([]byte(cm.Data[sandbox.DataCounted]), &marked) != nil || marked == nil {
		marked = Observations{}
	}
	gone := goneRouters(pods, c.routers.IDs(cm.Namespace, workloads))
	all := c.routers.Observed(name, gone)
	changed := foldObserved(sum, marked, all, r, gone)
	if !changed && !asked(cm) {
		c.routers.ObservationsWritten(name, all) // by the lease holder before this one
		return reconcile.Result{}, nil
	}
	missing := silent(pods, answered)
	data, err := encoded(sandbox.DataObserved, sum, marked)
	if err == nil {
		err = withEnded(data, c.routers.Ended(cm.Namespace, workloads))
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
	return c.write(ctx, cm, data, missing, func() { c.routers.ObservationsWritten(name, all) })
}

// list joins at most limit of names, and says how many more there are.
func list(names []string, limit int) string {
	if len(names) <= limit {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:limit], ", "), len(names)-limit)
}

// withEnded adds to a ConfigMap's data the pods whose routers ended after they had handed over what they counted.
func withEnded(data map[string]string, pods []string) error {
	b, err := json.Marshal(pods)
	if len(pods) > 0 {
		data[sandbox.DataEnded] = string(b)
	}
	return err
}
