package lifecycle

import (
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func failing(message string) *appsv1.Deployment {
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{UID: "d", Namespace: "shop", Name: "api-pr"}, Status: appsv1.DeploymentStatus{
		Conditions: []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: message}},
	}}
}

const away = `Internal error occurred: failed calling webhook "fork.kubectl-sandbox.dev": failed to call webhook: Post ` +
	`"https://sandbox-webhook.kubectl-sandbox.svc:443/mutate-pods?timeout=5s": no endpoints available for service "sandbox-webhook"`

func TestDue(t *testing.T) {
	start := time.Now()
	forks := []appsv1.Deployment{*failing(away)}
	var plan map[types.UID]try
	var tried []string
	for look := range 40 {
		at := time.Duration(look)*retryEvery + time.Duration(look%2)*time.Millisecond // a ticker is not exact
		var found []*appsv1.Deployment
		if found, plan = due(forks, plan, start.Add(at)); len(found) > 0 {
			tried = append(tried, fmt.Sprint(look*5))
		}
	}
	// At once, then at growing distances: within any 30 s of the first minute there is a try.
	if want := "0 5 15 35 75 135 195"; strings.Join(tried, " ") != want {
		t.Errorf("tried at %v, want %s", tried, want)
	}
	for name, d := range map[string]*appsv1.Deployment{
		"quota":             failing(`pods "api-1" is forbidden: exceeded quota: small`),
		"another's webhook": failing(strings.ReplaceAll(away, "kubectl-sandbox.dev", "istio.io")),
		"deleted":           with(failing(away), func(d *appsv1.Deployment) { d.DeletionTimestamp = ptr.To(metav1.Now()) }),
		"over": with(failing(away), func(d *appsv1.Deployment) {
			d.Status.Conditions[0].Status = corev1.ConditionFalse
		}),
	} {
		if found, plan := due([]appsv1.Deployment{*d}, plan, start.Add(time.Hour)); len(found)+len(plan) != 0 {
			t.Errorf("%s: %v %v", name, found, plan)
		}
	}
}

func TestRetrier(t *testing.T) {
	d := failing(away)
	c := fake.NewClientBuilder().WithObjects(d).Build()
	clock := clocktesting.NewFakeClock(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	r := &retrier{cache: c, client: c, clock: clock}
	if err := r.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got appsv1.Deployment
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(d), &got); err != nil || got.Annotations[sandbox.AnnotationRetriedAt] != "2026-01-02T03:04:05Z" {
		t.Errorf("%v %v", err, got.Annotations)
	}
}

func sandboxMap(name, expires string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "sandbox-" + name, UID: types.UID("uid-" + name), Labels: map[string]string{
			sandbox.LabelSandbox: name, sandbox.LabelRole: sandbox.RoleSandbox,
		}},
		Data: map[string]string{sandbox.DataExpires: expires},
	}
}

func TestExpiry(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name, expires string
		again         time.Duration
		gone          bool
		event         string
	}{
		{"never", "", 0, false, ""},
		{"later", "2026-01-02T13:00:00Z", 50 * time.Minute, false, ""},
		{"soon", "2026-01-02T12:04:00Z", 4 * time.Minute, false,
			"Normal ExpiresSoon sandbox will be deleted at 2026-01-02T12:04:00Z; to keep it: kubectl sandbox extend pr-1 --namespace=shop"},
		{"now", "2026-01-02T12:00:00Z", 0, true, "Normal Expired sandbox expired at 2026-01-02T12:00:00Z and was deleted"},
		{"in another zone", "2026-01-02T13:30:00+02:00", 0, true, "Normal Expired sandbox expired at 2026-01-02T13:30:00+02:00 and was deleted"},
		{"unreadable", "tomorrow", 0, false, "Warning InvalidExpiry data.expires is not a time (RFC 3339): the sandbox stays until it is deleted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cm := sandboxMap("pr-1", tt.expires)
			cm.CreationTimestamp = metav1.NewTime(now.Add(-time.Hour))
			c := fake.NewClientBuilder().WithObjects(cm).Build()
			recorder := events.NewFakeRecorder(10)
			e := &expiry{cache: c, client: c, events: recorder, clock: clocktesting.NewFakeClock(now), warnBefore: 10 * time.Minute, warned: map[types.NamespacedName]string{}}
			req := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(cm)}
			for range 2 { // the second look repeats no event
				r, err := e.Reconcile(t.Context(), req)
				if err != nil {
					t.Fatal(err)
				}
				if r.RequeueAfter != tt.again {
					t.Errorf("again in %v, want %v", r.RequeueAfter, tt.again)
				}
			}
			if err := c.Get(t.Context(), req.NamespacedName, cm); apierrors.IsNotFound(err) != tt.gone {
				t.Errorf("%v, want gone %v", err, tt.gone)
			}
			close(recorder.Events)
			var got []string
			for s := range recorder.Events {
				got = append(got, s)
			}
			if strings.Join(got, "|") != tt.event {
				t.Errorf("events %q, want %q", got, tt.event)
			}
		})
	}
}

