package lifecycle

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/telemetry"
)

// A guard keeps endpoints for Services that `route` switched to names. It restores numeric targetPorts as soon as a pod
// lacks the name, switches to names again once all pods have it, and releases Services whose routed workloads are gone.
// Admission keeps the names in templates, so the guard acts only after admission was unavailable, or after a workload
// was deleted and created again.
//
// A pod's ports never change, so only new pods, changed labels and deleted pods matter. The guard watches all pods of
// each namespace that has a switched Service, whatever their owner or labels. It sees a pod when it is created, long
// before it can be ready. It runs in every replica: its patches carry tests, so concurrent patches do no harm, and a
// Service must not lose its endpoints while nobody holds the lease.
type guard struct {
	services client.Reader // cached, switched Services only
	api      client.Reader // not cached
	client   client.Client
	events   events.EventRecorder
	clock    clock.PassiveClock
	log      logr.Logger
	metrics  *telemetry.Set
	newCache func(namespace string) (cache.Cache, error)
	// kinds are the kinds of workloads that can be routed and that the webhook may read.
	kinds []schema.GroupVersionKind

	controller controller.Controller
	ctx        context.Context // ends when the guard does; set by Start
	mu         sync.Mutex
	namespaces map[string]*podCache // namespaces that have a switched Service
	reported   map[types.NamespacedName]string
}

// Start runs the guard until ctx ends.
func (g *guard) Start(ctx context.Context) error {
	g.ctx = ctx
	return g.controller.Start(ctx)
}

// NeedLeaderElection returns false: the guard runs in every replica.
func (*guard) NeedLeaderElection() bool { return false }

// Reconcile guards one Service.
func (g *guard) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var service corev1.Service
	err := g.services.Get(ctx, req.NamespacedName, &service)
	switch {
	case apierrors.IsNotFound(err) || err == nil && !isSwitched(&service):
		g.mu.Lock()
		delete(g.reported, req.NamespacedName)
		g.mu.Unlock()
		return reconcile.Result{}, g.release(ctx, req.Namespace)
	case err != nil:
		return reconcile.Result{}, err
	}
	pods, err := g.pods(ctx, req.Namespace)
	if err != nil {
		return reconcile.Result{}, err
	}
	var selected corev1.PodList
	err = pods.List(ctx, &selected, client.InNamespace(req.Namespace), client.UnsafeDisableDeepCopy,
		client.MatchingLabelsSelector{Selector: labels.SelectorFromSet(service.Spec.Selector)})
	if err != nil {
		return reconcile.Result{}, err
	}
	var unread error
	decision, err := decideService(&service, selected.Items, func(workload string) bool {
		gone, err := g.gone(ctx, pods, req.Namespace, workload)
		if err != nil {
			unread = err
		}
		return gone
	})
	switch {
	case unread != nil:
		return reconcile.Result{}, unread
	case err != nil:
		g.log.Error(err, "can't guard a Service: fix its annotation, or run kubectl sandbox unroute", "service", req.String())
		return reconcile.Result{}, nil
	}
	g.reportStrays(&service, decision.strays)
	if decision.action == "" {
		return reconcile.Result{}, nil
	}
	return g.write(ctx, &service, &decision)
}

func (g *guard) write(ctx context.Context, service *corev1.Service, d *guardDecision) (reconcile.Result, error) {
	name := client.ObjectKeyFromObject(service).String()
	patch, err := d.patch(service, sandbox.Restored{Time: g.clock.Now().UTC().Format(time.RFC3339), Reason: d.reason})
	if err != nil {
		return reconcile.Result{}, err
	}
	err = g.client.Patch(ctx, service.DeepCopy(), client.RawPatch(types.JSONPatchType, patch))
	switch {
	case apierrors.IsNotFound(err):
		return reconcile.Result{}, nil
	case apierrors.IsInvalid(err) || apierrors.IsConflict(err):
		// A test failed: the cache is behind the Service. Retry when it has caught up.
		return reconcile.Result{RequeueAfter: 50 * time.Millisecond}, nil
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("%s targetPorts of Service %s: %w", d.action, name, err)
	}
	g.log.Info("changed a Service", "service", name, "action", string(d.action), "reason", d.reason)
	switch d.action {
	case guardRestore:
		g.metrics.Restored()
		g.events.Eventf(service, nil, corev1.EventTypeWarning, "TargetPortPutBack", "PutBack",
			"%s: targetPorts are numbers again, and requests pass the routers by", d.reason)
	case guardForward:
		g.events.Eventf(service, nil, corev1.EventTypeNormal, "TargetPortNamed", "Name",
			"all pods have the ports' names: targetPorts are names again, and requests reach the routers")
	case guardRelease:
		g.events.Eventf(service, nil, corev1.EventTypeNormal, "ServiceReleased", "Release",
			"%s: targetPorts are numbers again, and the Service is not routed any more", d.reason)
	case guardForget:
	}
	return reconcile.Result{}, nil
}

// reportStrays emits an Event that names the pods a Service selects but cannot reach, once for each set of pods.
func (g *guard) reportStrays(service *corev1.Service, strays []string) {
	slices.Sort(strays)
	said, at := strings.Join(strays, ", "), client.ObjectKeyFromObject(service)
	g.mu.Lock()
	known := g.reported[at]
	if said == "" {
		delete(g.reported, at)
	} else {
		g.reported[at] = said
	}
	g.mu.Unlock()
	if said == "" || said == known {
		return
	}
	g.log.Info("pods get no requests of a routed Service, since they lack its ports' names", "service", at.String(), "pods", said)
	g.events.Eventf(service, nil, corev1.EventTypeWarning, "PodWithoutPortName", "Select",
		"the Service selects %s, which lack the names of its ports and are not of a routed workload: they get no requests. Route their workload, or change their labels", said)
}

// gone reports whether a workload, named as in sandbox.AnnotationWorkloads, does not exist. If the webhook may not read
// its kind, the workload counts as existing.
func (g *guard) gone(ctx context.Context, cached client.Reader, namespace, workload string) (bool, error) {
	kind, name, _ := strings.Cut(workload, ".")
	i := slices.IndexFunc(g.kinds, func(k schema.GroupVersionKind) bool { return strings.ToLower(k.Kind) == kind })
	if i < 0 {
		return false, nil
	}
	// The cache may lack a new workload, so the API server is asked last.
	for _, reader := range []client.Reader{cached, g.api} {
		var m metav1.PartialObjectMetadata
		m.SetGroupVersionKind(g.kinds[i])
		if err := reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, &m); !apierrors.IsNotFound(err) {
			return false, err
		}
	}
	return true, nil
}
