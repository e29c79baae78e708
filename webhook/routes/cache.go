package routes

import (
	"context"
	"fmt"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// annotationRevision is the annotation in which the Deployment controller numbers ReplicaSets. After a rollback, a
// ReplicaSet gets a new, higher number.
const annotationRevision = health.AnnotationRevision

// Field indices of the caches of CacheOptions. Each is used within a namespace.
const (
	// indexBaseline finds Deployments, ReplicaSets and pods by "ROLE/WORKLOAD" and by "ROLE/WORKLOAD/SANDBOX", and pods of
	// baselines by their role alone as well.
	indexBaseline = "sandbox-baseline"
	// indexSandbox finds forks' Deployments by the name of their sandbox.
	indexSandbox = "sandbox-name"
)

// CacheOptions returns which objects the packages routes and lifecycle cache, and which of their fields. The caches
// hold thousands of forks and tens of thousands of pods.
func CacheOptions() map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{
		&appsv1.Deployment{}: {Label: roles(sandbox.RoleFork), Transform: transform(stripDeployment)},
		replicaSet():         {Label: roles(sandbox.RoleFork), Transform: transform(stripReplicaSet)},
		&corev1.Pod{}:        {Label: roles(sandbox.RoleFork, sandbox.RoleBaseline), Transform: transform(stripPod)},
		&corev1.ConfigMap{}:  {Label: roles(sandbox.RoleSandbox, sandbox.RoleRun), Transform: transform(stripConfigMap)},
	}
}

// Index starts the watches of this package in every replica, so that a new holder of the lease has warm caches. It adds
// the indices of this package and lifecycle. Call it once, before the cache starts.
func Index(ctx context.Context, c cache.Cache) error {
	for _, object := range []client.Object{&coordinationv1.Lease{}, &corev1.ConfigMap{}} {
		if _, err := c.GetInformer(ctx, object, cache.BlockUntilSynced(false)); err != nil {
			return fmt.Errorf("watch %T: %w", object, err)
		}
	}
	for _, object := range []client.Object{&appsv1.Deployment{}, replicaSet(), &corev1.Pod{}} {
		if err := c.IndexField(ctx, object, indexBaseline, byBaseline); err != nil {
			return fmt.Errorf("index %T by baseline: %w", object, err)
		}
	}
	return c.IndexField(ctx, &appsv1.Deployment{}, indexSandbox, func(o client.Object) []string {
		return []string{o.GetLabels()[sandbox.LabelSandbox]}
	})
}

// byBaseline returns the values of indexBaseline.
func byBaseline(o client.Object) []string {
	l := o.GetLabels()
	role := l[sandbox.LabelRole]
	at := role + "/" + l[sandbox.LabelWorkload]
	switch {
	case role == sandbox.RoleBaseline:
		return []string{role, at}
	case l[sandbox.LabelSandbox] == "":
		return []string{at}
	}
	return []string{at, at + "/" + l[sandbox.LabelSandbox]}
}

func roles(role ...string) labels.Selector {
	r, err := labels.NewRequirement(sandbox.LabelRole, selection.In, role)
	if err != nil {
		panic(err) // only if the constants are invalid
	}
	return labels.NewSelector().Add(*r)
}

// replicaSet returns an empty ReplicaSet of which only metadata is watched.
func replicaSet() *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "ReplicaSet"}}
}

func replicaSetList() *metav1.PartialObjectMetadataList {
	return &metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "ReplicaSetList"}}
}

// A state reads forks. A later read never returns older objects than an earlier one.
type state interface {
	// Forks returns a baseline's forks by sandbox: all of them, or only that of sandboxName.
	Forks(ctx context.Context, b Baseline, sandboxName string) (map[string]*Fork, error)
	// Neighbours returns the other routed workloads that share a Service with b.
	Neighbours(ctx context.Context, b Baseline) (neighbours, error)
}

// all selects the forks of every sandbox.
const all = ""

// cacheState is the state in the informers' caches.
type cacheState struct{ reader client.Reader }

