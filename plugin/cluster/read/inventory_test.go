package read

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/kubernetes/fake"
	restfake "k8s.io/client-go/rest/fake"
	"k8s.io/client-go/restmapper"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// countRequests lets the controller answer each request for counts; silent names routers that do not.
func countRequests(kube *fake.Clientset, silent string) {
	kube.PrependReactor("get", "configmaps", func(a clienttesting.Action) (bool, runtime.Object, error) {
		name := a.(clienttesting.GetAction).GetName()                            //nolint:forcetypeassert // by its verb
		stored, _ := kube.Tracker().Get(a.GetResource(), a.GetNamespace(), name) // the tracker itself answers what fails
		cm, ok := stored.(*corev1.ConfigMap)
		if !ok || cm.Annotations[sandbox.AnnotationFlush] == "" {
			return false, nil, nil
		}
		cm = cm.DeepCopy()
		cm.Annotations[sandbox.AnnotationFlushed] = cm.Annotations[sandbox.AnnotationFlush]
		cm.Annotations[sandbox.AnnotationFlushMissing] = silent
		return true, cm, nil
	})
}

func TestSandboxInventory_CountsAreCurrentIfTheWebhookAnswers(t *testing.T) {
	for _, answers := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			kube := namespace()
			if answers {
				countRequests(kube, "pod/api-1")
			}
			began := time.Now()
			v, err := fullReader(kube, dynamicServer()).SandboxInventory(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			if v.Current != answers || (v.Missing == "pod/api-1") != answers || len(v.ConfigMaps) != 1 {
				t.Errorf("answers %t: current %t, missing %q", answers, v.Current, v.Missing)
			}
			if took := time.Since(began); took > flushTimeout+time.Second {
				t.Errorf("took %s", took)
			}
			_, err = fullReader(kube, dynamicServer()).SandboxInventory(t.Context(), "gone")
			var p *plan.Problem
			if !errors.As(err, &p) || !strings.Contains(p.What, `there is no sandbox "gone"`) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestRoutedByNamespace_IncludesSwitchedServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kube := namespace()
		countRequests(kube, "")
		switched := &corev1.Service{ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "web", Labels: map[string]string{sandbox.LabelRole: sandbox.RoleService},
		}}
		_ = kube.Tracker().Add(switched)
		dynamic := dynamicServer()
		refuse(&dynamic.Fake, "list", "statefulsets", no("statefulsets")) // who may only fork need not see them
		got, err := fullReader(kube, dynamic).RoutedByNamespace(t.Context(), "shop")
		if err != nil || len(got) != 1 || got[0].Namespace != "shop" || len(got[0].Workloads) != 0 {
			t.Errorf("got %+v, error %v", got, err)
		}
		refuse(&dynamic.Fake, "list", "deployments", errors.New("broken"))
		if _, err := fullReader(kube, dynamic).RoutedByNamespace(t.Context(), "shop"); err == nil {
			t.Error("a failure counts as not routed")
		}
	})
}

func TestWatchInventory(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error // of the watch of pods
	}{{"tells once of many changes", nil}, {"ends with an error", no("pods")}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kube := fake.NewClientset()
				all := map[string]*watch.RaceFreeFakeWatcher{}
				kube.PrependWatchReactor("*", func(a clienttesting.Action) (bool, watch.Interface, error) {
					if tt.err != nil && a.GetResource().Resource == "pods" {
						return true, nil, tt.err
					}
					w := watch.NewRaceFreeFake()
					all[a.GetResource().Resource] = w
					return true, w, nil
				})
				ctx, cancel := context.WithCancel(t.Context())
				changes := reader(kube).WatchInventory(ctx, "shop")
				if err := <-changes; !errors.Is(err, tt.err) && (err == nil) != (tt.err == nil) {
					t.Errorf("got %v, want %v", err, tt.err)
				}
				if tt.err == nil {
					time.Sleep(time.Minute)
					select {
					case <-changes:
						t.Error("tells of a change that there was not")
					default:
					}
					for range 10 {
						all["configmaps"].Add(&corev1.ConfigMap{})
					}
					began := time.Now()
					if err := <-changes; err != nil || time.Since(began) != settling {
						t.Errorf("got %v after %s", err, time.Since(began))
					}
				}
				synctest.Wait() // until all watches are open
				cancel()
				for _, w := range all {
					w.Stop()
				}
				synctest.Wait()
			})
		})
	}
}

