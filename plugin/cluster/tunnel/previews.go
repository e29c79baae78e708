package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Previews are the sandboxes of the client's namespace, and Services with the pods behind them, kept up to date.
type Previews struct {
	client     *Forwarder
	configMaps cache.Store            // sandboxes
	services   map[string]cache.Store // by namespace
	slices     map[string]cache.Indexer
	forks      cache.Indexer // Deployments, by sandbox; nil, as pods is, where the caller may not read them
	pods       cache.Indexer // of forks, by sandbox
	next       atomic.Uint32 // pod to begin with

	mu      sync.Mutex
	changed chan struct{} // closed at the next change of an EndpointSlice
}

const (
	byService = "service"
	bySandbox = "sandbox"
)

// Watch watches the sandboxes of the client's namespace, and the Services of that and of other namespaces, until ctx
// ends. It returns once everything is read, and fails if the caller may not read it.
func (c *Forwarder) Watch(ctx context.Context, namespaces ...string) (*Previews, error) {
	p := &Previews{
		client:   c,
		services: map[string]cache.Store{},
		slices:   map[string]cache.Indexer{},
		changed:  make(chan struct{}),
	}
	one := metav1.ListOptions{Limit: 1}
	calls := []func() error{func() error { _, err := c.Kube.CoreV1().ConfigMaps(c.Namespace).List(ctx, one); return err }}
	namespaces = slices.Compact(slices.Sorted(slices.Values(append(namespaces, c.Namespace))))
	for _, ns := range namespaces {
		calls = append(calls,
			func() error { _, err := c.Kube.CoreV1().Services(ns).List(ctx, one); return err },
			func() error { _, err := c.Kube.DiscoveryV1().EndpointSlices(ns).List(ctx, one); return err },
		)
	}
	if err := cluster.InParallel(calls...); err != nil {
		return nil, cluster.Explain(err)
	}
	var synced []cache.InformerSynced
	begin := func(informer cache.SharedIndexInformer) cache.Indexer {
		synced = append(synced, informer.HasSynced)
		go informer.RunWithContext(ctx)
		return informer.GetIndexer()
	}
	role := func(o *metav1.ListOptions) { o.LabelSelector = sandbox.LabelRole + "=" + sandbox.RoleSandbox }
	p.configMaps = begin(informer(c.Kube.CoreV1().RESTClient(), "configmaps", c.Namespace, &corev1.ConfigMap{}, role))
	for _, ns := range namespaces {
		p.services[ns] = begin(informer(c.Kube.CoreV1().RESTClient(), "services", ns, &corev1.Service{}, nil))
		endpoints := informer(c.Kube.DiscoveryV1().RESTClient(), "endpointslices", ns, &discoveryv1.EndpointSlice{}, nil)
		err := endpoints.AddIndexers(cache.Indexers{byService: func(o any) ([]string, error) {
			slice, _ := o.(*discoveryv1.EndpointSlice)
			return []string{slice.Labels[discoveryv1.LabelServiceName]}, nil
		}})
		if err != nil {
			return nil, err
		}
		_, err = endpoints.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { p.change() }, UpdateFunc: func(any, any) { p.change() }, DeleteFunc: func(any) { p.change() },
		})
		if err != nil {
			return nil, err
		}
		p.slices[ns] = begin(endpoints)
	}
	if err := p.watchForks(ctx, begin); err != nil {
		return nil, err
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil, ctx.Err()
	}
	return p, nil
}

// informer caches a resource without the fields that are unused here, and lists it again after every reconnect.
func informer(
	client rest.Interface,
	resource, namespace string,
	object runtime.Object,
	options func(*metav1.ListOptions),
) cache.SharedIndexInformer {
	if options == nil {
		options = func(*metav1.ListOptions) {}
	}
	i := cache.NewSharedIndexInformer(
		cache.NewFilteredListWatchFromClient(client, resource, namespace, options),
		object,
		0,
		cache.Indexers{},
	)
	_ = i.SetTransform(func(o any) (any, error) { // fails only once it runs
		if m, err := meta.Accessor(o); err == nil {
			m.SetManagedFields(nil)
			m.SetAnnotations(nil)
		}
		return o, nil
	})
	return i
}

// change wakes the callers that wait for another endpoint.
func (p *Previews) change() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *Previews) wait() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

// watchForks watches the forks of the namespace, if the caller may: they show what a sandbox waits for.
func (p *Previews) watchForks(ctx context.Context, begin func(cache.SharedIndexInformer) cache.Indexer) error {
	c, one := p.client, metav1.ListOptions{Limit: 1}
	err := cluster.InParallel(
		func() error { _, err := c.Kube.AppsV1().Deployments(c.Namespace).List(ctx, one); return err },
		func() error { _, err := c.Kube.CoreV1().Pods(c.Namespace).List(ctx, one); return err },
	)
	if apierrors.IsForbidden(err) {
		return nil
	}
	if err != nil {
		return cluster.Explain(err)
	}
	role := func(o *metav1.ListOptions) { o.LabelSelector = sandbox.LabelRole + "=" + sandbox.RoleFork }
	index := cache.Indexers{bySandbox: func(o any) ([]string, error) {
		m, err := meta.Accessor(o)
		if err != nil {
			return nil, err
		}
		return []string{m.GetLabels()[sandbox.LabelSandbox]}, nil
	}}
	deployments := informer(c.Kube.AppsV1().RESTClient(), "deployments", c.Namespace, &appsv1.Deployment{}, role)
	pods := informer(c.Kube.CoreV1().RESTClient(), "pods", c.Namespace, &corev1.Pod{}, role)
	if err := errors.Join(deployments.AddIndexers(index), pods.AddIndexers(index)); err != nil {
		return err
	}
	p.forks, p.pods = begin(deployments), begin(pods)
	return nil
}

