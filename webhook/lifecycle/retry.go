package lifecycle

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

const (
	retryEvery = 5 * time.Second // the interval of checks, and the first wait between two retries for one fork
	retryMax   = time.Minute     // the longest wait
)

// A retrier retries forks whose pods could not be created while admission was unavailable. The ReplicaSet controller
// retries too, but after many failures it waits up to a quarter of an hour. An annotation on the Deployment, which the
// Deployment controller copies to the ReplicaSet, makes it retry at once.
type retrier struct {
	cache  client.Reader
	client client.Client
	clock  clock.WithTicker
	log    logr.Logger
	tries  map[types.UID]try
}

// A try is when a fork is retried next, and how long to wait after that.
type try struct {
	next time.Time
	wait time.Duration
}

// NeedLeaderElection returns true: only the lease's holder retries.
func (*retrier) NeedLeaderElection() bool { return true }

// Start checks forks until ctx ends. Admission runs in this process, so it is available now or will be in a moment.
func (r *retrier) Start(ctx context.Context) error {
	ticker := r.clock.NewTicker(retryEvery)
	defer ticker.Stop()
	for {
		if err := r.look(ctx); err != nil && ctx.Err() == nil {
			r.log.Error(err, "can't retry forks whose pods admission could not be asked for")
		}
		select {
		case <-ticker.C():
		case <-ctx.Done():
			return nil
		}
	}
}

func (r *retrier) look(ctx context.Context) error {
	var forks appsv1.DeploymentList
	if err := r.cache.List(ctx, &forks, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	now := r.clock.Now()
	due, tries := due(forks.Items, r.tries, now)
	r.tries = tries
	for _, d := range due {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
			"uid":         d.UID,
			"annotations": map[string]string{sandbox.AnnotationRetriedAt: now.UTC().Format(time.RFC3339)},
		}})
		if err != nil {
			return err
		}
		target := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: d.Name}}
		if err := client.IgnoreNotFound(r.client.Patch(ctx, target, client.RawPatch(types.MergePatchType, patch))); err != nil {
			return err
		}
		r.log.Info("had a fork's pods tried again", "deployment", d.Namespace+"/"+d.Name)
	}
	return nil
}

// due returns the forks to retry now, and the schedule of all failing forks, given the previous schedule old.
func due(forks []appsv1.Deployment, old map[types.UID]try, now time.Time) ([]*appsv1.Deployment, map[types.UID]try) {
	plan := map[types.UID]try{}
	var found []*appsv1.Deployment
	for i := range forks {
		d := &forks[i]
		if d.DeletionTimestamp != nil || !admissionFailed(d) {
			continue
		}
		t, ok := old[d.UID]
		if !ok {
			t = try{next: now, wait: retryEvery}
		}
		if !now.Before(t.next) {
			found = append(found, d)
			t = try{next: now.Add(t.wait - retryEvery/2), wait: min(2*t.wait, retryMax)} // half an interval early rather than a whole one late
		}
		plan[d.UID] = t
	}
	return found, plan
}

// admissionFailed reports whether a Deployment lacks pods because our webhook could not be called. The API server says:
// `Internal error occurred: failed calling webhook "fork.kubectl-sandbox.dev": ...`.
func admissionFailed(d *appsv1.Deployment) bool {
	return slices.ContainsFunc(d.Status.Conditions, func(c appsv1.DeploymentCondition) bool {
		return c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue &&
			strings.Contains(c.Message, "failed calling webhook") &&
			strings.Contains(c.Message, strings.TrimSuffix(sandbox.Prefix, "/"))
	})
}
