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

// A rebaser rebases the forks that ask for it whenever their baselines change. It decides by reads from the API server,
// not from a cache. It writes only if a fork is behind, or if its status is new, so its own writes cause no further
// writes.
//
// It watches only metadata of baselines, of the kinds and in the namespaces that have such forks.
type rebaser struct {
	forks   client.Reader // cached
	api     client.Reader // not cached
	client  client.Client
	events  events.EventRecorder
	clock   clock.PassiveClock
	log     logr.Logger
	kinds   []schema.GroupVersionKind // that the webhook may read
	watches *watches

	controller controller.TypedController[baselineKey]
	mu         sync.Mutex
	done       map[types.UID]string // the last reconciled state of each fork, so that scaling costs no reads
}

// A baselineKey identifies a baseline whose changes forks follow.
type baselineKey struct {
	namespace string
	ref       fork.Ref
}

// Start runs the rebaser until ctx ends.
func (f *rebaser) Start(ctx context.Context) error {
	f.watches.ctx = ctx
	return f.controller.Start(ctx)
}

// Reconcile rebases the forks of one baseline.
func (f *rebaser) Reconcile(ctx context.Context, b baselineKey) (reconcile.Result, error) {
	forks, err := f.forksFollowing(ctx, b)
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
		return reconcile.Result{}, nil // an event follows when it is created again
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
		again, err := f.rebase(ctx, d, baseline)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("have fork %s/%s follow %s: %w", d.Namespace, d.Name, b.ref, err))
		case !again:
			f.see(d.UID, state)
		}
	}
	return reconcile.Result{}, errors.Join(errs...)
}

// template returns a string that changes whenever the baseline's pod template does.
func template(baseline *unstructured.Unstructured, d *appsv1.Deployment) string {
	o := fork.Options{TemplatePath: d.Annotations[sandbox.AnnotationTemplate]}
	hash, err := fork.Hash(baseline, o)
	if err != nil {
		return err.Error()
	}
	t, _ := fork.PodTemplate(baseline, o.TemplatePath)
	return hash + fmt.Sprint(t["metadata"])
}

func (f *rebaser) seen(uid types.UID, state string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done[uid] == state
}

func (f *rebaser) see(uid types.UID, state string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.done[uid] = state
}

// forget drops the state of a deleted fork.
func (f *rebaser) forget(uid types.UID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.done, uid)
}

// kind returns the kind of a baseline, if the webhook may read it.
func (f *rebaser) kind(ref fork.Ref) (schema.GroupVersionKind, bool) { return kindIn(f.kinds, ref) }

// kindIn returns the kind of a baseline, if kinds contains it.
func kindIn(kinds []schema.GroupVersionKind, ref fork.Ref) (schema.GroupVersionKind, bool) {
	i := slices.IndexFunc(kinds, func(k schema.GroupVersionKind) bool {
		return strings.ToLower(k.Kind) == ref.Kind && k.GroupVersion().String() == ref.APIVersion
	})
	if i < 0 {
		return schema.GroupVersionKind{}, false
	}
	return kinds[i], true
}

// forksFollowing returns the cached forks that follow a baseline.
func (f *rebaser) forksFollowing(ctx context.Context, b baselineKey) ([]*appsv1.Deployment, error) {
	all, err := routes.Forks(ctx, f.forks, routes.Baseline{Namespace: b.namespace, Workload: sandbox.WorkloadLabel(b.ref.Kind, b.ref.Name)})
	var forks []*appsv1.Deployment
	for i := range all {
		if of, ok := followedBaseline(&all[i]); ok && of == b {
			forks = append(forks, &all[i])
		}
	}
	return forks, err
}

// followedBaseline returns the baseline that a fork follows; false if it follows none.
func followedBaseline(d *appsv1.Deployment) (baselineKey, bool) {
	if d.Annotations[sandbox.AnnotationFollow] != sandbox.FollowOn || d.DeletionTimestamp != nil {
		return baselineKey{}, false
	}
	ref, err := fork.BaselineOf(d)
	return baselineKey{d.Namespace, ref}, err == nil
}

