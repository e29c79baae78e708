package routing

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"gomodules.xyz/jsonpatch/v2"
	appsv1 "k8s.io/api/apps/v1"
	authv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
)

// dynamicServer stores objects, and lists the kinds that a View reads.
func dynamicServer(objects ...runtime.Object) *dynamicfake.FakeDynamicClient {
	kinds := map[schema.GroupVersionResource]string{
		{Group: "apps", Version: "v1", Resource: "deployments"}:  "DeploymentList",
		{Group: "apps", Version: "v1", Resource: "statefulsets"}: "StatefulSetList",
		{Group: "apps", Version: "v1", Resource: "daemonsets"}:   "DaemonSetList",
		{Version: "v1", Resource: "pods"}:                        "PodList",
		{Version: "v1", Resource: "services"}:                    "ServiceList",
	}
	return dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds, objects...)
}

func object(apiVersion, kind, name string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": apiVersion, "kind": kind}}
	u.SetNamespace("shop")
	u.SetName(name)
	return u
}

func workload() *plan.Workload {
	u := object("apps/v1", "Deployment", "api")
	return &plan.Workload{Object: u, Resource: schema.GroupResource{Group: "apps", Resource: "deployments"}}
}

func routing(kube *fake.Clientset, dynamic *dynamicfake.FakeDynamicClient, targets ...*plan.Workload) *Routing {
	r := &Routing{client: &cluster.Client{Namespace: "shop", Kube: kube, Dynamic: dynamic}, targets: targets}
	return r
}

func services() schema.GroupVersionResource {
	return corev1.SchemeGroupVersion.WithResource("services")
}

func TestWrite(t *testing.T) {
	gone := apierrors.NewNotFound(corev1.Resource("services"), "web")
	for _, tt := range []struct {
		name    string
		write   routes.Write
		refused error
		dryRun  bool
		verb    string
		fails   bool
	}{
		{"creates", routes.Write{Create: object("v1", "Service", "web")}, nil, false, "create", false},
		{"creates on trial", routes.Write{Create: object("v1", "Service", "web")}, nil, true, "create", false},
		{"patches", routes.Write{Patch: []jsonpatch.Operation{{Operation: "add", Path: "/metadata/labels", Value: nil}}}, nil, true,
			"patch", false},
		{"reports that a patch no longer fits", routes.Write{},
			apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, "web", nil), false, "patch", true},
		{"deletes", routes.Write{Delete: "1", Before: object("v1", "Service", "web")}, nil, true, "delete", false},
		{"deletes what is gone", routes.Write{Delete: "1"}, gone, false, "delete", false},
		{"deletes no other object of that name", routes.Write{Delete: "1"},
			apierrors.NewConflict(corev1.Resource("services"), "web", errors.New("uid")), false, "delete", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dynamic := dynamicServer()
			var dry []string
			dynamic.PrependReactor("*", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
				if a.GetVerb() != tt.verb || a.GetNamespace() != "shop" {
					t.Errorf("calls %s in %q", a.GetVerb(), a.GetNamespace())
				}
				switch a := a.(type) {
				case clienttesting.CreateActionImpl:
					dry = a.CreateOptions.DryRun
				case clienttesting.PatchActionImpl:
					dry = a.PatchOptions.DryRun
				case clienttesting.DeleteActionImpl:
					dry = a.DeleteOptions.DryRun
					if p := a.DeleteOptions.Preconditions; p == nil || p.UID == nil || *p.UID != "1" {
						t.Errorf("deletes whatever has the name: %v", p)
					}
				}
				return true, object("v1", "Service", "web"), tt.refused
			})
			tt.write.Resource, tt.write.Namespace, tt.write.Name = services(), "shop", "web"
			_, err := routing(fake.NewClientset(), dynamic).Write(t.Context(), &tt.write, tt.dryRun)
			if (err != nil) != tt.fails || slices.Equal(dry, []string{metav1.DryRunAll}) != tt.dryRun {
				t.Errorf("got %v, dry run %q", err, dry)
			}
		})
	}
}

// lack lets the caller have all rights but some.
func lack(kube *fake.Clientset, rights ...string) {
	kube.PrependReactor("create", "selfsubjectaccessreviews", func(a clienttesting.Action) (bool, runtime.Object, error) {
		review := a.(clienttesting.CreateAction).GetObject().(*authv1.SelfSubjectAccessReview) //nolint:forcetypeassert // by its verb
		of := review.Spec.ResourceAttributes
		has := !slices.Contains(rights, Right{of.Verb, of.Group, of.Resource}.String())
		return true, &authv1.SelfSubjectAccessReview{Status: authv1.SubjectAccessReviewStatus{Allowed: has}}, nil
	})
}

