package lifecycle

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// followScene is a baseline and a fork of it that follows it, with a patch of the image of the container called api.
func followScene(t *testing.T) (baseline, d *appsv1.Deployment) {
	t.Helper()
	baseline = &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api", UID: "b", Generation: 3},
		Spec:       appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "api", Image: "api:1"}}}}},
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(baseline)
	if err != nil {
		t.Fatal(err)
	}
	made, err := fork.Deployment(&unstructured.Unstructured{Object: content}, fork.Options{
		Name: "api-pr", Sandbox: "pr", Key: "k", WhenUnready: sandbox.WhenUnreadyError, Replicas: 2, Follow: true, OwnerUID: "owner",
		Patch: []byte(`[{"op":"test","path":"/spec/containers/0/name","value":"api"},{"op":"replace","path":"/spec/containers/0/image","value":"api:pr"}]`),
	})
	if err != nil {
		t.Fatal(err)
	}
	d = &appsv1.Deployment{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(made.Object, d); err != nil {
		t.Fatal(err)
	}
	d.TypeMeta = metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}
	return baseline, d
}

// changeBaseline changes a baseline at the API server.
func changeBaseline(t *testing.T, c client.Client, baseline *appsv1.Deployment, what func(*appsv1.Deployment)) {
	t.Helper()
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(baseline), baseline); err != nil {
		t.Fatal(err)
	}
	what(baseline)
	baseline.Generation++
	if err := c.Update(t.Context(), baseline); err != nil {
		t.Fatal(err)
	}
}

func TestFollower(t *testing.T) {
	baseline, d := followScene(t)
	b, ok := followedBaseline(d)
	if !ok || b.ref.String() != "deployment.apps/api" {
		t.Fatalf("it follows %v, %t", b, ok)
	}
	writes := 0
	c := fake.NewClientBuilder().WithObjects(baseline).WithInterceptorFuncs(interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			writes++
			return c.Patch(ctx, o, p, opts...)
		},
	}).Build()
	body, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Patch(t.Context(), d, client.RawPatch(types.ApplyPatchType, body), client.FieldOwner(sandbox.FieldManager)); err != nil {
		t.Fatal(err)
	}
	recorder := events.NewFakeRecorder(10)
	f := &rebaser{
		api: c, client: c, events: recorder, clock: clocktesting.NewFakeClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), log: logr.Discard(),
		kinds: BuiltInKinds(), done: map[types.UID]string{},
	}
	// look reconciles the fork twice: the second time must write nothing.
	look := func() (*appsv1.Deployment, sandbox.Followed, int) {
		t.Helper()
		first := 0
		for i := range 2 {
			writes = 0
			u := &unstructured.Unstructured{}
			u.SetGroupVersionKind(appsv1.SchemeGroupVersion.WithKind("Deployment"))
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(baseline), u); err != nil {
				t.Fatal(err)
			}
			if again, err := f.rebase(t.Context(), d, u); err != nil || again {
				t.Fatalf("again %t: %v", again, err)
			}
			if i == 0 {
				first = writes
			} else if writes > 0 {
				t.Errorf("a second look writes %d times", writes)
			}
		}
		var now appsv1.Deployment
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(d), &now); err != nil {
			t.Fatal(err)
		}
		said, err := sandbox.ParseFollowed(now.Annotations[sandbox.AnnotationFollowed])
		if err != nil {
			t.Fatal(err)
		}
		return &now, said, first
	}
	change := func(what func(*appsv1.Deployment)) {
		t.Helper()
		changeBaseline(t, c, baseline, what)
	}
	containers := func(d *appsv1.Deployment) string {
		var all []string
		for _, c := range d.Spec.Template.Spec.Containers {
			all = append(all, c.Name+"="+c.Image)
		}
		return strings.Join(all, " ")
	}

	_, said, n := look()
	if n != 1 || said.Generation != 3 || said.Conflict != "" || len(recorder.Events) != 0 {
		t.Errorf("a fork that is not behind: %d writes, %+v, %d events", n, said, len(recorder.Events))
	}
	change(func(d *appsv1.Deployment) { d.Spec.Replicas = new(int32) })
	if _, said, n := look(); n != 0 || said.Generation != 3 {
		t.Errorf("a baseline that scales: %d writes, %+v", n, said)
	}
	change(func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Containers = append([]corev1.Container{{Name: "first", Image: "first:1"}}, d.Spec.Template.Spec.Containers...)
	})
	now, said, n := look()
	if containers(now) != "first=first:1 api=api:pr" || n != 2 || said.Generation != 5 || said.Conflict != "" || *now.Spec.Replicas != 2 || len(now.OwnerReferences) != 1 {
		t.Errorf("a baseline that changed: %s, %d writes, %+v, %+v", containers(now), n, said, now.ObjectMeta)
	}
	if e := <-recorder.Events; e != "Normal Followed laid on generation 5 of its baseline" {
		t.Errorf("event %q", e)
	}
	change(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[1].Name = "web" })
	now, said, n = look()
	if containers(now) != "first=first:1 api=api:pr" || n != 1 || said.Generation != 6 || said.Conflict != "spec.containers[api] is gone" {
		t.Errorf("a conflict: %s, %d writes, %+v", containers(now), n, said)
	}
	if e := <-recorder.Events; e != "Warning FollowConflict can't be laid on generation 6 of its baseline: spec.containers[api] is gone" {
		t.Errorf("event %q", e)
	}
	change(func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[1].Name = "api" })
	if _, said, n := look(); n != 1 || said.Generation != 7 || said.Conflict != "" {
		t.Errorf("a conflict that is over: %d writes, %+v", n, said)
	}
}

func TestFollows(t *testing.T) {
	_, d := followScene(t)
	for name, change := range map[string]func(*appsv1.Deployment){
		"not asked to":  func(d *appsv1.Deployment) { delete(d.Annotations, sandbox.AnnotationFollow) },
		"being deleted": func(d *appsv1.Deployment) { d.DeletionTimestamp = &metav1.Time{} },
		"of nothing":    func(d *appsv1.Deployment) { delete(d.Labels, sandbox.LabelWorkload) },
	} {
		if b, ok := followedBaseline(with(d.DeepCopy(), change)); ok {
			t.Errorf("%s, it follows %v", name, b)
		}
	}
	f := &rebaser{kinds: BuiltInKinds()}
	if _, ok := f.kind(fork.Ref{APIVersion: "argoproj.io/v1alpha1", Kind: "rollout", Name: "web"}); ok {
		t.Error("it may read a kind that nobody named")
	}
	if gvk, ok := f.kind(fork.Ref{APIVersion: "apps/v1", Kind: "statefulset", Name: "db"}); !ok || gvk.Kind != "StatefulSet" {
		t.Errorf("%v, %t", gvk, ok)
	}
}
