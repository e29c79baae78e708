package wait

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func waiter(kube *fake.Clientset) *Waiter { return New(&cluster.Client{Namespace: "shop", Kube: kube}) }

// labelled are the labels of what belongs to the sandbox pr-42.
func labelled(role string) map[string]string {
	return map[string]string{sandbox.LabelSandbox: "pr-42", sandbox.LabelRole: role}
}

// watched answers watches of Deployments with events, and then says nothing more.
func watched(kube *fake.Clientset, events ...watch.Event) {
	kube.PrependWatchReactor("deployments", func(clienttesting.Action) (bool, watch.Interface, error) {
		w := watch.NewFakeWithChanSize(len(events), false)
		for _, e := range events {
			w.Action(e.Type, e.Object)
		}
		return true, w, nil
	})
}

func fork() *appsv1.Deployment {
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "api-pr-42", Generation: 1, Labels: labelled(sandbox.RoleFork),
	}}
}

func TestWaitForks_EndsWhenAForkIsDeleted(t *testing.T) {
	kube := fake.NewClientset()
	watched(kube, watch.Event{Type: watch.Added, Object: fork()}, watch.Event{Type: watch.Deleted, Object: fork()})
	_, err := waiter(kube).WaitForks(t.Context(), "pr-42", []Target{{Name: "api-pr-42", Generation: 1}}, nil)
	var p *plan.Problem
	if !errors.As(err, &p) || !strings.Contains(p.What, "deployment.apps/api-pr-42 was deleted") {
		t.Errorf("got %v", err)
	}
}

func TestWaitForks_EndsWhenItMayNotWatch(t *testing.T) {
	kube := fake.NewClientset()
	kube.PrependWatchReactor("deployments", func(clienttesting.Action) (bool, watch.Interface, error) {
		deployments := schema.GroupResource{Group: "apps", Resource: "deployments"}
		return true, nil, apierrors.NewForbidden(deployments, "", errors.New("no"))
	})
	_, err := waiter(kube).WaitForks(t.Context(), "pr-42", []Target{{Name: "api-pr-42"}}, nil)
	if !apierrors.IsForbidden(err) {
		t.Errorf("got %v", err)
	}
}

// An older generation may be ready, and is not what was written.
func TestWaitForks_SaysNothingOfAnOlderGeneration(t *testing.T) {
	kube := fake.NewClientset()
	watched(kube, watch.Event{Type: watch.Added, Object: fork()})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	statuses, err := waiter(kube).WaitForks(ctx, "pr-42", []Target{{Name: "api-pr-42", Generation: 2}}, nil)
	if len(statuses) > 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, error %v", statuses, err)
	}
}

func TestWaitForks_ReportsWhatItWaitsFor(t *testing.T) {
	kube := fake.NewClientset()
	watched(kube, watch.Event{Type: watch.Added, Object: fork()})
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	targets := []Target{{Name: "api-pr-42", Generation: 1}}
	statuses, _ := waiter(kube).WaitForks(ctx, "pr-42", targets, func(name string, s sandboxes.ForkStatus) {
		if name != "api-pr-42" || s.Ready || s.Waiting == "" {
			t.Errorf("%s: %v", name, s)
		}
		cancel()
	})
	if len(statuses) != 1 {
		t.Errorf("got %v", statuses)
	}
}

func TestWaitDeleted_NamesWhatIsLeft(t *testing.T) {
	pod := func(name, role string) runtime.Object {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: labelled(role)}}
	}
	for _, tt := range []struct {
		name    string
		objects []runtime.Object
		left    []string
	}{
		{"nothing", nil, nil},
		{"pods of checks, which go with their experiment", []runtime.Object{pod("test", sandbox.RoleCheck)}, nil},
		{"pods and forks", []runtime.Object{fork(), pod("api-1", sandbox.RoleFork)},
			[]string{"deployment.apps/api-pr-42", "pod/api-1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kube := fake.NewClientset(tt.objects...)
				kube.PrependWatchReactor("*", func(clienttesting.Action) (bool, watch.Interface, error) {
					w := watch.NewFake()
					time.AfterFunc(time.Second, w.Stop) // as an API server ends a watch
					return true, w, nil
				})
				ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
				defer cancel()
				kube.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
					return ctx.Err() != nil, nil, ctx.Err() // a fake client knows no context
				})
				left, err := waiter(kube).WaitDeleted(ctx, []string{"pr-42"})
				if !slices.Equal(left, tt.left) || (err != nil) != (len(tt.left) > 0) {
					t.Errorf("got %q, error %v", left, err)
				}
			})
		})
	}
}