func TestExplain_NamesAllRightsThatAreMissing(t *testing.T) {
	forbidden := apierrors.NewForbidden(corev1.Resource("services"), "web", errors.New(`User "jane" cannot patch it`))
	for _, tt := range []struct {
		name  string
		lacks []string
		err   error
		want  string
	}{
		{"several", []string{"patch services", "create networkpolicies.networking.k8s.io", "patch deployments.apps"}, forbidden,
			"not allowed in namespace shop: patch services, create networkpolicies.networking.k8s.io, patch deployments.apps"},
		{"none that is known", nil, forbidden, `not allowed: services "web" is forbidden: User "jane" cannot patch it`},
		{"of another error", []string{"patch services"}, errors.New("broken"), "broken"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kube := fake.NewClientset()
			lack(kube, tt.lacks...)
			err := routing(kube, dynamicServer(), workload()).Explain(t.Context(), tt.err)
			if err.Error() != tt.want {
				t.Errorf("got %q, want %q", err, tt.want)
			}
		})
	}
}

func TestView_ReadsTheNamespace(t *testing.T) {
	api, other := workload(), object("apps/v1", "StatefulSet", "db")
	api.Object.SetUID("api")
	other.SetUID("db")
	isController := true
	kube := fake.NewClientset(
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}},
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "elsewhere", Name: "web"}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api-1"}},
		replicaSet(&isController),
	)
	r := routing(kube, dynamicServer(api.Object, other), api)
	v, err := r.View(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Targets) != 1 || v.Targets[0].Name() != "api" || len(v.Others) != 1 || v.Others[0].Name() != "db" {
		t.Errorf("targets %v, others %v", v.Targets, v.Others)
	}
	if len(v.Services) != 1 || len(v.Pods) != 1 || v.Owners["set"].Name != "api" {
		t.Errorf("services %v, pods %v, owners %v", v.Services, v.Pods, v.Owners)
	}
}

func TestView_SaysWhichRightsAreMissing(t *testing.T) {
	for _, resource := range []string{"replicasets", "services", "pods", "networkpolicies"} {
		kube := fake.NewClientset()
		lack(kube, "list pods", "list services")
		kube.PrependReactor("list", resource, func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", errors.New("no"))
		})
		api := workload()
		_, err := routing(kube, dynamicServer(api.Object), api).View(t.Context())
		if err == nil || !strings.Contains(err.Error(), "not allowed in namespace shop: list services, list pods") {
			t.Errorf("%s: got %v", resource, err)
		}
	}
}

func TestAdmission(t *testing.T) {
	for _, tt := range []struct {
		name    string
		refused error
		fails   bool
	}{
		{"that gives a pod no router", nil, true},
		{"that is not known where pods may not be created", apierrors.NewForbidden(corev1.Resource("pods"), "", errors.New("no")), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dynamic := dynamicServer()
			dynamic.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
				create := a.(clienttesting.CreateActionImpl) //nolint:forcetypeassert // by its verb
				if !slices.Equal(create.CreateOptions.DryRun, []string{metav1.DryRunAll}) {
					t.Error("creates a pod for good")
				}
				return true, create.Object, tt.refused
			})
			api := workload()
			err := routing(fake.NewClientset(), dynamic, api).Admission(t.Context(), &routes.View{Targets: []*plan.Workload{api}})
			var p *plan.Problem
			if (err != nil) != tt.fails || tt.fails && !errors.As(err, &p) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// replicaSet is one of the Deployment api.
func replicaSet(isController *bool) *appsv1.ReplicaSet {
	owners := []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "api", Controller: isController}}
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api-1", UID: "set", OwnerReferences: owners},
	}
}

func TestReadPolicies_OfOtherNamespacesIfTheCallerMay(t *testing.T) {
	policy := func(namespace string) *networkingv1.NetworkPolicy {
		return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "p"}}
	}
	for _, tt := range []struct {
		name    string
		refused error
		want    int
		fails   bool
	}{
		{"read", nil, 1, false},
		{"hidden", apierrors.NewForbidden(schema.GroupResource{Resource: "networkpolicies"}, "", errors.New("no")), 0, false},
		{"broken", errors.New("broken"), 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kube := fake.NewClientset(policy("shop"), policy("other"))
			if tt.refused != nil {
				kube.PrependReactor("list", "networkpolicies", func(clienttesting.Action) (bool, runtime.Object, error) {
					return true, nil, tt.refused
				})
			}
			r := routing(kube, dynamicServer())
			r.client.Discovery = kube.Discovery()
			r.read = read.New(r.client)
			err := r.ReadPolicies(t.Context())
			if (err != nil) != tt.fails || len(r.fixed.PoliciesElsewhere) != tt.want {
				t.Errorf("got %d policies, error %v", len(r.fixed.PoliciesElsewhere), err)
			}
		})
	}
}
