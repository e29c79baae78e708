package routes

import (
	"context"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/telemetry"
)

// State returns the metrics' view of sandboxes and routers. It returns false if this process does not hold the lease or
// cannot read.
func (s *Server) State(ctx context.Context) (telemetry.State, bool) {
	select {
	case <-s.stopped:
		return telemetry.State{}, false
	case <-s.serving:
	default:
		return telemetry.State{}, false
	}
	state, known := s.lags()
	var configMaps corev1.ConfigMapList
	var forks appsv1.DeploymentList
	var pods corev1.PodList
	for list, role := range map[client.ObjectList]string{&configMaps: sandbox.RoleSandbox, &forks: sandbox.RoleFork, &pods: sandbox.RoleBaseline} {
		if err := s.opts.Cache.List(ctx, list, client.MatchingLabels{sandbox.LabelRole: role}, client.UnsafeDisableDeepCopy); err != nil {
			s.opts.Log.Error(err, "can't read the cache for metrics")
			return telemetry.State{}, false
		}
	}
	state.Sandboxes, state.Forks = len(configMaps.Items), len(forks.Items)
	now := time.Now()
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.DeletionTimestamp != nil || pod.Status.Phase != corev1.PodRunning {
			continue
		}
		lost, wasConnected := known[pod.UID]
		switch {
		case !health.HasRouter(pod):
			state.PodsWithoutRouter++
		case wasConnected && lost.IsZero():
		default:
			if !wasConnected { // unknown: this replica took the lease later
				lost = pod.CreationTimestamp.Time
				if s.since.After(lost) {
					lost = s.since
				}
			}
			state.RoutersDisconnected++
			if now.Sub(lost) > s.opts.StaleAfter {
				state.TablesStale++
			}
		}
	}
	return state, true
}

// lags returns the state of streams, and when each known router's stream ended; zero while it is open.
func (h *Hub) lags() (telemetry.State, map[types.UID]time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var state telemetry.State
	known := map[types.UID]time.Time{}
	for _, b := range h.baselines {
		for uid, r := range b.routers {
			known[uid] = h.lag.lost[r]
			if r.stream != nil {
				state.RoutersConnected++
			}
		}
		state.RoutesUnacknowledged += b.unacknowledged()
	}
	for _, since := range h.lag.behind {
		state.Unacknowledged = max(state.Unacknowledged, time.Since(since))
	}
	return state, known
}
