package routing

import (
	"errors"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	authv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"
	discoveryfake "k8s.io/client-go/discovery/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// configuration is the chart's, whose webhook for baselines is called for namespaces with the label.
func configuration(annotations map[string]string, label string) *admissionv1.MutatingWebhookConfiguration {
	return &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: cluster.WebhookConfiguration, Annotations: annotations},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name:              baselineWebhook,
			ClientConfig:      admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Namespace: "control"}},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"sandboxes": label}},
		}},
	}
}

func TestRoutable(t *testing.T) {
	shop := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"sandboxes": "yes"}}}
	for _, tt := range []struct {
		name    string
		objects []runtime.Object
		version string
		refuse  string // a resource that may not be read
		problem string
	}{
		{"yes", []runtime.Object{shop, configuration(nil, "yes")}, "v1.34.1", "", ""},
		{"not in this namespace", []runtime.Object{shop, configuration(nil, "no")}, "v1.34.1", "",
			"admission leaves namespace shop alone"},
		{"not in this version", []runtime.Object{shop, configuration(nil, "yes")}, "v1.32.0", "", "runs Kubernetes v1.32.0"},
		{"not without the webhook", []runtime.Object{shop}, "v1.34.1", "", "webhook"},
		{"as far as the caller may know", []runtime.Object{shop}, "v1.34.1", "mutatingwebhookconfigurations", ""},
		{"not in a namespace that does not exist", nil, "v1.34.1", "", `namespace "shop" does not exist`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kube := fake.NewClientset(tt.objects...)
			kube.Discovery().(*discoveryfake.FakeDiscovery).FakedServerVersion = &version.Info{GitVersion: tt.version}
			if tt.refuse != "" {
				kube.PrependReactor("get", tt.refuse, func(clienttesting.Action) (bool, runtime.Object, error) {
					return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: tt.refuse}, "", errors.New("no"))
				})
			}
			r, err := New(t.Context(), &cluster.Client{Namespace: "shop", Kube: kube}, nil)
			if err == nil {
				err = r.Routable()
			}
			var p *plan.Problem
			switch {
			case tt.problem == "" && err == nil:
			case tt.problem == "" || !errors.As(err, &p) || !strings.Contains(p.What, tt.problem):
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestMayRoute(t *testing.T) {
	for _, tt := range []struct {
		name             string
		guarded, allowed bool
		fails            bool
	}{
		{"where no right is needed", false, false, false},
		{"by whoever has the right", true, true, false},
		{"by nobody else", true, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			annotations := map[string]string{}
			if tt.guarded {
				annotations[sandbox.AnnotationGuarded] = "true"
			}
			shop := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
			kube := fake.NewClientset(shop, configuration(annotations, "yes"))
			kube.PrependReactor("create", "selfsubjectaccessreviews", func(clienttesting.Action) (bool, runtime.Object, error) {
				return true, &authv1.SelfSubjectAccessReview{Status: authv1.SubjectAccessReviewStatus{Allowed: tt.allowed}}, nil
			})
			r, err := New(t.Context(), &cluster.Client{Namespace: "shop", Kube: kube}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := r.MayRoute(t.Context()); (err != nil) != tt.fails {
				t.Errorf("got %v", err)
			}
		})
	}
}
