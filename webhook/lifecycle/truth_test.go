package lifecycle

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// newTestTruth knows one fork of api, of sandbox pr-1, whose pod is ready and gated True, and the given objects.
func newTestTruth(objects ...client.Object) (*truth, *fakeHub, *clocktesting.FakeClock, *events.FakeRecorder) {
	pod := with(forkPod("fork"), func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.ContainersReady, Status: corev1.ConditionTrue},
			{Type: corev1.PodReady, Status: corev1.ConditionTrue}, {Type: sandbox.ConditionRouted, Status: corev1.ConditionTrue}}
	})
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "api-pr-1", UID: "d", Labels: labelled(sandbox.RoleFork, sandbox.LabelSandbox, "pr-1")}}
	d.Spec.Template.Annotations = map[string]string{sandbox.AnnotationPorts: "http=8080"}
	d.Status = appsv1.DeploymentStatus{Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1}
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: sandbox.ConfigMapName("pr-1"), UID: "cm",
		Labels: map[string]string{sandbox.LabelRole: sandbox.RoleSandbox, sandbox.LabelSandbox: "pr-1"}}}
	index := func(o client.Object) []string {
		l := o.GetLabels()
		at := l[sandbox.LabelRole] + "/" + l[sandbox.LabelWorkload]
		return []string{at, at + "/" + l[sandbox.LabelSandbox]}
	}
	sets := &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "ReplicaSet"}}
	c := fake.NewClientBuilder().WithObjects(append(objects, pod, d, cm)...).
		WithIndex(&corev1.Pod{}, "sandbox-baseline", index).WithIndex(&appsv1.Deployment{}, "sandbox-baseline", index).
		WithIndex(sets, "sandbox-baseline", index).
		WithIndex(&appsv1.Deployment{}, "sandbox-name", func(o client.Object) []string { return []string{o.GetLabels()[sandbox.LabelSandbox]} }).Build()
	hub, clock, recorder := &fakeHub{}, clocktesting.NewFakeClock(time.Now()), events.NewFakeRecorder(100)
	hub.view = routes.View{Serving: map[types.UID]route.Version{"fork": version(1)}, Routers: map[types.UID]routes.Router{"a": {Acked: version(1), Connected: true}}}
	t := &truth{hub: hub, cache: c, api: c, client: c, events: recorder, clock: clock, kinds: BuiltInKinds(), staleAfter: time.Hour,
		waits: map[routes.Baseline]map[types.UID]waitingSince{}}
	return t, hub, clock, recorder
}

// published reconciles, and returns the published state of the fork and the Events.
func (t *truth) published(test *testing.T, recorder *events.FakeRecorder) (health.Truth, []string) {
	test.Helper()
	if _, err := t.Reconcile(test.Context(), api); err != nil {
		test.Fatal(err)
	}
	var cm corev1.ConfigMap
	if err := t.client.Get(test.Context(), types.NamespacedName{Namespace: "shop", Name: sandbox.ConfigMapName("pr-1")}, &cm); err != nil {
		test.Fatal(err)
	}
	var all []string
	for len(recorder.Events) > 0 {
		all = append(all, <-recorder.Events)
	}
	return health.ParsePublished(cm.Data[sandbox.DataHealth])["api-pr-1"], all
}

func TestTruth_publishesChangesAlone(t *testing.T) {
	truth, hub, clock, recorder := newTestTruth(baselinePod("a"))
	if got, said := truth.published(t, recorder); got.Code != "" || len(said) > 0 {
		t.Errorf("before routers can have connected: %+v %v", got, said)
	}
	clock.Step(truthGrace)
	first, said := truth.published(t, recorder)
	if first.Code != health.Routed || first.Of != "d" || first.Routing.Routes != 1 || len(said) != 1 || !strings.Contains(said[0], "Normal Routed") {
		t.Fatalf("%+v %v", first, said)
	}
	clock.Step(time.Minute)
	if again, said := truth.published(t, recorder); !again.Since.Equal(first.Since) || len(said) > 0 {
		t.Errorf("nothing changed: %+v %v", again, said)
	}

	// A router lost the control plane for longer than it uses its table: the gate stays True, the truth does not.
	hub.view.Routers = map[types.UID]routes.Router{"a": {Acked: version(1), Lost: clock.Now().Add(-2 * time.Hour)}}
	truth.published(t, recorder)
	clock.Step(truthSettleTime)
	stale, said := truth.published(t, recorder)
	if stale.Code != health.RouterStale || stale.Routing.Routers["a"] != health.RouterTooOld || len(said) != 1 || !strings.Contains(said[0], "Warning RouterStale") {
		t.Errorf("%+v %v", stale, said)
	}
}

func TestTruth_baselineGoneAndUnmarked(t *testing.T) {
	truth, _, clock, recorder := newTestTruth()
	truth.published(t, recorder)
	clock.Step(truthGrace)
	if got, _ := truth.published(t, recorder); got.Code != health.BaselineGone {
		t.Errorf("without a baseline: %+v", got)
	}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api"}}
	if err := truth.client.Create(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if got, _ := truth.published(t, recorder); got.Code != health.BaselineNotRouted {
		t.Errorf("with one that is not routed: %+v", got)
	}
}
