package lifecycle

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// expiry deletes sandboxes and experiments that have expired. The garbage collector deletes what they own.
type expiry struct {
	cache  client.Reader
	client client.Client
	events events.EventRecorder
	clock  clock.PassiveClock
	// warnBefore is how long before its expiry a sandbox gets a warning Event.
	warnBefore time.Duration

	mu     sync.Mutex
	warned map[types.NamespacedName]string // the expiry that the last Event was about
}

// Reconcile warns about, or deletes, one sandbox or experiment.
func (e *expiry) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var cm corev1.ConfigMap
	if err := e.cache.Get(ctx, req.NamespacedName, &cm); err != nil {
		e.note(req.NamespacedName, "")
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	expires := cm.Data[sandbox.DataExpires]
	what := kindOf(&cm)
	if expires == "" || cm.DeletionTimestamp != nil || what == "" {
		return reconcile.Result{}, nil
	}
	at, err := time.Parse(time.RFC3339, expires)
	if err != nil {
		if e.note(req.NamespacedName, expires) {
			e.events.Eventf(&cm, nil, corev1.EventTypeWarning, "InvalidExpiry", "Expire",
				"data.%s is not a time (RFC 3339): the %s stays until it is deleted", sandbox.DataExpires, what)
		}
		return reconcile.Result{}, nil
	}
	// At most a quarter of its life: a sandbox of a few minutes would get the warning when it is created.
	warnBefore := min(e.warnBefore, at.Sub(cm.CreationTimestamp.Time)/4)
	if what == kindRun {
		warnBefore = 0 // no warning: an experiment's results have been read by then, and nothing can extend it
	}
	switch remaining := at.Sub(e.clock.Now()); {
	case remaining > warnBefore:
		return reconcile.Result{RequeueAfter: remaining - warnBefore}, nil
	case remaining > 0:
		if e.note(req.NamespacedName, expires) {
			e.events.Eventf(&cm, nil, corev1.EventTypeNormal, "ExpiresSoon", "Expire",
				"sandbox will be deleted at %s; to keep it: kubectl sandbox extend %s --namespace=%s", expires, cm.Labels[sandbox.LabelSandbox], cm.Namespace)
		}
		return reconcile.Result{RequeueAfter: remaining}, nil
	}
	// Both preconditions: the sandbox may have been recreated or extended since the cache was updated.
	err = e.client.Delete(ctx, cm.DeepCopy(), client.Preconditions{UID: &cm.UID, ResourceVersion: &cm.ResourceVersion})
	switch {
	case apierrors.IsConflict(err):
		return reconcile.Result{RequeueAfter: time.Second}, nil
	case apierrors.IsNotFound(err):
		return reconcile.Result{}, nil
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("delete expired %s %s: %w", what, req, err)
	}
	e.events.Eventf(&cm, nil, corev1.EventTypeNormal, "Expired", "Expire", "%s expired at %s and was deleted", what, expires)
	return reconcile.Result{}, nil
}

// Kinds of objects that expire, as messages name them.
const (
	kindSandbox = "sandbox"
	kindRun     = "experiment"
)

// kindOf returns the kind of a ConfigMap; empty if it is not ours.
func kindOf(cm *corev1.ConfigMap) string {
	switch cm.Labels[sandbox.LabelRole] {
	case sandbox.RoleSandbox:
		if cm.Name == sandbox.ConfigMapName(cm.Labels[sandbox.LabelSandbox]) {
			return kindSandbox
		}
	case sandbox.RoleRun:
		if cm.Name == sandbox.RunName(cm.Labels[sandbox.LabelRun]) {
			return kindRun
		}
	}
	return ""
}

// note records the expiry of a sandbox, and reports whether it is new.
func (e *expiry) note(name types.NamespacedName, expires string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if expires == "" {
		delete(e.warned, name)
		return false
	}
	first := e.warned[name] != expires
	e.warned[name] = expires
	return first
}
