package lifecycle

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/endpointslice"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A guard puts a Service's numeric targetPorts back as soon as a pod that it selects lacks the name that `route` put in their
// place (a rollout undo, a revert from Git): such a pod would get no traffic, and in the end the Service would have no
// endpoints.
//
// A pod's ports never change, so only new pods and changed labels matter. The guard watches the pods of those
// namespaces that have a switched Service, whatever made them and whatever labels they carry; it sees a pod when it is
// created, long before it can be ready. It runs in every replica: its patches carry tests, so that two are as good as
// one, and a lease without a holder must not cost a Service its endpoints.
type guard struct {
	services client.Reader // cached, switched Services only
	client   client.Client
	events   events.EventRecorder
	clock    clock.PassiveClock
	log      logr.Logger
	newCache func(namespace string) (cache.Cache, error)

	controller controller.Controller
	ctx        context.Context // ends when the guard does; set by its own Start
	mu         sync.Mutex
	namespaces map[string]*podCache // with a switched Service
}

type podCache struct {
	cache.Cache
	stop context.CancelFunc
}

// Start runs the guard until ctx ends.
func (g *guard) Start(ctx context.Context) error {
	g.ctx = ctx
	return g.controller.Start(ctx)
}

// NeedLeaderElection says that every replica runs it.
func (*guard) NeedLeaderElection() bool { return false }

// Reconcile looks at one Service.
func (g *guard) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	var service corev1.Service
	switch err := g.services.Get(ctx, req.NamespacedName, &service); {
	case apierrors.IsNotFound(err) || err == nil && !isSwitched(&service):
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
	back, reason, err := PutBack(&service, selected.Items)
	if err != nil {
		g.log.Error(err, "can't guard a Service", "service", req.String())
		return reconcile.Result{}, nil // until somebody mends the annotation
	}
	if len(back) == 0 {
		return reconcile.Result{}, nil
	}
	patch, err := putBackPatch(&service, back, sandbox.PutBack{Time: g.clock.Now().UTC().Format(time.RFC3339), Reason: reason})
	if err != nil {
		return reconcile.Result{}, err
	}
	err = g.client.Patch(ctx, service.DeepCopy(), client.RawPatch(types.JSONPatchType, patch))
	switch {
	case apierrors.IsNotFound(err):
		return reconcile.Result{}, nil
	case apierrors.IsInvalid(err) || apierrors.IsConflict(err):
		// A test failed: the Service is not what the cache has any more. Look again when it is.
		return reconcile.Result{RequeueAfter: 50 * time.Millisecond}, nil
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("put targetPorts of Service %s back: %w", req, err)
	}
	g.log.Info("put numeric targetPorts back", "service", req.String(), "reason", reason)
	g.events.Eventf(&service, nil, corev1.EventTypeWarning, "TargetPortPutBack", "PutBack",
		"%s: targetPorts are numbers again, and requests pass the routers by", reason)
	return reconcile.Result{}, nil
}

// PutBack returns the indices of the Service's ports whose recorded number must take the place of the name, and why: some pod
// of pods, all of which the Service selects, lacks the name. Pods that are being deleted or have finished do not count.
func PutBack(s *corev1.Service, pods []corev1.Pod) (back map[int]sandbox.TargetPort, reason string, err error) {
	if len(s.Spec.Selector) == 0 || s.Annotations[sandbox.AnnotationTargetPorts] == "" {
		return nil, "", nil
	}
	switched, err := sandbox.ParseTargetPorts(s.Annotations[sandbox.AnnotationTargetPorts])
	if err != nil {
		return nil, "", err
	}
	back = map[int]sandbox.TargetPort{}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		target, ok := switched[sandbox.PortKey(string(p.Protocol), p.Port)]
		if !ok || p.TargetPort != intstr.FromString(target.Name) {
			continue
		}
		for j := range pods {
			if finished(&pods[j]) {
				continue
			}
			if _, err := endpointslice.FindPort(&pods[j], p); err != nil {
				back[i] = target
				reason = fmt.Sprintf("pod %s has no port named %s", pods[j].Name, target.Name)
				break
			}
		}
	}
	return back, reason, nil
}

