package routes

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A Service may select pods of several routed workloads, such as a stable one and a canary. It balances before anybody
// reads the key, so the routers of all of them must route the key of a fork of any of them. These workloads are
// neighbours. A fork's route is in the tables of its baseline and of the baseline's neighbours: there as a guest, for
// the ports that the shared Service leads to. The fork's gate waits for all of these routers, and their counts are
// added to those of the fork's baseline.

// neighbours holds, for the other routed workloads that share a Service with one, the names of its ports there, sorted.
type neighbours map[Baseline][]string

// neighboursOf returns b's neighbours by the Services and the baselines' pods of its namespace.
func neighboursOf(b Baseline, services []corev1.Service, pods []corev1.Pod) neighbours {
	found := neighbours{}
	for i := range services {
		s := &services[i]
		if len(s.Spec.Selector) == 0 {
			continue
		}
		selector := labels.SelectorFromSet(s.Spec.Selector)
		others, ours := map[Baseline]bool{}, (*corev1.Pod)(nil)
		for j := range pods {
			if pods[j].DeletionTimestamp != nil || !selector.Matches(labels.Set(pods[j].Labels)) {
				continue
			}
			if of, _ := BaselineOf(&pods[j]); of != b {
				others[of] = true
			} else if ours == nil {
				ours = &pods[j]
			}
		}
		if ours == nil {
			continue
		}
		for other := range others {
			for j := range s.Spec.Ports {
				if name := portOf(&s.Spec.Ports[j], ours); name != "" && !slices.Contains(found[other], name) {
					found[other] = append(found[other], name)
				}
			}
		}
	}
	for other := range found {
		slices.Sort(found[other])
	}
	return found
}

// portOf returns the name of the captured port that a Service's port leads to; empty if it bypasses the router.
func portOf(p *corev1.ServicePort, pod *corev1.Pod) string {
	captured, err := sandbox.ParsePorts(pod.Annotations[sandbox.AnnotationPorts])
	if err != nil {
		return ""
	}
	for _, c := range captured {
		if p.TargetPort == intstr.FromString(c.Name) || p.TargetPort == intstr.FromInt32(int32(c.Number)) {
			return c.Name
		}
	}
	return ""
}

