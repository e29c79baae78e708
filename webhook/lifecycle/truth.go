package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

const (
	// truthDelay is how long events of a baseline are gathered before its forks are evaluated.
	truthDelay = 500 * time.Millisecond
	// truthSettleTime is how long a state that is usual during a start must last to be published.
	truthSettleTime = 2 * time.Second
	// truthRecheck is the interval at which forks that requests do not reach are evaluated without an event.
	truthRecheck = 4 * time.Second
	// truthGrace is how long after taking the lease routers may take to connect before they are reported as missing.
	truthGrace = 7 * time.Second
)

// A truth publishes, in each sandbox's ConfigMap, whether requests reach its forks, and if not, why. It writes only
// changes, and emits an Event when a fork's code changes. Unlike a gate, what is published does not stay True.
type truth struct {
	hub        hub
	cache      client.Reader
	api        client.Reader // not cached
	client     client.Client
	events     events.EventRecorder
	clock      clock.PassiveClock
	log        logr.Logger
	kinds      []schema.GroupVersionKind // of baselines, that the webhook may read
	staleAfter time.Duration

	mu    sync.Mutex
	began time.Time                                      // when this process first reconciled
	waits map[routes.Baseline]map[types.UID]waitingSince // forks in a state that is usual during a start
}

// waitingSince is a fork's state and when it began.
type waitingSince struct {
	code health.Code
	at   time.Time
}

// Reconcile publishes the truth about all forks of a baseline.
func (t *truth) Reconcile(ctx context.Context, b routes.Baseline) (reconcile.Result, error) {
	select {
	case <-t.hub.Serving():
	case <-ctx.Done():
		return reconcile.Result{}, ctx.Err()
	}
	if remaining := t.grace(); remaining > 0 {
		return reconcile.Result{RequeueAfter: remaining}, nil
	}
	forks, err := routes.ForksOf(ctx, t.cache, b)
	if err != nil {
		return reconcile.Result{}, err
	}
	truths, again, err := t.truths(ctx, b, forks)
	if err != nil {
		return reconcile.Result{}, err
	}
	result := reconcile.Result{}
	if again {
		result.RequeueAfter = truthRecheck
	}
	for name, truth := range truths {
		wait, err := t.publish(ctx, b.Namespace, name, forks[name].Deployment, truth)
		if err != nil {
			return reconcile.Result{}, err
		}
		if wait > 0 && (result.RequeueAfter == 0 || wait < result.RequeueAfter) {
			result.RequeueAfter = wait
		}
	}
	return result, nil
}

// grace returns how long nothing may be published yet.
func (t *truth) grace() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.began.IsZero() {
		t.began = t.clock.Now()
	}
	return truthGrace - t.clock.Now().Sub(t.began)
}

// truths evaluates all forks of a baseline, by sandbox. again reports whether one of them needs another evaluation
// without an event.
func (t *truth) truths(ctx context.Context, b routes.Baseline, forks map[string]*routes.Fork) (all map[string]health.Truth, again bool, err error) {
	all = map[string]health.Truth{}
	if len(forks) == 0 {
		t.settle(b, nil)
		return all, false, nil
	}
	baseline, neighbours, err := baselineFacts(ctx, t.cache, b)
	if err != nil {
		return nil, false, err
	}
	var pods []*corev1.Pod
	for _, f := range forks {
		pods = append(pods, f.Pods...)
	}
	view, err := t.hub.View(ctx, b, pods)
	if err != nil {
		return nil, false, err
	}
	now := t.clock.Now()
	reports := make(map[string]health.Report, len(forks))
	known := map[types.UID]waitingSince{}
	for name, f := range forks {
		facts := health.Facts{Now: now, Deployment: f.Deployment, Revisions: f.Revisions, Pods: f.Pods, Baseline: baseline}
		if len(baseline.Pods) == 0 && baseline.Gone == nil {
			t.readBaseline(ctx, b, f.Deployment, baseline)
		}
		facts.Routing = routing(view, name, health.Fork(facts).Pods, baseline.Pods, neighbours, t.staleAfter, now)
		r := health.Fork(facts)
		reports[name] = r
		c := r.Cause()
		known[f.Deployment.UID] = waitingSince{c.Code, now}
		all[name] = health.NewTruth(facts, r)
		again = again || !r.OK()
	}
	for _, r := range view.Routers {
		again = again || !r.Connected
	}
	known = t.settle(b, known)
	for name, r := range reports {
		since := known[forks[name].Deployment.UID].at
		if r.Cause().Outlook == health.OutlookWaits && !r.OK() && now.Sub(since) < truthSettleTime {
			delete(all, name) // it is still starting; again is set
		}
	}
	return all, again, nil
}