// Waiting returns what keeps requests from a fork of a sandbox; nil if nothing is known.
func (p *Previews) Waiting(name string) *health.Block {
	if p.forks == nil {
		return nil
	}
	published := ""
	if o, ok, _ := p.configMaps.GetByKey(p.client.Namespace + "/" + sandbox.ConfigMapName(name)); ok {
		if cm, isOne := o.(*corev1.ConfigMap); isOne {
			published = cm.Data[sandbox.DataHealth]
		}
	}
	return health.Blocked(
		health.OfSandbox(indexed[appsv1.Deployment](p.forks, name), indexed[corev1.Pod](p.pods, name), published, time.Now()),
	)
}

// indexed returns the objects of a sandbox.
func indexed[T any](store cache.Indexer, name string) []T {
	objects, _ := store.ByIndex(bySandbox, name) // fails only of an index that there is not
	all := make([]T, 0, len(objects))
	for _, o := range objects {
		if one, ok := o.(*T); ok {
			all = append(all, *one)
		}
	}
	return all
}

// Key returns the routing key of a sandbox; false if there is no sandbox of that name.
func (p *Previews) Key(name string) (string, bool) {
	o, ok, _ := p.configMaps.GetByKey(p.client.Namespace + "/" + sandbox.ConfigMapName(name))
	cm, isOne := o.(*corev1.ConfigMap)
	if !ok || !isOne || cm.Labels[sandbox.LabelSandbox] != name || cm.DeletionTimestamp != nil ||
		cm.Data[sandbox.DataKey] == "" {
		return "", false
	}
	return cm.Data[sandbox.DataKey], true
}

// Service returns a Service of the watched namespaces.
func (p *Previews) Service(namespace, name string) (*corev1.Service, bool) {
	store := p.services[namespace]
	if store == nil {
		return nil, false
	}
	o, ok, _ := store.GetByKey(namespace + "/" + name)
	s, isOne := o.(*corev1.Service)
	return s, ok && isOne
}

// A target is a pod's port.
type target struct {
	pod  string
	port uint16
}

// targets returns the ports of the ready pods behind a Service's port. Each call starts with another pod.
func (p *Previews) targets(namespace, service, port string) []target {
	index := p.slices[namespace]
	if index == nil {
		return nil
	}
	objects, _ := index.ByIndex(byService, service) // fails only for an index that there is not
	var found []target
	for _, o := range objects {
		if slice, ok := o.(*discoveryv1.EndpointSlice); ok {
			found = append(found, targetsIn(slice, port)...)
		}
	}
	if n := len(found); n > 1 {
		at := int(p.next.Add(1)) % n
		found = slices.Concat(found[at:], found[:at])
	}
	return found
}

func targetsIn(slice *discoveryv1.EndpointSlice, port string) []target {
	var number uint16
	for _, sp := range slice.Ports {
		if sp.Port != nil && (sp.Name == nil && port == "" || sp.Name != nil && *sp.Name == port) &&
			(sp.Protocol == nil || *sp.Protocol == corev1.ProtocolTCP) {
			number = uint16(*sp.Port) //nolint:gosec // the API server holds it to a port's range
		}
	}
	var found []target
	for _, e := range slice.Endpoints {
		ready := e.Conditions.Ready == nil || *e.Conditions.Ready
		if number != 0 && ready && e.TargetRef != nil && e.TargetRef.Kind == "Pod" &&
			!slices.Contains(found, target{e.TargetRef.Name, number}) {
			found = append(found, target{e.TargetRef.Name, number})
		}
	}
	return found
}

// retryAfter is how long a dial waits before it retries pods that refused a connection, unless an endpoint changes
// before.
const retryAfter = 250 * time.Millisecond

// Dial connects to a ready pod behind a Service's port, which is named as in the Service. If there is none, or none
// can be reached, it waits for one until ctx ends, and then returns the reason.
func (p *Previews) Dial(ctx context.Context, namespace, service, port string) (net.Conn, error) {
	why := fmt.Errorf("no pod of service %s.%s is ready", service, namespace)
	for {
		changed := p.wait()
		for _, t := range p.targets(namespace, service, port) {
			conn, err := p.client.ForwardPod(ctx, namespace, t.pod, t.port)
			switch {
			case err == nil:
				return conn, nil
			case apierrors.IsForbidden(err):
				return nil, err
			case ctx.Err() == nil:
				why = err
			}
		}
		timer := time.NewTimer(retryAfter)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, ctx.Err()
			}
			return nil, why
		}
		timer.Stop()
	}
}