// Forks lists by index, so its cost depends on the forks it returns. The objects are the cache's own: do not change
// them.
func (s cacheState) Forks(ctx context.Context, b Baseline, sandboxName string) (map[string]*Fork, error) {
	opts := inBaseline(b, sandbox.RoleFork, sandboxName)
	var deployments appsv1.DeploymentList
	if err := s.reader.List(ctx, &deployments, opts...); err != nil || len(deployments.Items) == 0 {
		return nil, err
	}
	// A fork's Deployment selects by exactly {sandbox, workload, role}. So within a baseline the sandbox identifies a
	// pod's fork, and each sandbox has one Deployment. If users create two that share their pods, the older one counts.
	forks := make(map[string]*Fork, len(deployments.Items))
	for i := range deployments.Items {
		d := &deployments.Items[i]
		name := d.Labels[sandbox.LabelSandbox]
		if name == "" {
			continue // not created by us
		}
		if f := forks[name]; f == nil || d.CreationTimestamp.Before(&f.Deployment.CreationTimestamp) {
			forks[name] = &Fork{Deployment: d, Revisions: map[types.UID]int64{}}
		}
	}
	replicaSets := replicaSetList()
	if err := s.reader.List(ctx, replicaSets, opts...); err != nil {
		return nil, err
	}
	for i := range replicaSets.Items {
		rs := &replicaSets.Items[i]
		r, err := strconv.ParseInt(rs.Annotations[annotationRevision], 10, 64)
		if f := forks[rs.Labels[sandbox.LabelSandbox]]; f != nil && err == nil {
			f.Revisions[rs.UID] = r
		}
	}
	var pods corev1.PodList
	if err := s.reader.List(ctx, &pods, opts...); err != nil {
		return nil, err
	}
	for i := range pods.Items {
		if f := forks[pods.Items[i].Labels[sandbox.LabelSandbox]]; f != nil {
			f.Pods = append(f.Pods, &pods.Items[i])
		}
	}
	return forks, nil
}

// Pods lists a baseline's own pods (role sandbox.RoleBaseline) or those of its forks (sandbox.RoleFork) from a cache
// with CacheOptions and Index. They are the cache's own: do not change them.
func Pods(ctx context.Context, c client.Reader, b Baseline, role string) ([]corev1.Pod, error) {
	var pods corev1.PodList
	err := c.List(ctx, &pods, inBaseline(b, role, all)...)
	return pods.Items, err
}

// ForksOf returns a baseline's forks by sandbox. The objects are the cache's own: do not change them.
func ForksOf(ctx context.Context, c client.Reader, b Baseline) (map[string]*Fork, error) {
	return cacheState{c}.Forks(ctx, b, all)
}

// Deployments lists the forks of a sandbox from a cache with CacheOptions and Index. They are the cache's own: do not
// change them.
func Deployments(ctx context.Context, c client.Reader, namespace, sandboxName string) ([]appsv1.Deployment, error) {
	var forks appsv1.DeploymentList
	err := c.List(ctx, &forks, client.InNamespace(namespace), client.MatchingFields{indexSandbox: sandboxName}, client.UnsafeDisableDeepCopy)
	return forks.Items, err
}

// Forks lists the forks of a baseline from a cache with CacheOptions and Index. They are the cache's own: do not change
// them.
func Forks(ctx context.Context, c client.Reader, b Baseline) ([]appsv1.Deployment, error) {
	var forks appsv1.DeploymentList
	err := c.List(ctx, &forks, inBaseline(b, sandbox.RoleFork, all)...)
	return forks.Items, err
}

// ForkedIn returns the baselines of a namespace that have forks, from a cache with CacheOptions and Index.
func ForkedIn(ctx context.Context, c client.Reader, namespace string) ([]Baseline, error) {
	var forks appsv1.DeploymentList
	if err := c.List(ctx, &forks, client.InNamespace(namespace), client.MatchingLabels{sandbox.LabelRole: sandbox.RoleFork}, client.UnsafeDisableDeepCopy); err != nil {
		return nil, err
	}
	seen := map[Baseline]bool{}
	var all []Baseline
	for i := range forks.Items {
		if b, _ := BaselineOf(&forks.Items[i]); !seen[b] {
			seen[b] = true
			all = append(all, b)
		}
	}
	return all, nil
}

