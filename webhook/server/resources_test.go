package server

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

// The cache of one namespace's pods, as the guard gets it, lists them: it asks the mapper for the list's kind too.
func TestPodCache_ListsPods(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if !strings.HasPrefix(r.URL.Path, "/api/v1/namespaces/shop/pods") {
			http.NotFound(w, r)
			return
		}
		if r.URL.Query().Get("watch") == "" {
			_ = json.NewEncoder(w).Encode(corev1.PodList{
				TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, ListMeta: metav1.ListMeta{ResourceVersion: "1"},
				Items: []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api"}}},
			})
			return
		}
		if r.URL.Query().Get("sendInitialEvents") == "true" {
			http.Error(w, "not here", http.StatusUnprocessableEntity) // the client then lists
			return
		}
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer api.Close()
	o := parse(t, pod(), "--router-image=router:1")
	config := &rest.Config{Host: api.URL}
	mgr, err := manager.New(config, manager.Options{
		MapperProvider: o.resources, Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0", Logger: testr.New(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	pods, err := (&control{config: config}).podCache(mgr)(cache.Options{DefaultNamespaces: map[string]cache.Config{"shop": {}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	ended := make(chan error, 1)
	t.Cleanup(func() {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	if _, err := pods.GetInformer(ctx, &corev1.Pod{}, cache.BlockUntilSynced(false)); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- pods.Start(ctx) }()
	if !pods.WaitForCacheSync(ctx) {
		t.Fatal("the pods are not listed")
	}
	var list corev1.PodList
	if err := pods.List(ctx, &list, client.InNamespace("shop")); err != nil || len(list.Items) != 1 {
		t.Fatalf("%d pods: %v", len(list.Items), err)
	}
}

// A mapper by discovery leads from a resource to its kind, and from a list to the resource.
func TestResources_KnowListsAndKinds(t *testing.T) {
	o := parse(t, pod(), "--router-image=router:1", "--follow-kinds=Rollout.v1alpha1.argoproj.io=rollouts")
	m, err := o.resources(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range o.followKinds() {
		if mapping, err := m.RESTMapping(kind.GroupKind(), kind.Version); err != nil || mapping.Resource.Resource != "rollouts" {
			t.Errorf("%v: %v %v", kind, mapping, err)
		}
	}
	if kind, err := m.KindFor(corev1.SchemeGroupVersion.WithResource("pods")); err != nil || kind.Kind != "Pod" {
		t.Errorf("the kind of pods is %v: %v", kind, err)
	}
	for _, kind := range []string{"PodList", "NamespaceList"} {
		if _, err := m.RESTMapping(corev1.SchemeGroupVersion.WithKind(kind).GroupKind(), "v1"); err != nil {
			t.Error(err)
		}
	}
}
