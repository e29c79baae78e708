package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// ReasonRouted is the reason of the condition sandbox.ConditionRouted while it is True. While it is False, the reason
// is the code of a health.Cause.
const ReasonRouted = string(health.Routed)

// indexWaiting finds the pods of a baseline's forks whose gate is not True yet: see waits.
const indexWaiting = "sandbox-waiting"

const (
	// conditionDelay is how long a pod waits before its condition says what it waits for, and how often that may change.
	// Usually the gate turns True within milliseconds, and no other write is needed.
	conditionDelay = time.Second
	// maxPatches bounds the concurrent patches for the pods of one baseline's forks.
	maxPatches = 16
)

// A gate sets the readiness gate sandbox.ConditionRouted on the pods of forks. Once True it stays True: such a pod is
// not evaluated again, whatever happens to the baseline, the routers or the lease.
type gate struct {
	hub    hub
	cache  client.Reader
	client client.Client
	clock  clock.PassiveClock
	// staleAfter is the age at which a router stops using its table.
	staleAfter time.Duration

	mu   sync.Mutex
	pods map[routes.Baseline]map[types.UID]*gated // each entry is used only by the Reconcile of its baseline
}

// A hub knows routes and routers: a *routes.Hub.
type hub interface {
	Serving() <-chan struct{}
	View(ctx context.Context, b routes.Baseline, pods []*corev1.Pod) (routes.View, error)
}

// gated is the gate's state of a pod whose condition is not known to be True.
type gated struct {
	routed     bool      // True was written; the cache may not show it yet
	writeAfter time.Time // False is not written before this time
}

// Reconcile sets the gates of the pods of a baseline's forks. Where a gate stays False, its message says why.
func (g *gate) Reconcile(ctx context.Context, b routes.Baseline) (reconcile.Result, error) {
	select {
	case <-g.hub.Serving():
	case <-ctx.Done():
		return reconcile.Result{}, ctx.Err()
	}
	var forks corev1.PodList
	err := g.cache.List(ctx, &forks, client.InNamespace(b.Namespace), client.MatchingFields{indexWaiting: b.Workload}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return reconcile.Result{}, err
	}
	waiting := g.waiting(b, forks.Items)
	if len(waiting) == 0 {
		return reconcile.Result{}, nil
	}
	baseline, neighbours, err := baselineFacts(ctx, g.cache, b)
	if err != nil {
		return reconcile.Result{}, err
	}
	view, err := g.hub.View(ctx, b, slices.Collect(maps.Keys(waiting)))
	if err != nil {
		return reconcile.Result{}, err
	}
	var again time.Duration
	patches, ctx := errgroup.WithContext(ctx)
	patches.SetLimit(maxPatches)
	soon := func(after time.Duration) {
		if again == 0 || after < again {
			again = after
		}
	}
	for pod, state := range waiting {
		now := g.clock.Now()
		want, hold := Decide(pod, baseline, neighbours, view, g.staleAfter, now)
		if hold > 0 {
			soon(hold)
		}
		have := routed(pod)
		if have != nil && have.Reason == want.Reason && have.Message == want.Message {
			continue
		}
		if want.Status != corev1.ConditionTrue {
			if remaining := state.writeAfter.Sub(now); remaining > 0 {
				soon(remaining)
				continue
			}
			state.writeAfter = now.Add(conditionDelay)
		}
		patches.Go(func() error {
			if err := g.patch(ctx, pod, have, want); err != nil {
				return err
			}
			state.routed = want.Status == corev1.ConditionTrue
			return nil
		})
	}
	return reconcile.Result{RequeueAfter: again}, patches.Wait()
}