func TestExpiry_WarnsInTheLastQuarterOfAShortLife(t *testing.T) {
	made := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	cm := sandboxMap("pr-1", "2026-01-02T12:08:00Z")
	cm.CreationTimestamp = metav1.NewTime(made)
	c := fake.NewClientBuilder().WithObjects(cm).Build()
	clock, recorder := clocktesting.NewFakeClock(made), events.NewFakeRecorder(10)
	e := &expiry{cache: c, client: c, events: recorder, clock: clock, warnBefore: 10 * time.Minute, warned: map[types.NamespacedName]string{}}
	for _, again := range []time.Duration{6 * time.Minute, 2 * time.Minute} {
		r, err := e.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(cm)})
		if err != nil || r.RequeueAfter != again {
			t.Errorf("again in %v (%v), want %v", r.RequeueAfter, err, again)
		}
		clock.Step(r.RequeueAfter)
	}
	if n := len(recorder.Events); n != 1 {
		t.Errorf("%d events, want one", n)
	}
}

func TestExpiry_DeletesExperimentsWithoutAWarning(t *testing.T) {
	made := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	run := sandboxMap("", "2026-01-02T13:00:00Z")
	run.Name, run.CreationTimestamp = "sandbox-run.r1", metav1.NewTime(made)
	run.Labels = map[string]string{sandbox.LabelRole: sandbox.RoleRun, sandbox.LabelRun: "r1"}
	other := run.DeepCopy()
	other.Name = "somebody-elses"
	c := fake.NewClientBuilder().WithObjects(run, other).Build()
	clock, recorder := clocktesting.NewFakeClock(made), events.NewFakeRecorder(10)
	e := &expiry{cache: c, client: c, events: recorder, clock: clock, warnBefore: 10 * time.Minute, warned: map[types.NamespacedName]string{}}
	reconciled := func(cm *corev1.ConfigMap) reconcile.Result {
		r, err := e.Reconcile(t.Context(), reconcile.Request{NamespacedName: client.ObjectKeyFromObject(cm)})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := reconciled(run); r.RequeueAfter != time.Hour {
		t.Errorf("again in %v, want an hour", r.RequeueAfter)
	}
	clock.Step(time.Hour)
	reconciled(run)
	reconciled(other)
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(run), run); !apierrors.IsNotFound(err) {
		t.Errorf("got %v, want the experiment gone", err)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(other), other); err != nil {
		t.Errorf("what is not called as an experiment went with it: %v", err)
	}
	if got, want := <-recorder.Events, "Normal Expired experiment expired at 2026-01-02T13:00:00Z and was deleted"; got != want || len(recorder.Events) > 0 {
		t.Errorf("event %q and %d more, want %q", got, len(recorder.Events), want)
	}
}

func TestAdopter(t *testing.T) {
	fork := func(name, of string, owners ...metav1.OwnerReference) *appsv1.Deployment {
		return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, OwnerReferences: owners,
			Labels: map[string]string{sandbox.LabelSandbox: of, sandbox.LabelRole: sandbox.RoleFork}}}
	}
	other := metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "other", UID: "other"}
	c := fake.NewClientBuilder().WithObjects(
		sandboxMap("pr-1", ""), fork("orphan", "pr-1"), fork("owned", "pr-1", other), fork("stranger", "pr-2"),
	).WithIndex(&appsv1.Deployment{}, "sandbox-name", func(o client.Object) []string {
		return []string{o.GetLabels()[sandbox.LabelSandbox]}
	}).Build()
	policy := &networkingv1.NetworkPolicy{ObjectMeta: fork("orphan", "pr-1").ObjectMeta}
	if err := c.Create(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	if got := adopts(t.Context(), policy); len(got) != 1 || got[0].Name != "sandbox-pr-1" {
		t.Errorf("a policy without an owner asks for %v", got)
	}
	a := &adopter{cache: c, client: c}
	for _, req := range append(adopts(t.Context(), fork("orphan", "pr-1")), adopts(t.Context(), fork("stranger", "pr-2"))...) {
		if _, err := a.Reconcile(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(policy), policy); err != nil || len(policy.OwnerReferences) != 1 || policy.OwnerReferences[0].UID != "uid-pr-1" {
		t.Errorf("the policy is owned by %+v (%v)", policy.OwnerReferences, err)
	}
	for name, want := range map[string]types.UID{"orphan": "uid-pr-1", "owned": "other", "stranger": ""} {
		var d appsv1.Deployment
		if err := c.Get(t.Context(), types.NamespacedName{Namespace: "shop", Name: name}, &d); err != nil {
			t.Fatal(err)
		}
		var got types.UID
		for _, o := range d.OwnerReferences {
			got += o.UID
			if o.BlockOwnerDeletion != nil || o.Controller != nil {
				t.Errorf("%s: %+v", name, o)
			}
		}
		if got != want {
			t.Errorf("%s is owned by %q, want %q", name, got, want)
		}
	}
}