// Neighbours reads the Services and the pods of the namespace. See state.
func (s cacheState) Neighbours(ctx context.Context, b Baseline) (neighbours, error) {
	var services corev1.ServiceList
	if err := s.reader.List(ctx, &services, client.InNamespace(b.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	pods, err := podsIn(ctx, s.reader, b.Namespace)
	if err != nil {
		return nil, err
	}
	return neighboursOf(b, services.Items, pods), nil
}

// podsIn lists the pods of all baselines of a namespace.
func podsIn(ctx context.Context, c client.Reader, namespace string) ([]corev1.Pod, error) {
	var pods corev1.PodList
	err := c.List(ctx, &pods, client.InNamespace(namespace), client.MatchingFields{indexBaseline: sandbox.RoleBaseline}, client.UnsafeDisableDeepCopy)
	return pods.Items, err
}

// PodsBehind lists the pods that requests for a baseline may reach: its own and those of its neighbours. They are the
// cache's own: do not change them.
func PodsBehind(ctx context.Context, c client.Reader, b Baseline) ([]corev1.Pod, error) {
	near, err := cacheState{c}.Neighbours(ctx, b)
	if err != nil {
		return nil, err
	}
	pods, err := Pods(ctx, c, b, sandbox.RoleBaseline)
	for other := range near {
		more, err := Pods(ctx, c, other, sandbox.RoleBaseline)
		if err != nil {
			return nil, err
		}
		pods = append(slices.Clip(pods), more...)
	}
	return pods, err
}

// guestID returns the id of a claim by a neighbour's fork. No sandbox can have such a name.
func guestID(sandboxName string, of Baseline) string { return sandboxName + "@" + of.Workload }

// isOf reports whether a claim belongs to a sandbox, or to any if sandboxName is all.
func isOf(id, sandboxName string) bool {
	name, _, _ := strings.Cut(id, "@")
	return sandboxName == all || name == sandboxName
}

// A claimed fork belongs to this baseline if only is nil, otherwise to a neighbour.
type claimed struct {
	fork *Fork
	only []string
}

// claimedBy reads the forks that claim routes of a baseline, by the claims' ids: those of one sandbox, or all.
func (h *Hub) claimedBy(ctx context.Context, b Baseline, near neighbours, sandboxName string) (map[string]claimed, error) {
	own, err := h.state.Forks(ctx, b, sandboxName)
	if err != nil {
		return nil, err
	}
	found := make(map[string]claimed, len(own))
	for name, f := range own {
		found[name] = claimed{fork: f}
	}
	for other, only := range near {
		guests, err := h.state.Forks(ctx, other, sandboxName)
		if err != nil {
			return nil, err
		}
		for name, f := range guests {
			found[guestID(name, other)] = claimed{f, only}
		}
	}
	return found, nil
}

// regroup rebuilds the table of a baseline if its neighbours have changed.
func (h *Hub) regroup(ctx context.Context, name Baseline) error {
	near, err := h.state.Neighbours(ctx, name)
	if err != nil {
		return err
	}
	h.mu.Lock()
	b := h.baselines[name]
	same := b == nil || b.current == nil || maps.EqualFunc(b.near, near, slices.Equal)
	h.mu.Unlock()
	if same {
		return nil
	}
	return h.rebuild(ctx, name, all)
}

// spread rebuilds the routes of a sandbox's fork in the tables of the baseline's neighbours.
func (h *Hub) spread(ctx context.Context, name Baseline, sandboxName string) error {
	for _, other := range h.near(name) {
		h.mu.Lock()
		b := h.baselines[other]
		built := b != nil && b.current != nil
		h.mu.Unlock()
		if built { // otherwise its first table has it
			if err := h.rebuild(ctx, other, sandboxName); err != nil {
				return err
			}
		}
	}
	return nil
}

// near returns a baseline's neighbours, as of the last build of its table.
func (h *Hub) near(name Baseline) []Baseline {
	h.mu.Lock()
	defer h.mu.Unlock()
	if b := h.baselines[name]; b != nil {
		return slices.Collect(maps.Keys(b.near))
	}
	return nil
}

// viewNeighbours adds the routers of b's neighbours to a view. Their tables have versions of their own, so such a
// router is shown as having acknowledged either all that the view requires, or nothing. The caller holds Hub.mu.
func (h *Hub) viewNeighbours(v *View, b *baseline, pods []*corev1.Pod) {
	for other := range b.near {
		n := h.baselines[other]
		if n == nil || n.current == nil {
			continue // none of its routers is connected
		}
		for uid, r := range n.routers {
			seen := Router{Acked: route.Version{Term: h.term, Counter: h.counter}, Connected: r.stream != nil}
			for _, pod := range pods {
				if since, ok := n.guest(pod, b); b.serving[pod.UID] != (route.Version{}) && ok && (since == route.Version{} || r.acked.Compare(since) < 0) {
					seen.Acked = route.Version{}
				}
			}
			v.Routers[uid] = seen
		}
	}
}

// guest returns the version since which n's table has had the pod of a neighbour's fork; zero if it does not have it
// yet. It returns false if it never will, because a fork of n itself has the key. The caller holds Hub.mu.
func (n *baseline) guest(pod *corev1.Pod, of *baseline) (route.Version, bool) {
	c := n.claims.bySandbox[guestID(pod.Labels[sandbox.LabelSandbox], of.name)]
	if c != nil && (c.key == "" || n.claims.byKey[c.key][0] != c) {
		return route.Version{}, false
	}
	return n.serving[pod.UID], true
}

// counting returns the baselines whose routers count requests for b's forks: b and its neighbours. The caller holds
// Hub.mu.
func (h *Hub) counting(b *baseline) []*baseline {
	found := []*baseline{b}
	for other := range b.near {
		if n := h.baselines[other]; n != nil && n.current != nil {
			found = append(found, n)
		}
	}
	return found
}

// regroupDelay is how long changes are gathered before neighbours are computed. Pods of a rollout are created one by
// one, and their routers take longer than this to start.
const regroupDelay = 100 * time.Millisecond

// regroups enqueues the baselines of a namespace if a change of an object may change their neighbours. decides returns
// the part of an object that matters for this, nil if none does.
func regroups[T client.Object](h *Hub, decides func(T) any) handler.TypedFuncs[T, forkID] {
	look := func(o T, q forkQueue) {
		for _, b := range h.names(o.GetNamespace()) {
			q.AddAfter(forkID{Baseline: b}, regroupDelay)
		}
	}
	return handler.TypedFuncs[T, forkID]{
		CreateFunc: func(_ context.Context, e event.TypedCreateEvent[T], q forkQueue) {
			if decides(e.Object) != nil {
				look(e.Object, q)
			}
		},
		UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[T], q forkQueue) {
			if !equality.Semantic.DeepEqual(decides(e.ObjectOld), decides(e.ObjectNew)) {
				look(e.ObjectNew, q)
			}
		},
		DeleteFunc: func(_ context.Context, e event.TypedDeleteEvent[T], q forkQueue) {
			if decides(e.Object) != nil {
				look(e.Object, q)
			}
		},
	}
}

// membership returns the part of a baseline's pod that decides which Services select it.
func membership(p *corev1.Pod) any {
	if p.Labels[sandbox.LabelRole] != sandbox.RoleBaseline {
		return nil
	}
	return []any{p.Labels, p.Annotations[sandbox.AnnotationPorts], p.DeletionTimestamp == nil}
}

// leads returns the part of a Service that decides which pods it leads to.
func leads(s *corev1.Service) any { return []any{s.Spec.Selector, s.Spec.Ports} }