// waits is the index function of indexWaiting. It returns the workload of a fork's pod that lacks only its gate, so the
// cost of an acknowledgement depends on the pods that wait, not on all pods. A pod whose containers were ready before
// and are not any more counts as well, since the message of its gate is out of date.
func waits(o client.Object) []string {
	pod, ok := o.(*corev1.Pod)
	if !ok || !isGated(pod) || !ready(pod, corev1.ContainersReady) && routed(pod) == nil || ready(pod, sandbox.ConditionRouted) {
		return nil
	}
	return []string{pod.Labels[sandbox.LabelWorkload]}
}

// waiting returns the pods whose condition may have to be written.
func (g *gate) waiting(b routes.Baseline, pods []corev1.Pod) map[*corev1.Pod]*gated {
	g.mu.Lock()
	old := g.pods[b]
	g.mu.Unlock()
	known := map[types.UID]*gated{}
	waiting := map[*corev1.Pod]*gated{}
	for i := range pods {
		pod := &pods[i]
		state := old[pod.UID]
		if state == nil {
			state = &gated{writeAfter: g.clock.Now().Add(conditionDelay)}
		}
		known[pod.UID] = state
		if !state.routed {
			waiting[pod] = state
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(known) == 0 {
		delete(g.pods, b)
	} else {
		g.pods[b] = known
	}
	return waiting
}

// Decide returns the condition of a fork's pod that has the gate. If it can change by the passing of time alone, the
// duration is when to evaluate it again.
func Decide(pod *corev1.Pod, baseline *health.Baseline, neighbours []*corev1.Pod, view routes.View, staleAfter time.Duration, now time.Time) (corev1.PodCondition, time.Duration) {
	name := pod.Labels[sandbox.LabelSandbox]
	c := health.Gate(health.Facts{
		Now: now, Deployment: &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Labels: pod.Labels}}, Pods: []*corev1.Pod{pod}, Baseline: baseline,
		Routing: routing(view, name, []*corev1.Pod{pod}, baseline.Pods, neighbours, staleAfter, now),
	}, pod)
	if !c.OK() {
		var hold time.Duration
		if c.Code == health.ContainerJustStarted {
			_, hold = health.JustStarted(pod, now)
		}
		return corev1.PodCondition{Type: sandbox.ConditionRouted, Status: corev1.ConditionFalse, Reason: string(c.Code), Message: c.Message}, hold
	}
	return corev1.PodCondition{
		Type: sandbox.ConditionRouted, Status: corev1.ConditionTrue, Reason: ReasonRouted,
		Message: "the routers of all ready baseline pods route the key to this pod",
	}, 0
}

// patch writes this condition only: a strategic merge patch merges conditions by type, and keeps those of the kubelet.
func (g *gate) patch(ctx context.Context, pod *corev1.Pod, have *corev1.PodCondition, want corev1.PodCondition) error {
	want.LastTransitionTime = metav1.NewTime(g.clock.Now())
	if have != nil && have.Status == want.Status {
		want.LastTransitionTime = have.LastTransitionTime
	}
	want.ObservedGeneration = pod.Generation
	meta := map[string]any{"uid": pod.UID}
	if want.Status != corev1.ConditionTrue {
		// A previous holder of the lease may have set True meanwhile, which must never be overwritten.
		meta["resourceVersion"] = pod.ResourceVersion
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": meta,
		"status":   map[string]any{"conditions": []corev1.PodCondition{want}},
	})
	if err != nil {
		return err
	}
	target := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name}}
	err = g.client.Status().Patch(ctx, target, client.RawPatch(types.StrategicMergePatchType, patch))
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // the pod changed: its event enqueues the baseline again
	}
	if err != nil {
		return fmt.Errorf("set condition %s of pod %s/%s: %w", want.Type, pod.Namespace, pod.Name, err)
	}
	return nil
}

func isGated(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && pod.Labels[sandbox.LabelRole] == sandbox.RoleFork && hasGate(pod)
}

func routed(pod *corev1.Pod) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == sandbox.ConditionRouted {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

func ready(pod *corev1.Pod, kind corev1.PodConditionType) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == kind && c.Status == corev1.ConditionTrue
	})
}