func TestReadDependents(t *testing.T) {
	scaled := func(name, kind, apiVersion string) autoscalingv2.HorizontalPodAutoscaler {
		return autoscalingv2.HorizontalPodAutoscaler{Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: kind, Name: name, APIVersion: apiVersion},
		}}
	}
	kube, dynamic := fake.NewClientset(), dynamicServer()
	kube.Resources = []*metav1.APIResourceList{{GroupVersion: monitoring + "/v1"}}
	dynamic.PrependReactor("list", "podmonitors", func(a clienttesting.Action) (bool, runtime.Object, error) {
		list := &unstructured.UnstructuredList{Items: []unstructured.Unstructured{*object(monitoring+"/v1", "PodMonitor", "m")}}
		if a.GetNamespace() == "" {
			return true, nil, no("podmonitors")
		}
		return true, list, nil
	})
	dynamic.PrependReactor("get", "rollouts/scale", func(clienttesting.Action) (bool, runtime.Object, error) {
		u := object("autoscaling/v1", "Scale", "r")
		return true, u, unstructured.SetNestedField(u.Object, "app=r", "status", "selector")
	})
	r := fullReader(kube, dynamic)
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(schema.GroupVersionKind{Group: "argoproj.io", Version: "v1alpha1", Kind: "Rollout"}, meta.RESTScopeNamespace)
	r.Mapper = mapper
	into := plan.NamespaceObjects{Autoscalers: []autoscalingv2.HorizontalPodAutoscaler{
		scaled("r", "Rollout", "argoproj.io/v1alpha1"), scaled("x", "Unknown", "example.com/v1"),
	}}
	if err := r.readDependents(t.Context(), nil, &into); err != nil {
		t.Fatal(err)
	}
	if len(into.Monitors) != 1 || len(into.Scaled) != 2 || len(into.Unread) != 0 {
		t.Errorf("got %+v", into)
	}
	if key := plan.ScaledKey(into.Autoscalers[0].Spec.ScaleTargetRef); into.Scaled[key] != "app=r" {
		t.Errorf("scaled %q", into.Scaled)
	}
	into.Autoscalers = slices.Repeat(into.Autoscalers, maxScaled)
	if err := r.readDependents(t.Context(), nil, &into); err != nil || len(into.Unread) != 1 {
		t.Errorf("unread %q, error %v", into.Unread, err)
	}
}

// withBuilder lets r read Deployments by name, as the arguments of a command name them.
func withBuilder(r *Reader, objects ...*unstructured.Unstructured) *Reader {
	answer := func(req *http.Request) (*http.Response, error) {
		deployments := schema.GroupResource{Group: "apps", Resource: "deployments"}
		missing := apierrors.NewNotFound(deployments, path.Base(req.URL.Path)).Status()
		missing.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
		code, body := http.StatusNotFound, any(missing)
		if path.Base(req.URL.Path) == "shop" { // kubectl asks whether that is what is missing
			code, body = http.StatusOK, object("v1", "Namespace", "shop").Object
		}
		for _, o := range objects {
			if strings.HasSuffix(req.URL.Path, "/namespaces/shop/deployments/"+o.GetName()) {
				code, body = http.StatusOK, o.Object
			}
		}
		b, err := json.Marshal(body)
		header := http.Header{"Content-Type": []string{"application/json"}}
		return &http.Response{StatusCode: code, Header: header, Body: io.NopCloser(strings.NewReader(string(b)))}, err
	}
	r.Builder = func() *resource.Builder {
		return resource.NewFakeBuilder(
			func(schema.GroupVersion) (resource.RESTClient, error) {
				return &restfake.RESTClient{
					NegotiatedSerializer: resource.UnstructuredPlusDefaultContentConfig().NegotiatedSerializer,
					GroupVersion:         appsv1.SchemeGroupVersion, Client: restfake.CreateHTTPClient(answer),
				}, nil
			},
			func() (meta.RESTMapper, error) { return r.Mapper, nil },
			func() (restmapper.CategoryExpander, error) { return restmapper.SimpleCategoryExpander{}, nil },
		)
	}
	return r
}