func inBaseline(b Baseline, role, sandboxName string) []client.ListOption {
	at := role + "/" + b.Workload
	if sandboxName != all {
		at += "/" + sandboxName
	}
	return []client.ListOption{client.InNamespace(b.Namespace), client.MatchingFields{indexBaseline: at}, client.UnsafeDisableDeepCopy}
}

// BaselineOf returns the baseline of a Deployment, ReplicaSet or pod of CacheOptions.
func BaselineOf(o client.Object) (b Baseline, role string) {
	l := o.GetLabels()
	return Baseline{Namespace: o.GetNamespace(), Workload: l[sandbox.LabelWorkload]}, l[sandbox.LabelRole]
}

func transform[T any](strip func(T) T) func(any) (any, error) {
	return func(o any) (any, error) {
		if t, ok := o.(T); ok {
			return strip(t), nil
		}
		return o, nil // a tombstone
	}
}

// stripMeta keeps an object's identity, our labels and the named annotations.
func stripMeta(m *metav1.ObjectMeta, annotations ...string) metav1.ObjectMeta {
	kept := metav1.ObjectMeta{
		Name: m.Name, Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion, Generation: m.Generation,
		CreationTimestamp: m.CreationTimestamp, DeletionTimestamp: m.DeletionTimestamp,
		Labels:      subset(m.Labels, sandbox.LabelRole, sandbox.LabelSandbox, sandbox.LabelWorkload, sandbox.LabelRun),
		Annotations: subset(m.Annotations, annotations...),
	}
	for _, o := range m.OwnerReferences {
		kept.OwnerReferences = append(kept.OwnerReferences, metav1.OwnerReference{
			APIVersion: o.APIVersion, Kind: o.Kind, Name: o.Name, UID: o.UID,
		})
	}
	return kept
}

func subset(m map[string]string, keys ...string) map[string]string {
	var kept map[string]string
	for _, k := range keys {
		if v, ok := m[k]; ok {
			if kept == nil {
				kept = make(map[string]string, len(keys))
			}
			kept[k] = v
		}
	}
	return kept
}

func stripDeployment(d *appsv1.Deployment) *appsv1.Deployment {
	kept := &appsv1.Deployment{
		ObjectMeta: stripMeta(&d.ObjectMeta, sandbox.AnnotationKey, sandbox.AnnotationWhenUnready, sandbox.AnnotationRetriedAt,
			sandbox.AnnotationFollow, sandbox.AnnotationFollowed, sandbox.AnnotationBaseline, sandbox.AnnotationAPIVersion,
			sandbox.AnnotationWorkload, sandbox.AnnotationTemplate, annotationRevision),
		Spec:   appsv1.DeploymentSpec{Replicas: d.Spec.Replicas},
		Status: d.Status,
	}
	kept.Spec.Template.Annotations = subset(d.Spec.Template.Annotations, sandbox.AnnotationPorts, sandbox.AnnotationWhenUnready)
	return kept
}

func stripReplicaSet(r *metav1.PartialObjectMetadata) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: r.TypeMeta, ObjectMeta: stripMeta(&r.ObjectMeta, annotationRevision)}
}

func stripConfigMap(c *corev1.ConfigMap) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: stripMeta(&c.ObjectMeta, sandbox.AnnotationFlush, sandbox.AnnotationFlushed, sandbox.AnnotationFlushMissing),
		Data:       subset(c.Data, sandbox.DataExpires, sandbox.DataHealth, sandbox.DataCounts, sandbox.DataCounted, sandbox.DataEnded, sandbox.DataObserve, sandbox.DataObserved),
	}
}

// stripPod keeps the fields of a pod that its health and its route depend on. For a pod of a baseline that includes all
// labels, by which Services select it.
func stripPod(p *corev1.Pod) *corev1.Pod {
	kept := &corev1.Pod{
		ObjectMeta: stripMeta(&p.ObjectMeta, sandbox.AnnotationPorts, sandbox.AnnotationInjected),
		Spec:       health.StripSpec(&p.Spec),
		Status:     health.StripStatus(&p.Status),
	}
	if p.Labels[sandbox.LabelRole] == sandbox.RoleBaseline {
		kept.Labels = p.Labels
	}
	return kept
}
