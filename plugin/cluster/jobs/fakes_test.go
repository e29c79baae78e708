package jobs

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// newServer returns a fake API server that, as a real one does, gives each object a UID, answers 422 to a JSON patch
// whose test fails, and begins a watch with the existing objects.
func newServer(objects ...runtime.Object) *fake.Clientset {
	kube := fake.NewClientset(objects...)
	stored := clienttesting.ObjectReaction(kube.Tracker())
	kube.PrependReactor("create", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		create := a.(clienttesting.CreateActionImpl) //nolint:forcetypeassert // by its verb
		o, ok := create.Object.(metav1.Object)
		if !ok || o.GetName() == "" {
			return false, nil, nil // a review
		}
		o.SetUID(types.UID("uid-of-" + o.GetName()))
		return stored(create)
	})
	kube.PrependReactor("patch", "configmaps", func(a clienttesting.Action) (bool, runtime.Object, error) {
		patch := a.(clienttesting.PatchActionImpl) //nolint:forcetypeassert // by its verb
		if patch.GetPatchType() != types.JSONPatchType {
			return false, nil, nil
		}
		handled, object, err := stored(patch)
		if err != nil && !apierrors.IsNotFound(err) {
			err = apierrors.NewInvalid(schema.GroupKind{Kind: "ConfigMap"}, patch.GetName(), nil)
		}
		return handled, object, err
	})
	kinds := map[string]schema.GroupVersionKind{
		"jobs": batchv1.SchemeGroupVersion.WithKind("Job"), "pods": corev1.SchemeGroupVersion.WithKind("Pod"),
	}
	kube.PrependWatchReactor("*", func(a clienttesting.Action) (bool, watch.Interface, error) {
		w := watch.NewRaceFreeFake()
		list, err := kube.Tracker().List(a.GetResource(), kinds[a.GetResource().Resource], a.GetNamespace())
		if err != nil {
			return true, nil, err
		}
		err = meta.EachListItem(list, func(o runtime.Object) error { w.Add(o); return nil })
		time.AfterFunc(time.Second, w.Stop) // as an API server ends a watch
		return true, w, err
	})
	return kube
}

// countRequests lets the controller answer each request for counts at once, with what routers observed.
func countRequests(kube *fake.Clientset, observed func() string) {
	kube.PrependReactor("get", "configmaps", func(a clienttesting.Action) (bool, runtime.Object, error) {
		name := a.(clienttesting.GetAction).GetName()                            //nolint:forcetypeassert // by its verb
		object, _ := kube.Tracker().Get(a.GetResource(), a.GetNamespace(), name) // the tracker itself answers what fails
		cm, ok := object.(*corev1.ConfigMap)
		if !ok || cm.Annotations[sandbox.AnnotationFlush] == "" {
			return false, nil, nil
		}
		cm = cm.DeepCopy()
		cm.Annotations[sandbox.AnnotationFlushed] = cm.Annotations[sandbox.AnnotationFlush]
		cm.Data[sandbox.DataObserved] = observed()
		return true, cm, nil
	})
}

// refuse answers calls with an error, as often as times says, or always if that is negative.
func refuse(kube *fake.Clientset, verb, resource string, times int64, err error) {
	refuseAfter(kube, 0, verb, resource, times, err)
}

// refuseAfter is refuse for calls after a time. Reactors can't be added while calls are made.
func refuseAfter(kube *fake.Clientset, after time.Duration, verb, resource string, times int64, err error) {
	from, left := time.Now().Add(after), new(atomic.Int64)
	left.Store(times)
	kube.PrependReactor(verb, resource, func(clienttesting.Action) (bool, runtime.Object, error) {
		if time.Now().Before(from) || times >= 0 && left.Add(-1) < 0 {
			return false, nil, nil
		}
		return true, nil, err
	})
}

func forbidden(resource, name, message string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: resource}, name, errors.New(message))
}

// calls returns "VERB NAME" of the calls that change a resource.
func calls(kube *fake.Clientset, resource string) (all []string) {
	for _, a := range kube.Actions() {
		if a.GetResource().Resource != resource {
			continue
		}
		switch a := a.(type) {
		case clienttesting.CreateActionImpl:
			o, _ := meta.Accessor(a.Object)
			all = append(all, "create "+o.GetName())
		case clienttesting.PatchActionImpl:
			all = append(all, "patch "+a.Name)
		case clienttesting.UpdateActionImpl:
			o, _ := meta.Accessor(a.Object)
			all = append(all, "update "+o.GetName())
		case clienttesting.DeleteActionImpl:
			all = append(all, "delete "+a.Name)
		}
	}
	return all
}

// explains checks that err is a Problem that says so, with a command unless fix is empty.
func explains(t *testing.T, err error, what, fix string) {
	t.Helper()
	var p *plan.Problem
	if !errors.As(err, &p) {
		t.Errorf("got %v, want a problem: %s", err, what)
		return
	}
	if !strings.Contains(p.What, what) || !strings.Contains(plan.Quote(p.Fix), fix) {
		t.Errorf("got %q with %q, want %q with %q", p.What, plan.Quote(p.Fix), what, fix)
	}
}

// role is the metadata of an object of a sandbox or of an experiment.
func role(name, role, of string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: "shop", Name: name, UID: types.UID("uid-of-" + name),
		Labels: map[string]string{sandbox.LabelRole: role, sandbox.LabelSandbox: of},
	}
}

// loseAnswer does the next JSON patch, and answers that the API server is unavailable.
func loseAnswer(kube *fake.Clientset) {
	lost := false
	stored := clienttesting.ObjectReaction(kube.Tracker())
	kube.PrependReactor("patch", "configmaps", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if lost {
			return false, nil, nil
		}
		lost = true
		if _, _, err := stored(a); err != nil {
			return true, nil, err
		}
		return true, nil, apierrors.NewServiceUnavailable("restarting")
	})
}