// deployment is a workload of one container.
func deployment(t *testing.T, name string) *unstructured.Unstructured {
	t.Helper()
	u := object("apps/v1", "Deployment", name)
	labels := map[string]any{"app": name}
	u.Object["spec"] = map[string]any{
		"selector": map[string]any{"matchLabels": labels},
		"template": map[string]any{
			"metadata": map[string]any{"labels": labels},
			"spec":     map[string]any{"containers": []any{map[string]any{"name": "app", "image": "app:1"}}},
		},
	}
	return u
}

func TestWorkloads_NamesWhatIsNotFound(t *testing.T) {
	r := withBuilder(fullReader(fake.NewClientset(), dynamicServer()), deployment(t, "api"))
	got, err := r.Workloads(t.Context(), []string{"deployments/api"}, "")
	if err != nil || len(got) != 1 || got[0].Name() != "api" {
		t.Errorf("got %v, error %v", got, err)
	}
	_, err = r.Workloads(t.Context(), []string{"deployments/gone"}, "")
	var p *plan.Problem
	if !errors.As(err, &p) || p.What != `deployments.apps "gone" not found in namespace "shop"` ||
		plan.Quote(p.Fix) != "kubectl get deployments.apps" {
		t.Errorf("got %v", err)
	}
}

func TestReadFork_ReadsWhatItIsPlannedFrom(t *testing.T) {
	kube := namespace()
	_ = kube.Tracker().Add(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api"}})
	api := deployment(t, "api")
	r := withBuilder(fullReader(kube, dynamicServer(api)), api)
	workloads, state, err := r.ReadFork(t.Context(), []string{"deployments/api"}, &forks.Options{Sandbox: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if len(workloads) != 1 || state.Sandbox == nil || state.Sandbox.Name != "sandbox-a" || !state.NoWebhook {
		t.Errorf("got %v, state %+v", workloads, state)
	}
	if len(state.Services) != 1 || len(state.Objects.Workloads) != 1 || len(state.Policies.Forks) != 1 || len(state.Taken) != 1 {
		t.Errorf("got %+v", state)
	}
	forbid(kube, "services")
	_, _, err = r.ReadFork(t.Context(), []string{"deployments/api"}, &forks.Options{Sandbox: "a"})
	if !apierrors.IsForbidden(err) {
		t.Errorf("got %v", err)
	}
}

func TestReadRebase_OfAllForks(t *testing.T) {
	kube := fake.NewClientset(
		&corev1.ConfigMap{ObjectMeta: labelled("sandbox-a", "a", sandbox.RoleSandbox)},
		&corev1.ConfigMap{ObjectMeta: labelled("sandbox-b", "b", sandbox.RoleSandbox)}, forkOf("api-a", "api"),
	)
	api := deployment(t, "api")
	r := withBuilder(fullReader(kube, dynamicServer(api)), api)
	workloads, _, err := r.ReadRebase(t.Context(), nil, &forks.Options{Sandbox: "a", Rebase: true})
	if err != nil || len(workloads) != 1 || workloads[0].Name() != "api" {
		t.Errorf("got %v, error %v", workloads, err)
	}
	for name, want := range map[string]string{"gone": `there is no sandbox "gone"`, "b": "no fork"} {
		_, _, err := r.ReadRebase(t.Context(), nil, &forks.Options{Sandbox: name, Rebase: true})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", name, err)
		}
		if _, err := r.Diffs(t.Context(), name, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: diff got %v", name, err)
		}
	}
}
