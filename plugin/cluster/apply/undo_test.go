package apply

import (
	"context"
	"errors"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A fakeServer stores ConfigMaps and Deployments. Server-side apply of a Deployment stores it, unless apply refuses.
type fakeServer struct {
	kube    *fake.Clientset
	dynamic *dynamicfake.FakeDynamicClient
	apply   func(name string) error // nil: works
}

func newServer(t *testing.T, objects ...runtime.Object) *fakeServer {
	t.Helper()
	s := &fakeServer{kube: fake.NewClientset(objects...), dynamic: dynamicfake.NewSimpleDynamicClient(runtime.NewScheme())}
	s.dynamic.PrependReactor("patch", "deployments", func(a clienttesting.Action) (bool, runtime.Object, error) {
		name := a.(clienttesting.PatchAction).GetName() //nolint:forcetypeassert // by its verb
		if s.apply != nil {
			if err := s.apply(name); err != nil {
				return true, nil, err
			}
		}
		d := ownedDeployment(name)
		if err := s.kube.Tracker().Add(d); err != nil && !apierrors.IsAlreadyExists(err) {
			return true, nil, err
		}
		return true, deployment(name), nil
	})
	return s
}

func (s *fakeServer) writer() *Writer {
	return New(&cluster.Client{Namespace: "shop", Kube: s.kube, Dynamic: s.dynamic})
}

// remains names the objects that are stored.
func (s *fakeServer) remains(t *testing.T) string {
	t.Helper()
	var names []string
	cms, err := s.kube.CoreV1().ConfigMaps("shop").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range cms.Items {
		names = append(names, cms.Items[i].Name)
	}
	ds, err := s.kube.AppsV1().Deployments("shop").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range ds.Items {
		names = append(names, ds.Items[i].Name)
	}
	return strings.Join(names, ",")
}

func configMap() *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "sandbox-pr-42", UID: "1",
			Labels: map[string]string{sandbox.LabelRole: sandbox.RoleSandbox, sandbox.LabelSandbox: "pr-42"},
		},
		Data: map[string]string{sandbox.DataKey: "pr-42"},
	}
}

// ownedDeployment returns a fork's Deployment as it is stored.
func ownedDeployment(name string) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, OwnerReferences: owner(configMap())},
	}
}

func deployment(name string) *unstructured.Unstructured {
	d := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "apps/v1", "kind": "Deployment"}}
	d.SetNamespace("shop")
	d.SetName(name)
	return d
}

// forks returns a plan of two forks, in a new sandbox or, with exists, in one that has a fork of api already.
func forked(exists bool) *forks.Plan {
	p := &forks.Plan{Sandbox: "pr-42", Namespace: "shop", Key: "pr-42", ConfigMap: configMap()}
	p.Forks = []forks.Fork{{Deployment: deployment("api-pr-42")}, {Deployment: deployment("web-pr-42")}}
	if exists {
		p.Exists, p.Forks[0].Replaces = "1", 3
	}
	return p
}

// refuse refuses to apply a Deployment.
func refuse(name string) func(string) error {
	return func(applied string) error {
		if applied != name {
			return nil
		}
		return apierrors.NewForbidden(schema.GroupResource{Group: "apps", Resource: "deployments"}, name, errors.New("no"))
	}
}

func TestApplyFork_WritesAll(t *testing.T) {
	s := newServer(t)
	applied, err := s.writer().ApplyFork(t.Context(), forked(false), false)
	if err != nil || len(applied.Forks) != 2 || s.remains(t) != "sandbox-pr-42,api-pr-42,web-pr-42" {
		t.Errorf("got %v, error %v, stored %s", applied, err, s.remains(t))
	}
}

func TestApplyFork_DeletesWhatItCreatedBeforeAFailure(t *testing.T) {
	for _, tt := range []struct {
		name     string
		plan     *forks.Plan
		objects  []runtime.Object
		apply    func(string) error
		noDelete string // a resource that can't be deleted
		remains  string
		left     string // as the error names it
	}{
		// The garbage collector deletes what a ConfigMap owned.
		{"a new sandbox", forked(false), nil, refuse("web-pr-42"), "", "api-pr-42", ""},
		{"a new sandbox that can't be deleted", forked(false), nil, refuse("web-pr-42"), "configmaps",
			"sandbox-pr-42,api-pr-42", "configmap/sandbox-pr-42"},
		{"a fork in an existing sandbox", func() *forks.Plan { p := forked(true); p.Forks[0].Replaces = 0; return p }(),
			[]runtime.Object{configMap()}, refuse("web-pr-42"), "", "sandbox-pr-42", ""},
		{"a fork that can't be deleted", func() *forks.Plan { p := forked(true); p.Forks[0].Replaces = 0; return p }(),
			[]runtime.Object{configMap()}, refuse("web-pr-42"), "deployments",
			"sandbox-pr-42,api-pr-42", "deployment.apps/api-pr-42"},
		{"an updated fork, which stays", forked(true), []runtime.Object{configMap()}, refuse("web-pr-42"), "",
			"sandbox-pr-42,api-pr-42", "deployment.apps/api-pr-42"},
		{"nothing", forked(true), []runtime.Object{configMap()}, refuse("api-pr-42"), "", "sandbox-pr-42", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, tt.objects...)
			s.apply = tt.apply
			if tt.noDelete != "" {
				s.kube.PrependReactor("delete", tt.noDelete, func(clienttesting.Action) (bool, runtime.Object, error) {
					return true, nil, errors.New("can't be deleted")
				})
			}
			_, err := s.writer().ApplyFork(t.Context(), tt.plan, false)
			if !apierrors.IsForbidden(err) {
				t.Errorf("got %v", err)
			}
			if got := s.remains(t); got != tt.remains {
				t.Errorf("stored %s, want %s", got, tt.remains)
			}
			_, left, named := strings.Cut(err.Error(), "; written before that, and left: ")
			if left != tt.left || named != (tt.left != "") {
				t.Errorf("names %q, want %q: %v", left, tt.left, err)
			}
		})
	}
}

func TestApplyFork_DeletesWhatItCreatedWhenInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := newServer(t)
	s.apply = func(string) error { cancel(); return nil }
	_, err := s.writer().ApplyFork(ctx, forked(false), false)
	if !errors.Is(err, context.Canceled) || s.remains(t) != "api-pr-42" {
		t.Errorf("got %v, stored %s", err, s.remains(t))
	}
}

// Whether a write happened is not known if the API server did not answer.
func TestApplyFork_DeletesWhatItMayHaveCreated(t *testing.T) {
	s := newServer(t, configMap())
	p := forked(true)
	p.Forks[0].Replaces = 0
	s.apply = func(name string) error {
		d := ownedDeployment(name)
		return errors.Join(s.kube.Tracker().Add(d), errors.New("connection lost"))
	}
	_, err := s.writer().ApplyFork(t.Context(), p, false)
	if err == nil || s.remains(t) != "sandbox-pr-42" {
		t.Errorf("got %v, stored %s", err, s.remains(t))
	}
}
