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
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/policies"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func cilium() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "cilium.io", Version: "v2", Resource: "ciliumnetworkpolicies"}
}

// dynamicServer stores objects of the kinds that are read without a type.
func dynamicServer(objects ...runtime.Object) *dynamicfake.FakeDynamicClient {
	return dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		{Group: "apps", Version: "v1", Resource: "deployments"}:                     "DeploymentList",
		{Group: "apps", Version: "v1", Resource: "statefulsets"}:                    "StatefulSetList",
		{Group: "apps", Version: "v1", Resource: "daemonsets"}:                      "DaemonSetList",
		{Group: "apps", Version: "v1", Resource: "replicasets"}:                     "ReplicaSetList",
		{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"}: "HTTPRouteList",
		{Group: monitoring, Version: "v1", Resource: "podmonitors"}:                 "PodMonitorList",
		cilium(): "CiliumNetworkPolicyList",
	}, objects...)
}

func object(apiVersion, kind, name string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": apiVersion, "kind": kind}}
	u.SetNamespace("shop")
	u.SetName(name)
	return u
}

func fullReader(kube *fake.Clientset, dynamic *dynamicfake.FakeDynamicClient) *Reader {
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(appsv1.SchemeGroupVersion.WithKind("Deployment"), meta.RESTScopeNamespace)
	return New(&cluster.Client{
		Namespace: "shop", Kube: kube, Dynamic: dynamic, Mapper: mapper, Discovery: kube.Discovery(),
	})
}

func no(resource string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", errors.New("no"))
}

// refuse answers calls with an error.
func refuse(to *clienttesting.Fake, verb, resource string, err error) {
	to.PrependReactor(verb, resource, func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, err })
}

func TestReadNamespace_RecordsWhatMayNotBeListed(t *testing.T) {
	kube, dynamic := fake.NewClientset(), dynamicServer(object("apps/v1", "Deployment", "api"), object("apps/v1", "StatefulSet", "db"))
	refuse(&dynamic.Fake, "list", "daemonsets", no("daemonsets"))
	refuse(&kube.Fake, "list", "poddisruptionbudgets", no("poddisruptionbudgets"))
	refuse(&kube.Fake, "list", "leases", errors.New("broken")) // they only confirm what is known otherwise
	var into plan.NamespaceObjects
	if err := fullReader(kube, dynamic).readNamespace(t.Context(), &into); err != nil {
		t.Fatal(err)
	}
	if want := []string{"daemonsets.apps", "poddisruptionbudgets.policy"}; !slices.Equal(into.Unread, want) {
		t.Errorf("unread %q, want %q", into.Unread, want)
	}
	if len(into.Workloads) != 2 || into.Workloads[0].Name() != "api" || into.Workloads[1].Name() != "db" {
		t.Errorf("got %v", into.Workloads)
	}
	refuse(&kube.Fake, "list", "horizontalpodautoscalers", errors.New("broken"))
	if err := fullReader(kube, dynamic).readNamespace(t.Context(), &into); err == nil {
		t.Error("a failure counts as nothing to compare with")
	}
}

func policy(namespace, name string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
}

func TestPolicies_OfTheNamespaceAndOthers(t *testing.T) {
	for _, tt := range []struct {
		name      string
		refused   bool // to list those of all namespaces
		cut       bool // there are more
		elsewhere int
	}{
		{"both", false, false, 1}, {"what may be read", true, false, 0}, {"as many as are read", false, true, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kube := fake.NewClientset(policy("shop", "own"), policy("other", "theirs"))
			kube.PrependReactor("list", "networkpolicies", func(a clienttesting.Action) (bool, runtime.Object, error) {
				switch {
				case a.GetNamespace() == "" && tt.refused:
					return true, nil, no("networkpolicies")
				case a.GetNamespace() == "" && tt.cut:
					return true, &networkingv1.NetworkPolicyList{
						ListMeta: metav1.ListMeta{Continue: "more"},
						Items:    []networkingv1.NetworkPolicy{*policy("other", "theirs"), *policy("shop", "a part of them")},
					}, nil
				}
				return false, nil, nil
			})
			var v policies.View
			if err := fullReader(kube, dynamicServer()).policies(t.Context(), &v); err != nil {
				t.Fatal(err)
			}
			if len(v.Policies) != 1 || v.Policies[0].Name != "own" || len(v.Elsewhere) != tt.elsewhere || v.ElsewhereCut != tt.cut {
				t.Errorf("got %+v", v)
			}
		})
	}
}

func TestForeignPolicies(t *testing.T) {
	for _, tt := range []struct {
		name    string
		objects []runtime.Object
		refused error
		want    []string
		fails   bool
	}{
		{"of which there is none", nil, nil, nil, false},
		{"of which there are", []runtime.Object{object("cilium.io/v2", "CiliumNetworkPolicy", "c")}, nil,
			[]string{"ciliumnetworkpolicies.cilium.io"}, false},
		{"of which there may be", nil, no("ciliumnetworkpolicies"), []string{"ciliumnetworkpolicies.cilium.io"}, false},
		{"that are served no more", nil, apierrors.NewNotFound(cilium().GroupResource(), ""), nil, false},
		{"that can't be read", nil, errors.New("broken"), nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kube, dynamic := fake.NewClientset(), dynamicServer(tt.objects...)
			kube.Resources = []*metav1.APIResourceList{{GroupVersion: "cilium.io/v2", APIResources: []metav1.APIResource{
				{Name: "ciliumnetworkpolicies", Kind: "CiliumNetworkPolicy", Namespaced: true, Verbs: metav1.Verbs{"list"}},
				{Name: "ciliumendpoints", Kind: "CiliumEndpoint", Namespaced: true, Verbs: metav1.Verbs{"list"}},
			}}}
			if tt.refused != nil {
				refuse(&dynamic.Fake, "list", "ciliumnetworkpolicies", tt.refused)
			}
			got, err := fullReader(kube, dynamic).ForeignPolicies(t.Context())
			if (err != nil) != tt.fails || !tt.fails && !slices.Equal(got, tt.want) {
				t.Errorf("got %q, error %v", got, err)
			}
		})
	}
}