// rebase rebases a fork if it is behind its baseline. It returns true if an event will enqueue the fork again.
func (f *rebaser) rebase(ctx context.Context, cached *appsv1.Deployment, baseline *unstructured.Unstructured) (again bool, err error) {
	d := &unstructured.Unstructured{}
	d.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("Deployment"))
	if err := f.api.Get(ctx, client.ObjectKeyFromObject(cached), d); err != nil {
		return true, client.IgnoreNotFound(err)
	}
	a := d.GetAnnotations()
	if d.GetUID() != cached.UID || d.GetDeletionTimestamp() != nil || a[sandbox.AnnotationFollow] != sandbox.FollowOn {
		return true, nil
	}
	outcome := sandbox.Followed{Generation: baseline.GetGeneration()}
	rebased, err := Rebase(d, baseline)
	switch {
	case err != nil:
		outcome.Conflict = err.Error()
	case rebased == nil:
		outcome.Baseline = a[sandbox.AnnotationBaseline]
	default:
		outcome.Baseline = rebased.GetAnnotations()[sandbox.AnnotationBaseline]
		body, err := json.Marshal(rebased.Object)
		if err != nil {
			return false, err
		}
		target := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: d.GetNamespace(), Name: d.GetName()}}
		err = f.client.Patch(ctx, target, client.RawPatch(types.ApplyPatchType, body), client.FieldOwner(sandbox.FieldManager))
		switch why := refused(err); {
		case why != "":
			outcome.Conflict, outcome.Baseline = why, ""
		case apierrors.IsConflict(err):
			return true, err // the fork changed meanwhile
		case err != nil:
			return true, client.IgnoreNotFound(err)
		default:
			f.log.Info("laid a fork on its baseline", "deployment", d.GetNamespace()+"/"+d.GetName(), "generation", outcome.Generation)
		}
	}
	return false, f.note(ctx, cached, a[sandbox.AnnotationFollowed], outcome)
}

// Rebase returns the fork d as it is to be applied to match its baseline; nil if it is not behind. The result contains
// only the fields that Deployment sets, and a resourceVersion, so that it applies only to the object that was read.
func Rebase(d, baseline *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	if behind, err := fork.Behind(d, baseline); err != nil || !behind {
		return nil, err
	}
	o, err := fork.OptionsOf(d)
	if err != nil {
		return nil, err
	}
	rebased, err := fork.Rebase(baseline, o)
	if err != nil {
		return nil, err
	}
	rebased.SetOwnerReferences(d.GetOwnerReferences())
	rebased.SetUID(d.GetUID())
	rebased.SetResourceVersion(d.GetResourceVersion())
	return rebased, nil
}

// refused returns why the API server rejected an apply, if a retry cannot succeed; otherwise it returns an empty
// string.
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

// noteAll writes the same outcome to all forks.
func (f *rebaser) noteAll(ctx context.Context, forks []*appsv1.Deployment, outcome sandbox.Followed) error {
	var errs []error
	for _, d := range forks {
		errs = append(errs, f.note(ctx, d, d.Annotations[sandbox.AnnotationFollowed], outcome))
	}
	return errors.Join(errs...)
}

// maxConflict bounds the description of conflicts on a fork, in bytes.
const maxConflict = 1000

// note writes an outcome to a fork's annotation, and as an Event, unless it is there already.
func (f *rebaser) note(ctx context.Context, d *appsv1.Deployment, before string, outcome sandbox.Followed) error {
	outcome.Conflict = strings.ToValidUTF8(outcome.Conflict[:min(len(outcome.Conflict), maxConflict)], "")
	was, err := sandbox.ParseFollowed(before)
	known := err == nil
	if outcome.Conflict == "" && known && was.Conflict == "" && was.Baseline == outcome.Baseline {
		return nil // scaling a baseline is no news
	}
	if outcome.Conflict != "" && known && was.Conflict == outcome.Conflict && was.Generation == outcome.Generation {
		return nil
	}
	outcome.Time = f.clock.Now().UTC().Format(time.RFC3339)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid":         d.UID,
		"annotations": map[string]string{sandbox.AnnotationFollowed: sandbox.FormatFollowed(outcome)},
	}})
	if err != nil {
		return err
	}
	target := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: d.Name}}
	err = f.client.Patch(ctx, target, client.RawPatch(types.MergePatchType, patch))
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // deleted, or deleted and recreated
	}
	if err != nil {
		return err
	}
	if outcome.Conflict != "" {
		f.events.Eventf(d, nil, corev1.EventTypeWarning, "FollowConflict", "Follow", "can't be laid on generation %d of its baseline: %s", outcome.Generation, outcome.Conflict)
	} else if known {
		f.events.Eventf(d, nil, corev1.EventTypeNormal, "Followed", "Follow", "laid on generation %d of its baseline", outcome.Generation)
	}
	return nil
}
