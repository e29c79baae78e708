package plan

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A RouteRow is one route, as `route` lists it: requests of Workload that carry Key go to a fork.
type RouteRow struct {
	Namespace, Sandbox, Key, Workload string
	Ready, Replicas                   int32
	// Requests sums what all routers of the workload saw of the key since the sandbox was made.
	Requests route.Count
	Created  time.Time
}

// RouteRows lists the routes that forks make, in order of namespace, sandbox and workload.
func RouteRows(forks []appsv1.Deployment, sandboxes []corev1.ConfigMap) []RouteRow {
	rows := make([]RouteRow, 0, len(forks))
	for i := range forks {
		d := &forks[i]
		row := RouteRow{
			Namespace: d.Namespace, Sandbox: d.Labels[sandbox.LabelSandbox], Key: d.Annotations[sandbox.AnnotationKey],
			Workload: WorkloadOf(d), Ready: d.Status.ReadyReplicas, Replicas: ptr.Deref(d.Spec.Replicas, 1),
			Created: d.CreationTimestamp.Time,
		}
		for j := range sandboxes {
			c := &sandboxes[j]
			if c.Namespace != d.Namespace || c.Name != sandbox.ConfigMapName(row.Sandbox) || c.Labels[sandbox.LabelRole] != sandbox.RoleSandbox {
				continue
			}
			var totals route.Totals
			if json.Unmarshal([]byte(c.Data[sandbox.DataCounts]), &totals) == nil { // none yet, or not the controller's
				row.Requests = totals[d.Labels[sandbox.LabelWorkload]]
			}
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b RouteRow) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Sandbox, b.Sandbox), cmp.Compare(a.Workload, b.Workload))
	})
	return rows
}