func TestEnvSources(t *testing.T) {
	kube := fake.NewClientset(
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "c"}, Data: map[string]string{"A": "1"}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "s"}, Data: map[string][]byte{"B": []byte("secret")}},
	)
	kube.PrependReactor("get", "secrets", func(a clienttesting.Action) (bool, runtime.Object, error) {
		name := a.(clienttesting.GetAction).GetName() //nolint:forcetypeassert // by its verb
		return name == "hidden", nil, no("secrets")
	})
	refs := []string{"configmap/c", "secret/s", "secret/hidden", "configmap/gone"}
	got, err := reader(kube).envSources(t.Context(), refs)
	if err != nil || len(got) != 3 || got["configmap/c"].Data["A"] != "1" || !got["secret/hidden"].Unread {
		t.Errorf("got %v, error %v", got, err)
	}
	if value, named := got["secret/s"].Data["B"]; !named || value != "" || !got["secret/s"].NamesOnly {
		t.Errorf("a Secret is read as %+v", got["secret/s"])
	}
}

func TestAdmission_LeavesOutOurOwn(t *testing.T) {
	mesh := &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "mesh"}, Webhooks: []admissionv1.MutatingWebhook{{Name: "inject"}},
	}
	own := webhooks("")
	own.Webhooks = []admissionv1.MutatingWebhook{{Name: "own"}}
	kube := fake.NewClientset(mesh, own)
	a, err := reader(kube).admission(t.Context())
	if err != nil || len(a.Webhooks) != 1 || a.Webhooks[0].Name != "inject" || a.Unread {
		t.Errorf("got %+v, error %v", a, err)
	}
	forbid(kube, "mutatingwebhookconfigurations")
	if a, err := reader(kube).admission(t.Context()); err != nil || !a.Unread {
		t.Errorf("got %+v, error %v", a, err)
	}
}

// forkOf is a fork in the sandbox a of a Deployment.
func forkOf(name, baseline string) *appsv1.Deployment {
	d := &appsv1.Deployment{ObjectMeta: labelled(name, "a", sandbox.RoleFork)}
	d.Annotations = map[string]string{sandbox.AnnotationWorkload: "deployment." + baseline, sandbox.AnnotationAPIVersion: "apps/v1"}
	return d
}

func TestStatus_ComparesForksWithTheirBaselines(t *testing.T) {
	kube := fake.NewClientset(
		&corev1.ConfigMap{ObjectMeta: labelled("sandbox-a", "a", sandbox.RoleSandbox)}, forkOf("api-a", "api"), forkOf("web-a", "web"),
	)
	refuse(&kube.Fake, "patch", "configmaps", no("configmaps")) // then its counts are not current
	s, err := fullReader(kube, dynamicServer(object("apps/v1", "Deployment", "api"))).Status(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Forks) != 2 || len(s.Standings) != 2 || s.Counted {
		t.Fatalf("got %+v", s)
	}
	if s.Standings[0].Gone || !s.Standings[1].Gone {
		t.Errorf("standings %+v", s.Standings)
	}
}

func TestEntry(t *testing.T) {
	web := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}
	kube, dynamic := fake.NewClientset(web), dynamicServer()
	refuse(&kube.Fake, "list", "ingresses", no("ingresses"))
	refuse(&dynamic.Fake, "list", "httproutes", apierrors.NewNotFound(schema.GroupResource{Resource: "httproutes"}, ""))
	entry, err := fullReader(kube, dynamic).Entry(t.Context(), plan.Kubectl("sandbox", "open", "a"))
	if err != nil || entry.Service.Name != "web" {
		t.Errorf("got %+v, error %v", entry, err)
	}
	refuse(&kube.Fake, "list", "services", no("services"))
	var p *plan.Problem
	if _, err := fullReader(kube, dynamic).Entry(t.Context(), nil); !errors.As(err, &p) || !strings.Contains(p.What, "not allowed: services") {
		t.Errorf("got %v", err)
	}
}

func TestVersions(t *testing.T) {
	stated := webhooks("")
	stated.Labels = map[string]string{labelVersion: "1.2.3"}
	for _, tt := range []struct {
		name    string
		objects []runtime.Object
		refused error
		version string
		unknown string
		fails   bool
	}{
		{"stated", []runtime.Object{stated}, nil, "1.2.3", "", false},
		{"not stated", []runtime.Object{webhooks("")}, nil, "", "its configuration has no label", false},
		{"not installed", nil, nil, "", "", false},
		{"hidden", nil, no("mutatingwebhookconfigurations"), "", "you may not read", false},
		{"broken", nil, errors.New("broken"), "", "", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kube := fake.NewClientset(tt.objects...)
			if tt.refused != nil {
				refuse(&kube.Fake, "get", "mutatingwebhookconfigurations", tt.refused)
			}
			v, err := reader(kube).Versions(t.Context(), "shop")
			if (err != nil) != tt.fails || !tt.fails && (v.Webhook != tt.version || !strings.HasPrefix(v.WebhookUnknown, tt.unknown)) {
				t.Errorf("got %+v, error %v", v, err)
			}
		})
	}
}
