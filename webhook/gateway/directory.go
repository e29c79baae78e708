package gateway

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/preview"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/share"
)

// indexSandbox finds shares, forks and their pods by the name of their sandbox, within a namespace.
const indexSandbox = "sandbox-name"

// CacheOptions returns which objects the gateway caches, and which of their fields.
func CacheOptions() map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{
		&corev1.ConfigMap{}:  {Label: roles(sandbox.RoleSandbox, sandbox.RoleShare), Transform: strip},
		&appsv1.Deployment{}: {Label: roles(sandbox.RoleFork), Transform: strip},
		&corev1.Pod{}:        {Label: roles(sandbox.RoleFork), Transform: strip},
		&corev1.Service{}:    {Transform: strip},
		namespace():          {Label: labels.SelectorFromSet(labels.Set{sandbox.LabelEntry: sandbox.EntryAllowed}), Transform: strip},
	}
}

// Index starts the watches of the gateway, and adds its indices. Call it once, before the cache starts.
func Index(ctx context.Context, c cache.Cache) error {
	for _, object := range []client.Object{&corev1.Service{}, namespace()} {
		if _, err := c.GetInformer(ctx, object, cache.BlockUntilSynced(false)); err != nil {
			return fmt.Errorf("watch %T: %w", object, err)
		}
	}
	for _, object := range []client.Object{&corev1.ConfigMap{}, &appsv1.Deployment{}, &corev1.Pod{}} {
		if err := c.IndexField(ctx, object, indexSandbox, bySandbox); err != nil {
			return fmt.Errorf("index %T by sandbox: %w", object, err)
		}
	}
	return nil
}

// bySandbox returns "ROLE/SANDBOX" for a sandbox's share, fork or pod.
func bySandbox(o client.Object) []string {
	l := o.GetLabels()
	return []string{l[sandbox.LabelRole] + "/" + l[sandbox.LabelSandbox]}
}

// roles selects the objects that have one of the roles.
func roles(role ...string) labels.Selector {
	r, err := labels.NewRequirement(sandbox.LabelRole, selection.In, role)
	if err != nil {
		panic(err) // only if the constants are invalid
	}
	return labels.NewSelector().Add(*r)
}

// namespace returns an empty Namespace of which only metadata is watched.
func namespace() *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}}
}

// strip drops the fields that the gateway does not read.
func strip(o any) (any, error) {
	if m, ok := o.(client.Object); ok {
		m.SetManagedFields(nil)
	}
	switch o := o.(type) {
	case *corev1.ConfigMap:
		delete(o.Data, sandbox.DataCounts)
		delete(o.Data, sandbox.DataCounted)
	case *appsv1.Deployment:
		o.Annotations = nil // all pods then count as one revision, which is enough to tell whether any serves
		template := o.Spec.Template.Annotations
		o.Spec = appsv1.DeploymentSpec{Replicas: o.Spec.Replicas}
		o.Spec.Template.Annotations = template
	case *corev1.Pod:
		o.Annotations, o.Spec, o.Status = nil, health.StripSpec(&o.Spec), health.StripStatus(&o.Status)
	case *corev1.Service:
		o.Annotations = nil
	}
	return o, nil
}

// An Entry is a preview: a Service through which requests enter a sandbox.
type Entry struct {
	Service, ServiceNamespace string
	Sandbox, Namespace        string
}

// name returns the Service as in shares and hosts: with its namespace if that is not the sandbox's.
func (e Entry) name() string {
	if e.ServiceNamespace == e.Namespace {
		return e.Service
	}
	return e.Service + "." + e.ServiceNamespace
}

// about returns what pages say about the entry.
func (e Entry) about() preview.About {
	if e == (Entry{}) {
		return preview.About{}
	}
	return preview.About{Sandbox: e.Sandbox, Namespace: e.Namespace, Service: e.name()}
}

// A directory looks up objects in the cache of CacheOptions and Index.
type directory struct {
	reader client.Reader
	now    func() time.Time

	mu      sync.Mutex
	aliases map[string]Entry
	built   time.Time
	gone    map[sandboxName]string // the reason
	order   []sandboxName          // of gone, oldest first
}