func finished(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// putBackPatch returns the JSON patch that puts numbers back, and fails where the Service is not what it was made from.
func putBackPatch(s *corev1.Service, back map[int]sandbox.TargetPort, note sandbox.PutBack) ([]byte, error) {
	type op struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	ops := []op{{"test", "/metadata/uid", s.UID}}
	for i, target := range back {
		at := fmt.Sprintf("/spec/ports/%d/", i)
		ops = append(ops,
			op{"test", at + "port", s.Spec.Ports[i].Port},
			op{"test", at + "protocol", s.Spec.Ports[i].Protocol},
			op{"test", at + "targetPort", target.Name},
			op{"replace", at + "targetPort", target.Number})
	}
	annotation := "/metadata/annotations/" + strings.ReplaceAll(sandbox.AnnotationPutBack, "/", "~1")
	return json.Marshal(append(ops, op{"add", annotation, sandbox.FormatPutBack(note)}))
}

// pods returns the synced cache of a namespace's pods, started where there is none.
func (g *guard) pods(ctx context.Context, namespace string) (cache.Cache, error) { //nolint:contextcheck // see below
	g.mu.Lock()
	pc := g.namespaces[namespace]
	if pc == nil {
		c, err := g.newCache(namespace)
		if err != nil {
			g.mu.Unlock()
			return nil, fmt.Errorf("watch the pods of namespace %s: %w", namespace, err)
		}
		if _, err := c.GetInformer(ctx, &corev1.Pod{}, cache.BlockUntilSynced(false)); err != nil {
			g.mu.Unlock()
			return nil, err
		}
		if err := g.controller.Watch(podSource{source.Kind(c, &corev1.Pod{}, g.affected()), namespace}); err != nil {
			g.mu.Unlock()
			return nil, err
		}
		ctx, stop := context.WithCancel(g.ctx) // the watch outlives this call
		pc = &podCache{c, stop}
		g.namespaces[namespace] = pc
		go func() {
			if err := c.Start(ctx); err != nil {
				g.log.Error(err, "watch of pods ended", "namespace", namespace)
			}
		}()
	}
	g.mu.Unlock()
	if !pc.WaitForCacheSync(ctx) {
		return nil, fmt.Errorf("pods of namespace %s are not listed yet", namespace)
	}
	return pc, nil
}

// A podSource is named in the logs.
type podSource struct {
	source.Source
	namespace string
}

// MarshalText names the source.
func (s podSource) MarshalText() ([]byte, error) {
	return []byte("pods of namespace " + s.namespace), nil
}

// release stops the watch of a namespace's pods once it has no switched Service any more.
func (g *guard) release(ctx context.Context, namespace string) error {
	var services corev1.ServiceList
	if err := g.services.List(ctx, &services, client.InNamespace(namespace), client.MatchingLabels{sandbox.LabelRole: sandbox.RoleService}, client.Limit(1)); err != nil {
		return err
	}
	if len(services.Items) > 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if pc := g.namespaces[namespace]; pc != nil {
		pc.stop()
		delete(g.namespaces, namespace)
	}
	return nil
}

type requests = workqueue.TypedRateLimitingInterface[reconcile.Request]

// affected enqueues the Services that a new pod, or one with new labels, makes the guard act on.
func (g *guard) affected() handler.TypedFuncs[*corev1.Pod, reconcile.Request] {
	look := func(ctx context.Context, pod *corev1.Pod, q requests) {
		var services corev1.ServiceList
		err := g.services.List(ctx, &services, client.InNamespace(pod.Namespace), client.MatchingLabels{sandbox.LabelRole: sandbox.RoleService},
			client.UnsafeDisableDeepCopy)
		if err != nil {
			g.log.Error(err, "can't list guarded Services", "namespace", pod.Namespace)
			return
		}
		for i := range services.Items {
			s := &services.Items[i]
			if !labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(pod.Labels)) {
				continue
			}
			if back, _, err := PutBack(s, []corev1.Pod{*pod}); err == nil && len(back) > 0 {
				q.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(s)})
			}
		}
	}
	return handler.TypedFuncs[*corev1.Pod, reconcile.Request]{
		CreateFunc: func(ctx context.Context, e event.TypedCreateEvent[*corev1.Pod], q requests) { look(ctx, e.Object, q) },
		UpdateFunc: func(ctx context.Context, e event.TypedUpdateEvent[*corev1.Pod], q requests) {
			if !labels.Equals(e.ObjectOld.Labels, e.ObjectNew.Labels) {
				look(ctx, e.ObjectNew, q)
			}
		},
	}
}

// stripGuarded keeps of a pod what decides whether a Service selects it and finds its ports in it.
func stripGuarded(o any) (any, error) {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: p.Name, Namespace: p.Namespace, UID: p.UID, ResourceVersion: p.ResourceVersion,
			Labels: p.Labels, DeletionTimestamp: p.DeletionTimestamp,
		},
		Spec:   corev1.PodSpec{Containers: stripPorts(p.Spec.Containers), InitContainers: stripPorts(p.Spec.InitContainers)},
		Status: corev1.PodStatus{Phase: p.Status.Phase},
	}, nil
}

func stripPorts(containers []corev1.Container) []corev1.Container {
	var kept []corev1.Container
	for i := range containers {
		if len(containers[i].Ports) > 0 {
			kept = append(kept, corev1.Container{Ports: containers[i].Ports, RestartPolicy: containers[i].RestartPolicy})
		}
	}
	return kept
}
