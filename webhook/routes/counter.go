package routes

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

// A counter writes counts to the ConfigMaps of sandboxes and experiments.
type counter struct {
	hub    *Hub
	cache  client.Reader
	client client.Client
}

// Reconcile writes the counts of one sandbox, or what was observed for one experiment, where they changed or were asked for.
func (c *counter) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var cm corev1.ConfigMap
	err := c.cache.Get(ctx, req.NamespacedName, &cm)
	switch {
	case apierrors.IsNotFound(err):
		c.hub.setRun(req.NamespacedName, run{})
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

func (c *counter) counts(ctx context.Context, cm *corev1.ConfigMap) (reconcile.Result, error) {
	name := cm.Labels[sandbox.LabelSandbox]
	if cm.Name != sandbox.ConfigMapName(name) || cm.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	baselines, err := c.baselines(ctx, cm.Namespace, name)
	if err != nil {
		return reconcile.Result{}, err
	}
	var answered map[types.UID]bool
	counting := slices.Clone(baselines)
	for _, b := range baselines {
		for _, n := range c.hub.near(b) {
			if !slices.Contains(counting, n) {
				counting = append(counting, n)
			}
		}
	}
	if asked(cm) {
		answered = c.hub.collect(ctx, counting)
	}
	every, err := podsIn(ctx, c.cache, cm.Namespace) // a router that is no neighbour's any more may be again: its mark stays while it lives
	if err != nil {
		return reconcile.Result{}, err
	}
	gone := goneRouters(every, c.hub.routerIDs(c.hub.names(cm.Namespace)...))

	// What is not JSON was written by somebody else: begin with nothing, as for a new sandbox.
	totals, marked := route.Totals{}, marks{}
	if json.Unmarshal([]byte(cm.Data[sandbox.DataCounts]), &totals) != nil || totals == nil {
		totals = route.Totals{}
	}
	if json.Unmarshal([]byte(cm.Data[sandbox.DataCounted]), &marked) != nil || marked == nil {
		marked = marks{}
	}
	changed, missing := false, []string(nil)
	counts := make([]map[string]route.Count, len(baselines))
	for i, b := range baselines {
		var fork string
		fork, counts[i] = c.hub.reports(b, name, gone)
		if fork != "" {
			changed = fold(totals, marked, b.Workload, fork, counts[i], gone) || changed
		}
	}
	for i := range every {
		if of, _ := BaselineOf(&every[i]); slices.Contains(counting, of) {
			missing = append(missing, silent(every[i:i+1], answered)...)
		}
	}
	written := func() {
		for i, b := range baselines {
			c.hub.written(b, name, counts[i])
		}
	}
	if !changed && !asked(cm) {
		written() // by the lease holder before this one
		return reconcile.Result{}, nil
	}
	data, err := encoded(sandbox.DataCounts, totals, marked)
	if err == nil {
		err = withEnded(data, c.hub.handedOver(counting...))
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	return c.write(ctx, cm, data, missing, written)
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
func (c *counter) write(ctx context.Context, cm *corev1.ConfigMap, data map[string]string, missing []string, written func()) (reconcile.Result, error) {
	meta := map[string]any{"uid": cm.UID, "resourceVersion": cm.ResourceVersion}
	if asked(cm) {
		a := map[string]any{sandbox.AnnotationFlushed: cm.Annotations[sandbox.AnnotationFlush], sandbox.AnnotationFlushMissing: nil}
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

// baselines returns the baselines that a sandbox forks.
func (c *counter) baselines(ctx context.Context, namespace, name string) ([]Baseline, error) {
	forks, err := Deployments(ctx, c.cache, namespace, name)
	if err != nil {
		return nil, err
	}
	var found []Baseline
	for i := range forks {
		if b, _ := BaselineOf(&forks[i]); !slices.Contains(found, b) {
			found = append(found, b)
		}
	}
	return found, nil
}

// goneRouters tells the IDs of routers whose pod is gone, or that started anew in the same pod.
func goneRouters(pods []corev1.Pod, routers map[types.UID]string) func(id string) bool {
	living := make(map[string]string, len(pods))
	for i := range pods {
		living[short(string(pods[i].UID))] = routers[pods[i].UID]
	}
	return func(id string) bool {
		if len(id) < len(short("")) {
			return true
		}
		now, lives := living[id[:len(short(""))]]
		return !lives || now != "" && now != id
	}
}

// list joins at most limit of names, and says how many more there are.
func list(names []string, limit int) string {
	if len(names) <= limit {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:limit], ", "), len(names)-limit)
}
