package lifecycle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A follower lays the forks that ask for it on their baselines, whenever these change. It decides by what the API server says now, not
// by a cache, and writes only where a fork is behind, or where what it has to say of one is new: nothing that it writes makes
// it write again.
//
// Of the baselines it watches the metadata, of the kinds and in the namespaces that there are forks to follow in.
type follower struct {
	forks   client.Reader // cached
	api     client.Reader // not cached
	client  client.Client
	events  events.EventRecorder
	clock   clock.PassiveClock
	log     logr.Logger
	kinds   []schema.GroupVersionKind // that may be read
	watches *watches

	controller controller.TypedController[followed]
	mu         sync.Mutex
	done       map[types.UID]string // what each fork was found in, so that a baseline that scales costs nothing more
}

// A followed is a baseline that forks follow.
type followed struct {
	namespace string
	ref       fork.Ref
}

// Start runs the follower until ctx ends.
func (f *follower) Start(ctx context.Context) error {
	f.watches.ctx = ctx
	return f.controller.Start(ctx)
}

// Reconcile looks at one baseline.
func (f *follower) Reconcile(ctx context.Context, b followed) (reconcile.Result, error) {
	forks, err := f.following(ctx, b)
	if err != nil {
		return reconcile.Result{}, err
	}
	gvk, known := f.kind(b.ref)
	if len(forks) == 0 {
		if known {
			f.watches.release(gvk, b)
		}
		return reconcile.Result{}, nil
	}
	if !known {
		why := fmt.Sprintf("the webhook may not read %s: have the chart's value follow.kinds name them", b.ref)
		return reconcile.Result{}, f.noteAll(ctx, forks, sandbox.Followed{Conflict: why})
	}
	if err := f.watches.watch(ctx, gvk, b); err != nil {
		return reconcile.Result{}, err
	}
	baseline := &unstructured.Unstructured{}
	baseline.SetGroupVersionKind(gvk)
	err = f.api.Get(ctx, types.NamespacedName{Namespace: b.namespace, Name: b.ref.Name}, baseline)
	switch {
	case apierrors.IsNotFound(err):
		return reconcile.Result{}, nil // its return is an event
	case apierrors.IsForbidden(err):
		return reconcile.Result{}, f.noteAll(ctx, forks, sandbox.Followed{Conflict: "the webhook may not read it: " + err.Error()})
	case err != nil:
		return reconcile.Result{}, fmt.Errorf("read %s of namespace %s: %w", b.ref, b.namespace, err)
	}
	var errs []error
	for _, d := range forks {
		state := fmt.Sprint(baseline.GetUID(), template(baseline, d), d.Generation, d.Annotations[sandbox.AnnotationBaseline])
		if f.seen(d.UID, state) {
			continue
		}
		again, err := f.follow(ctx, d, baseline)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("have fork %s/%s follow %s: %w", d.Namespace, d.Name, b.ref, err))
		case !again:
			f.see(d.UID, state)
		}
	}
	return reconcile.Result{}, errors.Join(errs...)
}

// template returns what tells the states of a baseline's pod template apart.
func template(baseline *unstructured.Unstructured, d *appsv1.Deployment) string {
	o := fork.Options{TemplatePath: d.Annotations[sandbox.AnnotationTemplate]}
	hash, err := fork.Hash(baseline, o)
	if err != nil {
		return err.Error()
	}
	t, _ := fork.PodTemplate(baseline, o.TemplatePath)
	return hash + fmt.Sprint(t["metadata"])
}

func (f *follower) seen(uid types.UID, state string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done[uid] == state
}

func (f *follower) see(uid types.UID, state string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done[uid] = state
}

// forget drops what is known of a fork that is gone.
func (f *follower) forget(uid types.UID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.done, uid)
}

// kind returns the kind of a baseline, where it may be read.
func (f *follower) kind(ref fork.Ref) (schema.GroupVersionKind, bool) { return kindIn(f.kinds, ref) }

// kindIn returns the kind of a baseline, where it is one of those that may be read.
func kindIn(kinds []schema.GroupVersionKind, ref fork.Ref) (schema.GroupVersionKind, bool) {
	i := slices.IndexFunc(kinds, func(k schema.GroupVersionKind) bool {
		return strings.ToLower(k.Kind) == ref.Kind && k.GroupVersion().String() == ref.APIVersion
	})
	if i < 0 {
		return schema.GroupVersionKind{}, false
	}
	return kinds[i], true
}

// following returns the forks that follow a baseline, as the cache has them.
func (f *follower) following(ctx context.Context, b followed) ([]*appsv1.Deployment, error) {
	all, err := routes.Forks(ctx, f.forks, routes.Baseline{Namespace: b.namespace, Workload: sandbox.WorkloadLabel(b.ref.Kind, b.ref.Name)})
	var forks []*appsv1.Deployment
	for i := range all {
		if of, ok := follows(&all[i]); ok && of == b {
			forks = append(forks, &all[i])
		}
	}
	return forks, err
}

// follows returns what a fork follows, if it does.
func follows(d *appsv1.Deployment) (followed, bool) {
	if d.Annotations[sandbox.AnnotationFollow] != sandbox.FollowOn || d.DeletionTimestamp != nil {
		return followed{}, false
	}
	ref, err := fork.BaselineOf(d)
	return followed{d.Namespace, ref}, err == nil
}

