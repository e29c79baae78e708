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

// Routers provides the counts of routers, which it identifies by workloads of one namespace.
type Routers interface {
	// Notify registers f, to be called whenever a count changed that belongs in a ConfigMap. now reports whether somebody
	// waits for the write.
	Notify(f func(configMap types.NamespacedName, now bool))
	// Workloads returns the workloads whose routers are known.
	Workloads(namespace string) []string
	// Neighbours returns the workloads whose routers count requests for the forks of the given one as well.
	Neighbours(namespace, workload string) []string
	// Collect requests the counts of the connected routers of the workloads. It returns the pods whose routers responded
	// in time.
	Collect(ctx context.Context, namespace string, workloads []string) map[types.UID]bool
	// IDs returns the routerID of each known router of the workloads, by its pod's UID.
	IDs(namespace string, workloads []string) map[types.UID]string
	// Ended returns the pods whose routers ended, or wait to end, after they reported all their counts.
	Ended(namespace string, workloads []string) []string

	// Counted returns the UID of a sandbox's fork, empty if it has no route, and its counts by routerID. It omits written
	// counts of routers that are gone.
	Counted(namespace, workload, sandboxName string, gone func(routerID string) bool) (
		fork string, counts map[string]route.Count)
	// CountsWritten records that counts are in the sandbox's ConfigMap.
	CountsWritten(namespace, workload, sandboxName string, counts map[string]route.Count)

	// Observe makes all routers of an experiment's namespace observe its keys.
	Observe(experiment types.NamespacedName, r Run)
	// Observed returns what was observed for an experiment. It omits what is written of routers that are gone.
	Observed(experiment types.NamespacedName, gone func(routerID string) bool) Observations
	// ObservationsWritten records that observations are in the experiment's ConfigMap.
	ObservationsWritten(experiment types.NamespacedName, all Observations)
}

// Objects provides the objects of the cluster that counts belong to.
type Objects interface {
	// Forked returns the workloads that a sandbox forks.
	Forked(ctx context.Context, namespace, sandboxName string) ([]string, error)
	// Pods returns the pods of all baselines of a namespace. The caller must not change them.
	Pods(ctx context.Context, namespace string) ([]corev1.Pod, error)
}

// A Counter writes counts to the ConfigMaps of sandboxes and experiments.
type Counter struct {
	routers Routers
	objects Objects
	cache   client.Reader
	client  client.Client
}

// NewCounter returns a counter that reads ConfigMaps from cache and writes them with c.
func NewCounter(routers Routers, objects Objects, cache client.Reader, c client.Client) *Counter {
	return &Counter{routers, objects, cache, c}
}

// Reconcile writes the counts of one sandbox, or the observations of one experiment, if they changed or a flush is
// requested.
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

// flushRequested reports whether somebody waits for the counts.
func flushRequested(cm *corev1.ConfigMap) bool {
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
	if flushRequested(cm) {
		answered = c.routers.Collect(ctx, cm.Namespace, counting)
	}
	// A router of a former neighbour may become one again: its mark stays while it exists.
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
	if !changed && !flushRequested(cm) {
		written() // by the previous lease holder
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

// storedCounts reads the counts in a sandbox's ConfigMap. If they are not JSON, somebody else wrote them, and counting
// starts at zero.
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

// silent returns the pods whose routers should have responded and did not.
func silent(pods []corev1.Pod, answered map[types.UID]bool) (names []string) {
	for i := range pods {
		if health.HasRouter(&pods[i]) && pods[i].DeletionTimestamp == nil && !answered[pods[i].UID] {
			names = append(names, pods[i].Name)
		}
	}
	return names
}

// encoded returns the data with sums under name, and each router's mark beside it.
func encoded(name string, sums, marked any) (map[string]string, error) {
	a, err := json.Marshal(sums)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(marked)
	return map[string]string{name: string(a), sandbox.DataCounted: string(b)}, err
}

// write writes data, if there is any, and the response to a flush request, and then calls written.
func (c *Counter) write(
	ctx context.Context, cm *corev1.ConfigMap, data map[string]string, missing []string, written func(),
) (reconcile.Result, error) {
	meta := map[string]any{"uid": cm.UID, "resourceVersion": cm.ResourceVersion}
	if flushRequested(cm) {
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
		return reconcile.Result{RequeueAfter: 20 * time.Millisecond}, nil // the cache is behind; an event follows
	case err != nil:
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	written()
	return reconcile.Result{}, nil
}

// observed tracks what an experiment observes, and writes the observations if they changed or a flush is requested.
func (c *Counter) observed(ctx context.Context, cm *corev1.ConfigMap) (reconcile.Result, error) {
	name, r := client.ObjectKeyFromObject(cm), RunOf(cm)
	c.routers.Observe(name, r)
	if !isRun(cm) || cm.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	var answered map[types.UID]bool
	workloads := c.routers.Workloads(cm.Namespace)
	if flushRequested(cm) {
		answered = c.routers.Collect(ctx, cm.Namespace, workloads)
	}
	pods, err := c.objects.Pods(ctx, cm.Namespace)
	if err != nil {
		return reconcile.Result{}, err
	}
	// If it is not JSON, somebody else wrote it: start at zero.
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
	if !changed && !flushRequested(cm) {
		c.routers.ObservationsWritten(name, all) // by the previous lease holder
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
		if !flushRequested(cm) {
			return reconcile.Result{}, nil
		}
		missing = []string{"more keys, workloads and routers than a ConfigMap holds"}
		return c.write(ctx, cm, nil, missing, func() {})
	}
	return c.write(ctx, cm, data, missing, func() { c.routers.ObservationsWritten(name, all) })
}

// list joins at most limit names, and adds how many more there are.
func list(names []string, limit int) string {
	if len(names) <= limit {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:limit], ", "), len(names)-limit)
}

// withEnded adds to a ConfigMap's data the pods whose routers ended after they reported all their counts.
func withEnded(data map[string]string, pods []string) error {
	b, err := json.Marshal(pods)
	if len(pods) > 0 {
		data[sandbox.DataEnded] = string(b)
	}
	return err
}
