package lifecycle

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A podCache caches the pods and workloads of one namespace.
type podCache struct {
	cache.Cache
	stop context.CancelFunc
}

// pods returns the synced cache of a namespace, and starts one if there is none.
func (g *guard) pods(ctx context.Context, namespace string) (cache.Cache, error) { //nolint:contextcheck // see below
	g.mu.Lock()
	pc := g.namespaces[namespace]
	if pc == nil {
		c, err := g.newCache(namespace)
		if err != nil {
			g.mu.Unlock()
			return nil, fmt.Errorf("watch the pods of namespace %s: %w", namespace, err)
		}
		if err := g.watch(ctx, c, namespace); err != nil {
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

// watch enqueues Services on events of a namespace's pods and workloads.
func (g *guard) watch(ctx context.Context, c cache.Cache, namespace string) error {
	if _, err := c.GetInformer(ctx, &corev1.Pod{}, cache.BlockUntilSynced(false)); err != nil {
		return err
	}
	if err := g.controller.Watch(guardSource{source.Kind(c, &corev1.Pod{}, g.affected()), "pods", namespace}); err != nil {
		return err
	}
	for _, kind := range g.kinds {
		m := &metav1.PartialObjectMetadata{}
		m.SetGroupVersionKind(kind)
		if _, err := c.GetInformer(ctx, m, cache.BlockUntilSynced(false)); err != nil {
			return err
		}
		if err := g.controller.Watch(guardSource{source.Kind(c, m, g.deleted(kind)), kind.Kind, namespace}); err != nil {
			return err
		}
	}
	return nil
}

// A guardSource is a source with a readable name in the logs.
type guardSource struct {
	source.Source
	what, namespace string
}

// MarshalText returns the name of the source.
func (s guardSource) MarshalText() ([]byte, error) {
	return []byte(s.what + " of namespace " + s.namespace), nil
}

// release stops the watch of a namespace once it has no switched Service.
func (g *guard) release(ctx context.Context, namespace string) error {
	var services corev1.ServiceList
	if err := g.services.List(ctx, &services, client.InNamespace(namespace), client.Limit(1),
		client.MatchingLabels{sandbox.LabelRole: sandbox.RoleService}); err != nil {
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

// each enqueues the switched Services of a namespace that which selects.
func (g *guard) each(ctx context.Context, namespace string, q requests, which func(*corev1.Service) bool) {
	var services corev1.ServiceList
	if err := g.services.List(ctx, &services, client.InNamespace(namespace), client.UnsafeDisableDeepCopy); err != nil {
		g.log.Error(err, "can't list guarded Services", "namespace", namespace)
		return
	}
	for i := range services.Items {
		if isSwitched(&services.Items[i]) && which(&services.Items[i]) {
			q.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&services.Items[i])})
		}
	}
}

// affected enqueues the Services that select a new, deleted or changed pod, if the change matters to the guard.
func (g *guard) affected() handler.TypedFuncs[*corev1.Pod, reconcile.Request] {
	look := func(ctx context.Context, q requests, pods ...*corev1.Pod) {
		g.each(ctx, pods[0].Namespace, q, func(s *corev1.Service) bool {
			selector := labels.SelectorFromSet(s.Spec.Selector)
			return len(s.Spec.Selector) > 0 && slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return selector.Matches(labels.Set(p.Labels)) })
		})
	}
	return handler.TypedFuncs[*corev1.Pod, reconcile.Request]{
		CreateFunc: func(ctx context.Context, e event.TypedCreateEvent[*corev1.Pod], q requests) { look(ctx, q, e.Object) },
		DeleteFunc: func(ctx context.Context, e event.TypedDeleteEvent[*corev1.Pod], q requests) { look(ctx, q, e.Object) },
		UpdateFunc: func(ctx context.Context, e event.TypedUpdateEvent[*corev1.Pod], q requests) {
			was, is := e.ObjectOld, e.ObjectNew
			if !labels.Equals(was.Labels, is.Labels) || finished(was) != finished(is) || stalled(was) != stalled(is) {
				look(ctx, q, was, is)
			}
		},
	}
}

// deleted enqueues the Services that were switched for a deleted workload.
func (g *guard) deleted(kind schema.GroupVersionKind) handler.TypedFuncs[*metav1.PartialObjectMetadata, reconcile.Request] {
	return handler.TypedFuncs[*metav1.PartialObjectMetadata, reconcile.Request]{
		DeleteFunc: func(ctx context.Context, e event.TypedDeleteEvent[*metav1.PartialObjectMetadata], q requests) {
			g.each(ctx, e.Object.Namespace, q, func(s *corev1.Service) bool {
				return slices.Contains(sandbox.ParseWorkloads(s.Annotations[sandbox.AnnotationWorkloads]), sandbox.WorkloadName(kind.Kind, e.Object.Name))
			})
		},
	}
}

// stripGuarded keeps the fields of a pod that Services select it and find its ports by.
func stripGuarded(o any) (any, error) {
	p, ok := o.(*corev1.Pod)
	if !ok {
		return stripBaseline(o)
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: p.Name, Namespace: p.Namespace, UID: p.UID, ResourceVersion: p.ResourceVersion,
			Labels: p.Labels, DeletionTimestamp: p.DeletionTimestamp, OwnerReferences: p.OwnerReferences,
		},
		Spec: corev1.PodSpec{Containers: stripPorts(p.Spec.Containers), InitContainers: stripPorts(p.Spec.InitContainers)},
		Status: corev1.PodStatus{
			Phase:                 p.Status.Phase,
			Conditions:            slices.DeleteFunc(slices.Clone(p.Status.Conditions), func(c corev1.PodCondition) bool { return c.Type != corev1.PodScheduled }),
			InitContainerStatuses: stripStatuses(p.Status.InitContainerStatuses), ContainerStatuses: stripStatuses(p.Status.ContainerStatuses),
		},
	}, nil
}

func stripPorts(containers []corev1.Container) []corev1.Container {
	var kept []corev1.Container
	for i := range containers {
		if len(containers[i].Ports) > 0 {
			c := corev1.Container{Name: containers[i].Name, Ports: containers[i].Ports, RestartPolicy: containers[i].RestartPolicy}
			for _, env := range containers[i].Env {
				if c.Name == sandbox.RouterContainer && env.Name == sandbox.EnvRouterPorts {
					c.Env = append(c.Env, env)
				}
			}
			kept = append(kept, c)
		}
	}
	return kept
}

func stripStatuses(statuses []corev1.ContainerStatus) []corev1.ContainerStatus {
	var kept []corev1.ContainerStatus
	for i := range statuses {
		if w := statuses[i].State.Waiting; w != nil {
			kept = append(kept, corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: w.Reason}}})
		}
	}
	return kept
}