// follow lays a fork on its baseline, where it is behind. It returns true where the fork is about to be looked at again.
func (f *follower) follow(ctx context.Context, cached *appsv1.Deployment, baseline *unstructured.Unstructured) (again bool, err error) {
	d := &unstructured.Unstructured{}
	d.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("Deployment"))
	if err := f.api.Get(ctx, client.ObjectKeyFromObject(cached), d); err != nil {
		return true, client.IgnoreNotFound(err)
	}
	a := d.GetAnnotations()
	if d.GetUID() != cached.UID || d.GetDeletionTimestamp() != nil || a[sandbox.AnnotationFollow] != sandbox.FollowOn {
		return true, nil
	}
	said := sandbox.Followed{Generation: baseline.GetGeneration()}
	laid, err := Lay(d, baseline)
	switch {
	case err != nil:
		said.Conflict = err.Error()
	case laid == nil:
		said.Baseline = a[sandbox.AnnotationBaseline]
	default:
		said.Baseline = laid.GetAnnotations()[sandbox.AnnotationBaseline]
		body, err := json.Marshal(laid.Object)
		if err != nil {
			return false, err
		}
		target := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: d.GetNamespace(), Name: d.GetName()}}
		err = f.client.Patch(ctx, target, client.RawPatch(types.ApplyPatchType, body), client.FieldOwner(sandbox.FieldManager))
		switch why := refused(err); {
		case why != "":
			said.Conflict, said.Baseline = why, ""
		case apierrors.IsConflict(err):
			return true, err // it changed just now
		case err != nil:
			return true, client.IgnoreNotFound(err)
		default:
			f.log.Info("laid a fork on its baseline", "deployment", d.GetNamespace()+"/"+d.GetName(), "generation", said.Generation)
		}
	}
	return false, f.note(ctx, cached, a[sandbox.AnnotationFollowed], said)
}

// Lay returns the fork d as it is to be applied to follow its baseline; nil where it is not behind. Only what it was made from is applied,
// and only to the object as it was read.
func Lay(d, baseline *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	if behind, err := fork.Behind(d, baseline); err != nil || !behind {
		return nil, err
	}
	o, err := fork.OptionsOf(d)
	if err != nil {
		return nil, err
	}
	laid, err := fork.Lay(baseline, o)
	if err != nil {
		return nil, err
	}
	laid.SetOwnerReferences(d.GetOwnerReferences())
	laid.SetUID(d.GetUID())
	laid.SetResourceVersion(d.GetResourceVersion())
	return laid, nil
}

// refused says why the API server does not take what was applied, if trying again will not help.
func refused(err error) string {
	var status apierrors.APIStatus
	if err == nil || !errors.As(err, &status) {
		return ""
	}
	if apierrors.IsInvalid(err) || apierrors.IsForbidden(err) {
		return err.Error()
	}
	details := status.Status().Details
	if !apierrors.IsConflict(err) || details == nil {
		return ""
	}
	var fields []string
	for _, c := range details.Causes {
		if c.Type == metav1.CauseTypeFieldManagerConflict {
			fields = append(fields, c.Field)
		}
	}
	if len(fields) == 0 {
		return ""
	}
	return "fields of the fork were changed by others: " + strings.Join(fields, ", ")
}

// noteAll notes the same of all forks.
func (f *follower) noteAll(ctx context.Context, forks []*appsv1.Deployment, said sandbox.Followed) error {
	var errs []error
	for _, d := range forks {
		errs = append(errs, f.note(ctx, d, d.Annotations[sandbox.AnnotationFollowed], said))
	}
	return errors.Join(errs...)
}

// maxConflict bounds how much of what conflicts is noted on a fork, in bytes.
const maxConflict = 1000

// note writes what there is to say of a fork on it, and as an Event, unless that is there already.
func (f *follower) note(ctx context.Context, d *appsv1.Deployment, before string, said sandbox.Followed) error {
	said.Conflict = strings.ToValidUTF8(said.Conflict[:min(len(said.Conflict), maxConflict)], "")
	was, err := sandbox.ParseFollowed(before)
	known := err == nil
	if said.Conflict == "" && known && was.Conflict == "" && was.Baseline == said.Baseline {
		return nil // a baseline that only scales makes no news
	}
	if said.Conflict != "" && known && was.Conflict == said.Conflict && was.Generation == said.Generation {
		return nil
	}
	said.Time = f.clock.Now().UTC().Format(time.RFC3339)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":         d.UID,
		"annotations": map[string]string{sandbox.AnnotationFollowed: sandbox.FormatFollowed(said)},
	}})
	if err != nil {
		return err
	}
	target := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: d.Name}}
	err = f.client.Patch(ctx, target, client.RawPatch(types.MergePatchType, patch))
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // deleted, or deleted and made anew
	}
	if err != nil {
		return err
	}
	if said.Conflict != "" {
		f.events.Eventf(d, nil, corev1.EventTypeWarning, "FollowConflict", "Follow", "can't be laid on generation %d of its baseline: %s", said.Generation, said.Conflict)
	} else if known {
		f.events.Eventf(d, nil, corev1.EventTypeNormal, "Followed", "Follow", "laid on generation %d of its baseline", said.Generation)
	}
	return nil
}