type sandboxName struct{ namespace, name string }

// aliasAge bounds how often the aliases of all previews are computed, so that requests for unknown hosts cost no more.
const aliasAge = time.Second

// maxGone bounds how many deleted sandboxes are remembered.
const maxGone = 10000

func newDirectory(reader client.Reader, now func() time.Time) *directory {
	return &directory{reader: reader, now: now, gone: map[sandboxName]string{}}
}

// watch remembers deleted sandboxes, so that users of an old link learn why it fails. Call it once.
func (d *directory) watch(ctx context.Context, c cache.Cache) error {
	informer, err := c.GetInformer(ctx, &corev1.ConfigMap{}, cache.BlockUntilSynced(false))
	if err != nil {
		return fmt.Errorf("watch sandboxes: %w", err)
	}
	_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) {
			if cm, ok := o.(*corev1.ConfigMap); ok {
				d.made(cm)
			}
		},
		DeleteFunc: func(o any) {
			if unknown, ok := o.(toolscache.DeletedFinalStateUnknown); ok {
				o = unknown.Obj
			}
			if cm, ok := o.(*corev1.ConfigMap); ok {
				d.deleted(cm)
			}
		},
	})
	return err
}

// made forgets that a sandbox of that name was deleted.
func (d *directory) made(cm *corev1.ConfigMap) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.gone, sandboxName{cm.Namespace, cm.Labels[sandbox.LabelSandbox]})
}