// settle records the codes of a baseline's forks, and returns since when each has had its code.
func (t *truth) settle(b routes.Baseline, now map[types.UID]waitingSince) map[types.UID]waitingSince {
	t.mu.Lock()
	defer t.mu.Unlock()
	for uid, s := range now {
		if was, ok := t.waits[b][uid]; ok && was.code == s.code {
			now[uid] = was
		}
	}
	if len(now) == 0 {
		delete(t.waits, b)
	} else {
		t.waits[b] = now
	}
	return now
}

// readBaseline reads a baseline that has no pods, if its kind may be read, to tell whether it exists and is still
// routed.
func (t *truth) readBaseline(ctx context.Context, b routes.Baseline, d *appsv1.Deployment, into *health.Baseline) {
	ref, err := fork.BaselineOf(d)
	if err != nil {
		return
	}
	gvk, ok := kindIn(t.kinds, ref)
	if !ok {
		return
	}
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(gvk)
	err = t.api.Get(ctx, types.NamespacedName{Namespace: b.Namespace, Name: ref.Name}, object)
	gone := apierrors.IsNotFound(err)
	if err != nil && !gone {
		return // unknown
	}
	into.Gone = &gone
	if gone {
		return
	}
	if template, err := fork.PodTemplate(object, d.Annotations[sandbox.AnnotationTemplate]); err == nil {
		role, _, _ := unstructured.NestedString(template, "metadata", "labels", sandbox.LabelRole)
		marked := role == sandbox.RoleBaseline
		into.Marked = &marked
	}
}

// publish writes the truth about a fork if it changed, and returns after how long to retry; 0 for not at all.
func (t *truth) publish(ctx context.Context, namespace, sandboxName string, d *appsv1.Deployment, now health.Truth) (time.Duration, error) {
	var cm corev1.ConfigMap
	name := types.NamespacedName{Namespace: namespace, Name: sandbox.ConfigMapName(sandboxName)}
	if err := t.cache.Get(ctx, name, &cm); err != nil {
		return 0, client.IgnoreNotFound(err) // a fork without a sandbox has no ConfigMap to publish to
	}
	if cm.DeletionTimestamp != nil || cm.Labels[sandbox.LabelRole] != sandbox.RoleSandbox {
		return 0, nil
	}
	all := health.ParsePublished(cm.Data[sandbox.DataHealth])
	was, known := all[d.Name]
	known = known && was.Of == now.Of
	if known && was.Same(now) {
		return 0, nil
	}
	news := !known || was.Code != now.Code
	if !news {
		now.Since = was.Since
	}
	data, err := t.merge(ctx, namespace, sandboxName, all, d.Name, now)
	if err != nil {
		return 0, err
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": cm.UID, "resourceVersion": cm.ResourceVersion},
		"data":     map[string]string{sandbox.DataHealth: data},
	})
	if err != nil {
		return 0, err
	}
	err = t.client.Patch(ctx, cm.DeepCopy(), client.RawPatch(types.MergePatchType, patch))
	switch {
	case apierrors.IsConflict(err):
		return truthDelay, nil // the cache is behind
	case err != nil:
		return 0, client.IgnoreNotFound(fmt.Errorf("publish the health of fork %s/%s: %w", namespace, d.Name, err))
	}
	if news {
		t.event(d, now)
	}
	return 0, nil
}

// merge adds one fork's truth to those of the sandbox's other forks, and drops those of forks that are gone.
func (t *truth) merge(ctx context.Context, namespace, sandboxName string, all health.Published, fork string, now health.Truth) (string, error) {
	forks, err := routes.Deployments(ctx, t.cache, namespace, sandboxName)
	if err != nil {
		return "", err
	}
	living := map[string]bool{fork: true}
	for i := range forks {
		living[forks[i].Name] = true
	}
	merged := maps.Clone(all)
	if merged == nil {
		merged = health.Published{}
	}
	maps.DeleteFunc(merged, func(name string, _ health.Truth) bool { return !living[name] })
	merged[fork] = now
	return merged.Format()
}

// event emits an Event about a fork's new code.
func (t *truth) event(d *appsv1.Deployment, now health.Truth) {
	kind := corev1.EventTypeWarning
	if now.Code == health.Routed || now.Code == health.Running {
		kind = corev1.EventTypeNormal
	}
	t.events.Eventf(d, nil, kind, string(now.Code), "Report", "%s", now.Message)
}
