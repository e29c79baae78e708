package lifecycle

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// baselineFacts reads a baseline's pods and the Services of its namespace from the cache. neighbours are pods of other
// baselines whose routers route to the forks too, because a Service selects both.
func baselineFacts(ctx context.Context, c client.Reader, b routes.Baseline) (own *health.Baseline, neighbours []*corev1.Pod, err error) {
	behind, err := routes.PodsBehind(ctx, c, b)
	if err != nil {
		return nil, nil, err
	}
	var services corev1.ServiceList
	if err := c.List(ctx, &services, client.InNamespace(b.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, nil, err
	}
	all := pointers(services.Items)
	own = &health.Baseline{Services: &all}
	for _, p := range pointers(behind) {
		if p.Labels[sandbox.LabelWorkload] == b.Workload {
			own.Pods = append(own.Pods, p)
		} else {
			neighbours = append(neighbours, p)
		}
	}
	return own, neighbours, nil
}

func pointers[T any](all []T) []*T {
	out := make([]*T, len(all))
	for i := range all {
		out[i] = &all[i]
	}
	return out
}

// routing returns what the control plane knows about a fork. pods are the pods of its newest revision.
func routing(view routes.View, sandboxName string, pods, baseline, neighbours []*corev1.Pod, staleAfter time.Duration, now time.Time) *health.Routing {
	r := &health.Routing{Claim: view.Problems[sandboxName], Tries: view.Dials, Routers: map[string]health.RouterState{}, Ports: map[string]string{}}
	var since route.Version // a router that acknowledged this version routes to all of the pods
	for _, p := range pods {
		if v, ok := view.Serving[p.UID]; ok {
			r.Serving = append(r.Serving, p.Name)
			if v.Compare(since) > 0 {
				since = v
			}
		}
		if why, ok := view.Dialed[p.UID]; ok {
			r.Ports[p.Name] = why
		}
	}
	for i, p := range slices.Concat(baseline, neighbours) {
		if p.DeletionTimestamp != nil || !ready(p, corev1.PodReady) || !health.HasRouter(p) {
			continue
		}
		if state := routerState(view.Routers, p.UID, since, staleAfter, now); state != "" {
			r.Routers[p.Name] = state
			continue
		}
		r.Routes++
		if i >= len(baseline) {
			r.Shared = append(r.Shared, p.Name)
		}
	}
	return r
}

// routerState returns why a pod's router does not route by a version yet; empty if it does.
func routerState(all map[types.UID]routes.Router, uid types.UID, since route.Version, staleAfter time.Duration, now time.Time) health.RouterState {
	r, known := all[uid]
	switch acked := r.Acked.Compare(since) >= 0; {
	case !known:
		return health.RouterUnconnected
	case acked && !r.Connected && !r.Lost.IsZero() && now.Sub(r.Lost) > staleAfter:
		return health.RouterTooOld
	case acked:
		return ""
	case !r.Connected:
		return health.RouterDisconnected
	}
	return health.RouterUnacked
}

// stripService keeps the fields of a Service that the guard and the truth read.
func stripService(o any) (any, error) {
	s, ok := o.(*corev1.Service)
	if !ok {
		return o, nil
	}
	kept := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: s.Name, Namespace: s.Namespace, UID: s.UID, ResourceVersion: s.ResourceVersion, DeletionTimestamp: s.DeletionTimestamp,
		},
		Spec: corev1.ServiceSpec{Type: s.Spec.Type, ClusterIP: s.Spec.ClusterIP, Selector: s.Spec.Selector, Ports: s.Spec.Ports},
	}
	if role, ok := s.Labels[sandbox.LabelRole]; ok {
		kept.Labels = map[string]string{sandbox.LabelRole: role}
	}
	for _, name := range []string{sandbox.AnnotationTargetPorts, sandbox.AnnotationRestored, sandbox.AnnotationWorkloads} {
		if value, ok := s.Annotations[name]; ok {
			if kept.Annotations == nil {
				kept.Annotations = map[string]string{}
			}
			kept.Annotations[name] = value
		}
	}
	return kept, nil
}

// isSwitched reports whether `route` switched a Service's targetPorts to names. The guard watches such Services.
func isSwitched(o client.Object) bool { return o.GetLabels()[sandbox.LabelRole] == sandbox.RoleService }

// hasGate reports whether a pod has the readiness gate that this package sets.
func hasGate(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.ReadinessGates, func(g corev1.PodReadinessGate) bool { return g.ConditionType == sandbox.ConditionRouted })
}