// deleted remembers that a sandbox was deleted.
func (d *directory) deleted(cm *corev1.ConfigMap) {
	if cm.Labels[sandbox.LabelRole] != sandbox.RoleSandbox {
		return
	}
	why := "it was deleted"
	if at, err := time.Parse(time.RFC3339, cm.Data[sandbox.DataExpires]); err == nil && !d.now().Before(at) {
		why = expiredAt(at)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	name := sandboxName{cm.Namespace, cm.Labels[sandbox.LabelSandbox]}
	if _, ok := d.gone[name]; !ok {
		d.order = append(d.order, name)
	}
	d.gone[name] = why
	if len(d.order) > maxGone {
		delete(d.gone, d.order[0])
		d.order = d.order[1:]
	}
}

// whyGone returns why a sandbox no longer exists; false if none of that name is remembered.
func (d *directory) whyGone(namespace, name string) (string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	why, ok := d.gone[sandboxName{namespace, name}]
	return why, ok
}

func expiredAt(at time.Time) string {
	return "it expired at " + at.UTC().Format("2006-01-02 15:04 MST")
}

// entry returns the preview of a host's first label. A label of three names is parsed, whether the sandbox exists or
// not; an alias is looked up among the existing previews.
func (d *directory) entry(ctx context.Context, label string) (Entry, bool, error) {
	if service, name, namespace, ok := preview.ParseLabel(label); ok {
		return Entry{Service: service, ServiceNamespace: namespace, Sandbox: name, Namespace: namespace}, true, nil
	}
	if strings.Contains(label, "--") {
		return Entry{}, false, nil // an alias has none
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := d.now(); d.aliases == nil || now.Sub(d.built) >= aliasAge {
		aliases, err := d.makeAliases(ctx)
		if err != nil {
			return Entry{}, false, err
		}
		d.aliases, d.built = aliases, now
	}
	e, ok := d.aliases[label]
	return e, ok, nil
}

// makeAliases returns all previews whose host is an alias: of every sandbox, with the Services of its namespace and of
// the namespaces that are open to others.
func (d *directory) makeAliases(ctx context.Context) (map[string]Entry, error) {
	var sandboxes corev1.ConfigMapList
	var services corev1.ServiceList
	entrances := &metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NamespaceList"}}
	if err := d.reader.List(ctx, &sandboxes, client.MatchingLabels{sandbox.LabelRole: sandbox.RoleSandbox}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	if err := d.reader.List(ctx, &services, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	if err := d.reader.List(ctx, entrances, client.MatchingLabels{sandbox.LabelEntry: sandbox.EntryAllowed}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	byNamespace := map[string][]string{}
	for i := range services.Items {
		s := &services.Items[i]
		byNamespace[s.Namespace] = append(byNamespace[s.Namespace], s.Name)
	}
	aliases := map[string]Entry{}
	for i := range sandboxes.Items {
		cm := &sandboxes.Items[i]
		name := cm.Labels[sandbox.LabelSandbox]
		add := func(serviceNamespace string) {
			for _, service := range byNamespace[serviceNamespace] {
				e := Entry{Service: service, ServiceNamespace: serviceNamespace, Sandbox: name, Namespace: cm.Namespace}
				if label := preview.Label(e.name(), name, cm.Namespace); !strings.Contains(label, "--") {
					aliases[label] = e
				}
			}
		}
		add(cm.Namespace)
		for j := range entrances.Items {
			if other := entrances.Items[j].Name; other != cm.Namespace {
				add(other)
			}
		}
	}
	return aliases, nil
}

// sandbox returns a sandbox's ConfigMap; nil if there is none.
func (d *directory) sandbox(ctx context.Context, e Entry) (*corev1.ConfigMap, error) {
	var cm corev1.ConfigMap
	err := d.reader.Get(ctx, client.ObjectKey{Namespace: e.Namespace, Name: sandbox.ConfigMapName(e.Sandbox)}, &cm)
	if apierrors.IsNotFound(err) || err == nil && (cm.Labels[sandbox.LabelRole] != sandbox.RoleSandbox || cm.Labels[sandbox.LabelSandbox] != e.Sandbox) {
		return nil, nil
	}
	return &cm, err
}

// shares returns the shares that the sandbox owns, so that those of an earlier sandbox of the same name admit nobody.
func (d *directory) shares(ctx context.Context, cm *corev1.ConfigMap) ([]share.Share, error) {
	var list corev1.ConfigMapList
	if err := d.reader.List(ctx, &list, of(sandbox.RoleShare, cm.Namespace, cm.Labels[sandbox.LabelSandbox])...); err != nil {
		return nil, err
	}
	var shares []share.Share
	for i := range list.Items {
		owned := false
		for _, o := range list.Items[i].OwnerReferences {
			owned = owned || o.UID == cm.UID
		}
		if s, err := share.Parse(list.Items[i].Data); err == nil && owned && list.Items[i].DeletionTimestamp == nil {
			shares = append(shares, s)
		}
	}
	return shares, nil
}

// service returns the entry's Service; nil if there is none, or if its namespace is not open to the sandbox.
func (d *directory) service(ctx context.Context, e Entry) (*corev1.Service, error) {
	if e.ServiceNamespace != e.Namespace {
		ns := namespace()
		err := d.reader.Get(ctx, client.ObjectKey{Name: e.ServiceNamespace}, ns)
		if apierrors.IsNotFound(err) || err == nil && ns.Labels[sandbox.LabelEntry] != sandbox.EntryAllowed {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
	}
	var s corev1.Service
	err := d.reader.Get(ctx, client.ObjectKey{Namespace: e.ServiceNamespace, Name: e.Service}, &s)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return &s, err
}

// forks returns a sandbox's forks and their pods. They are the cache's own: do not change them.
func (d *directory) forks(ctx context.Context, e Entry) ([]appsv1.Deployment, []corev1.Pod, error) {
	var forks appsv1.DeploymentList
	var pods corev1.PodList
	if err := d.reader.List(ctx, &forks, of(sandbox.RoleFork, e.Namespace, e.Sandbox)...); err != nil {
		return nil, nil, err
	}
	err := d.reader.List(ctx, &pods, of(sandbox.RoleFork, e.Namespace, e.Sandbox)...)
	return forks.Items, pods.Items, err
}

func of(role, namespace, name string) []client.ListOption {
	return []client.ListOption{client.InNamespace(namespace), client.MatchingFields{indexSandbox: role + "/" + name}, client.UnsafeDisableDeepCopy}
}
