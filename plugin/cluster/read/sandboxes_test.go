package read

import (
	"errors"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func labelled(name, of, role string, more ...string) metav1.ObjectMeta {
	all := map[string]string{sandbox.LabelSandbox: of, sandbox.LabelRole: role}
	m := metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: all}
	for _, l := range more {
		m.Labels[l] = "x"
	}
	return m
}

// namespace has the sandboxes a, with a fork and a policy, and b; and of c only a fork is left.
func namespace() *fake.Clientset {
	return fake.NewClientset(
		&corev1.ConfigMap{ObjectMeta: labelled("sandbox-a", "a", sandbox.RoleSandbox, "team")},
		&corev1.ConfigMap{ObjectMeta: labelled("sandbox-b", "b", sandbox.RoleSandbox)},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "another"}},
		&appsv1.Deployment{ObjectMeta: labelled("api-a", "a", sandbox.RoleFork)},
		&appsv1.Deployment{ObjectMeta: labelled("api-c", "c", sandbox.RoleFork)},
		&networkingv1.NetworkPolicy{ObjectMeta: labelled("api-a", "a", sandbox.RoleFork)},
	)
}

func reader(kube *fake.Clientset) *Reader { return New(&cluster.Client{Namespace: "shop", Kube: kube}) }

// forbid refuses to list a resource.
func forbid(kube *fake.Clientset, resource string) {
	kube.PrependReactor("list", resource, func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", errors.New("no"))
	})
}

// describe returns "NAME:FORKS+POLICIES" of each sandbox.
func describe(all []sandboxes.Sandbox) string {
	var out []string
	for i := range all {
		out = append(out, all[i].Name+":"+strings.Repeat("f", len(all[i].Forks))+strings.Repeat("p", len(all[i].Policies)))
	}
	return strings.Join(out, " ")
}

func TestSandboxes(t *testing.T) {
	for selector, want := range map[string]string{"": "a:f b: c:f", "team=x": "a:f", "team=y": ""} {
		all, err := reader(namespace()).Sandboxes(t.Context(), "shop", selector)
		if err != nil || describe(all) != want {
			t.Errorf("%q: got %q, want %q, error %v", selector, describe(all), want, err)
		}
	}
}

func TestSandboxesNamed(t *testing.T) {
	for _, tt := range []struct {
		name     string
		noPolicy bool // the caller may not read policies
		want     string
	}{
		{"with their policies", false, "a:fp c:f"},
		{"without those that the caller may not read", true, "a:f c:f"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kube := namespace()
			if tt.noPolicy {
				forbid(kube, "networkpolicies")
			}
			found, missing, err := reader(kube).SandboxesNamed(t.Context(), []string{"c", "gone", "a", "a"})
			if err != nil || describe(found) != tt.want || !slices.Equal(missing, []string{"gone"}) {
				t.Errorf("found %q, missing %q, error %v", describe(found), missing, err)
			}
		})
	}
}

func TestSandboxes_ThatMayNotBeRead(t *testing.T) {
	kube := namespace()
	forbid(kube, "deployments")
	if _, err := reader(kube).Sandboxes(t.Context(), "shop", ""); !apierrors.IsForbidden(err) {
		t.Errorf("got %v", err)
	}
	if _, _, err := reader(kube).SandboxesNamed(t.Context(), []string{"a"}); !apierrors.IsForbidden(err) {
		t.Errorf("got %v", err)
	}
}

func TestSandboxNames(t *testing.T) {
	names, err := reader(namespace()).SandboxNames(t.Context())
	if slices.Sort(names); err != nil || !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("got %q, error %v", names, err)
	}
}

func TestWithPolicies_AddsWhatOnlyPoliciesAreLeftOf(t *testing.T) {
	all, err := reader(namespace()).WithPolicies(t.Context(), nil)
	if err != nil || describe(all) != "a:p" {
		t.Errorf("got %q, error %v", describe(all), err)
	}
}

func TestStatus_OfASandboxThatDoesNotExist(t *testing.T) {
	_, err := reader(namespace()).Status(t.Context(), "gone")
	var p *plan.Problem
	if !errors.As(err, &p) || !strings.Contains(p.What, `there is no sandbox "gone" in namespace "shop"`) {
		t.Errorf("got %v", err)
	}
}

func TestInventory_DoesNotNeedServices(t *testing.T) {
	kube := fake.NewClientset(&corev1.ConfigMap{ObjectMeta: labelled("sandbox-a", "a", sandbox.RoleSandbox)})
	forbid(kube, "services")
	v, err := reader(kube).Inventory(t.Context(), "shop")
	if err != nil || v.Services != nil || describe(v.Sandboxes()) != "a:" {
		t.Errorf("got %v, error %v", v, err)
	}
	forbid(kube, "pods")
	if _, err := reader(kube).Inventory(t.Context(), "shop"); !apierrors.IsForbidden(err) {
		t.Errorf("got %v", err)
	}
}

// webhooks returns the chart's configuration, which states a lifetime of sandboxes if that is not empty.
func webhooks(ttl string) *admissionv1.MutatingWebhookConfiguration {
	w := &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: cluster.WebhookConfiguration}}
	if ttl != "" {
		w.Annotations = map[string]string{sandbox.AnnotationDefaultTTL: ttl}
	}
	return w
}

func TestDefaultTTL(t *testing.T) {
	for _, tt := range []struct {
		name    string
		objects []runtime.Object
		known   bool
	}{
		{"without the webhook", nil, false},
		{"not stated", []runtime.Object{webhooks("")}, false},
		{"stated", []runtime.Object{webhooks("2h")}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ttl, err := reader(fake.NewClientset(tt.objects...)).DefaultTTL(t.Context())
			if err != nil || (ttl != nil) != tt.known || ttl != nil && ttl.Hours() != 2 {
				t.Errorf("got %v, error %v", ttl, err)
			}
		})
	}
}
