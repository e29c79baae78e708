package wait

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// waitPlan is of one fork.
func waitPlan() *forks.Plan {
	d := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "apps/v1", "kind": "Deployment"}}
	d.SetName("api-pr-42")
	return &forks.Plan{Sandbox: "pr-42", Namespace: "shop", Forks: []forks.Fork{{Deployment: d}}}
}

func TestExplainWait_SaysWhatItWaitedFor(t *testing.T) {
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api-1", UID: "1"}}
	broken := &plan.Problem{What: "broken"}
	for _, tt := range []struct {
		name   string
		status map[string]sandboxes.ForkStatus
		event  bool
		want   []string
	}{
		{"with the latest warning", map[string]sandboxes.ForkStatus{
			"api-pr-42": {Waiting: "its pods start", Pods: []corev1.Pod{pod}},
		}, true, []string{"not routed after 1m0s", "deployment.apps/api-pr-42: its pods start (no room)"}},
		{"without one", map[string]sandboxes.ForkStatus{
			"api-pr-42": {Waiting: "its pods start", Pods: []corev1.Pod{pod}},
		}, false, []string{"deployment.apps/api-pr-42: its pods start"}},
		{"of a fork that was never seen", nil, false, []string{"deployment.apps/api-pr-42: "}},
		{"or the problem", map[string]sandboxes.ForkStatus{"api-pr-42": {Problem: broken}}, false, []string{"broken"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kube := fake.NewClientset()
			if tt.event {
				_ = kube.Tracker().Add(&corev1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "e"}, Message: "no room"})
			}
			err := waiter(kube).ExplainWait(t.Context(), waitPlan(), tt.status, time.Minute)
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
			}
		})
	}
}

func TestWithLog_AddsTheLogThatExplainsIt(t *testing.T) {
	s := sandboxes.ForkStatus{
		Problem: &plan.Problem{What: "crashed"}, Log: &health.LogRef{Pod: "api-1", Container: "app", Previous: true},
	}
	kube := fake.NewClientset()
	if p := waiter(kube).withLog(t.Context(), s); p.What != "crashed" || len(p.Lines) == 0 || len(s.Problem.Lines) > 0 {
		t.Errorf("got %+v", p)
	}
	kube.PrependReactor("get", "pods/log", func(a clienttesting.Action) (bool, runtime.Object, error) {
		options, ok := a.(clienttesting.GenericActionImpl).Value.(*corev1.PodLogOptions)
		if !ok || options.Container != "app" || !options.Previous {
			t.Errorf("reads the log of %+v", options)
		}
		return true, nil, io.ErrUnexpectedEOF
	})
	if p := waiter(kube).withLog(t.Context(), s); p != s.Problem {
		t.Errorf("without the log: got %+v", p)
	}
}

// What the control plane says of a fork may pass, and what lasts is told.
func TestWaitForks_ReportsAPassingProblemOnceItHasLasted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kube := fake.NewClientset()
		d := fork()
		d.Status.ObservedGeneration = 1
		var all []*watch.RaceFreeFakeWatcher
		kube.PrependWatchReactor("*", func(a clienttesting.Action) (bool, watch.Interface, error) {
			w := watch.NewRaceFreeFake()
			switch a.GetResource().Resource {
			case "deployments":
				d.Status.Conditions = failing()
				w.Add(d)
			case "configmaps":
				return true, nil, apierrors.NewForbidden(corev1.Resource("configmaps"), "", errors.New("no"))
			}
			all = append(all, w)
			return true, w, nil
		})
		began := time.Now()
		_, err := waiter(kube).WaitForks(t.Context(), "pr-42", []Target{{Name: "api-pr-42", Generation: 1}}, nil)
		for _, w := range all {
			w.Stop()
		}
		synctest.Wait()
		var p *plan.Problem
		if took := time.Since(began); !errors.As(err, &p) || took != settle {
			t.Errorf("got %v after %s, want it after %s", err, took, settle)
		}
	})
}

func TestWaitDeleted_EndsOnceAllIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kube := fake.NewClientset(
			fork(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api-1", Labels: labelled(sandbox.RoleFork)}},
		)
		time.AfterFunc(3*time.Second, func() {
			_ = kube.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("pods"), "shop", "api-1")
		})
		time.AfterFunc(5*time.Second, func() {
			_ = kube.AppsV1().Deployments("shop").Delete(t.Context(), "api-pr-42", metav1.DeleteOptions{})
		})
		began := time.Now()
		left, err := waiter(kube).WaitDeleted(t.Context(), []string{"pr-42"})
		if took := time.Since(began); err != nil || len(left) > 0 || took != 5*time.Second {
			t.Errorf("left %q, error %v, after %s", slices.Clone(left), err, took)
		}
	})
}

// failing is what the Deployment controller reports while the webhook is away.
func failing() []appsv1.DeploymentCondition {
	return []appsv1.DeploymentCondition{{
		Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate",
		Message: `Internal error occurred: failed calling webhook "fork.kubectl-sandbox.dev": no endpoints available`,
	}}
}
