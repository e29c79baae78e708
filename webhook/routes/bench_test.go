package routes

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// listServer is as much of an API server as an informer needs to list: watches stay silent.
func listServer(b *testing.B, lists map[string]any) *rest.Config {
	b.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		list, ok := lists[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]
		switch {
		case r.URL.Query().Get("sendInitialEvents") != "":
			http.Error(w, "no watch lists here", http.StatusUnprocessableEntity)
		case r.URL.Query().Get("watch") != "":
			<-r.Context().Done()
		case ok:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(list)
		default:
			http.NotFound(w, r)
		}
	}))
	b.Cleanup(s.Close)
	return &rest.Config{Host: s.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}
}

// bigCluster is a synced cache of n forks with two pods each, spread over as many baselines.
func bigCluster(b *testing.B, forks, baselines int) cache.Cache {
	b.Helper()
	deployments := &appsv1.DeploymentList{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "DeploymentList"}}
	replicaSets := replicaSetList()
	pods := &corev1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}}
	lists := map[string]any{"configmaps": &corev1.ConfigMapList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMapList"}}}
	for i := range forks {
		name := fmt.Sprintf("pr-%d", i)
		d := deployment(name, name, i)
		d.Labels[sandbox.LabelWorkload] = workload(i % baselines)
		deployments.Items = append(deployments.Items, *d)
		rs := metav1.PartialObjectMetadata{TypeMeta: replicaSet().TypeMeta, ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID("rs-" + name), Labels: d.Labels, Annotations: map[string]string{annotationRevision: "1"},
		}}
		replicaSets.Items = append(replicaSets.Items, rs)
		for _, pod := range []string{"-a", "-b"} {
			p := readyPod(name+pod, "rs-"+name)
			p.Namespace, p.Labels = "shop", d.Labels
			pods.Items = append(pods.Items, *p)
		}
	}
	lists["deployments"], lists["replicasets"], lists["pods"] = deployments, replicaSets, pods
	lists["leases"] = map[string]any{"apiVersion": "coordination.k8s.io/v1", "kind": "LeaseList", "items": []any{}}
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, gvk := range []schema.GroupVersionKind{
		appsv1.SchemeGroupVersion.WithKind("Deployment"), appsv1.SchemeGroupVersion.WithKind("ReplicaSet"),
		corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithKind("ConfigMap"),
		coordinationv1.SchemeGroupVersion.WithKind("Lease"),
	} {
		mapper.Add(gvk, meta.RESTScopeNamespace)
	}
	c, err := cache.New(listServer(b, lists), cache.Options{Scheme: scheme.Scheme, Mapper: mapper, ByObject: CacheOptions()})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b.Cleanup(cancel)
	if err := Index(ctx, c); err != nil {
		b.Fatal(err)
	}
	go func() { _ = c.Start(ctx) }()
	if !c.WaitForCacheSync(ctx) {
		b.Fatal("cache did not sync")
	}
	return c
}

func workload(i int) string { return fmt.Sprintf("deployment.svc-%d", i) }

// What one event costs, from the cache to the encoded difference, in a cluster of 5,000 forks: over 500 baselines, and
// all 2,000 of them of one.
func BenchmarkEvent(b *testing.B) {
	for _, n := range []struct{ forks, baselines int }{{5000, 500}, {2000, 1}} {
		b.Run(fmt.Sprintf("forks=%d/baselines=%d", n.forks, n.baselines), func(b *testing.B) {
			hub := newHub(flapping{cacheState{bigCluster(b, n.forks, n.baselines)}, new(int)}, clock.RealClock{})
			hub.serve(1)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				fork := (i / 2 * 37) % n.forks
				name := Baseline{"shop", workload(fork % n.baselines)}
				if err := hub.rebuild(b.Context(), name, fmt.Sprintf("pr-%d", fork)); err != nil {
					b.Fatal(err)
				}
				if p := hub.baselines[name].current; p.delta != nil {
					if _, err := p.delta(); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

// flapping is a state in which, at every read of a fork, one of its pods came or went.
type flapping struct {
	cacheState
	reads *int
}

func (f flapping) Forks(ctx context.Context, b Baseline, sandboxName string) (map[string]*Fork, error) {
	forks, err := f.cacheState.Forks(ctx, b, sandboxName)
	if *f.reads++; sandboxName != all && *f.reads%2 == 0 {
		forks[sandboxName].Pods = forks[sandboxName].Pods[:1]
	}
	return forks, err
}

// From a change of a table until every one of its baseline's routers has it and said so, over TLS; and what a
// stream costs in memory, both its ends, in this one process.
func BenchmarkStreams(b *testing.B) {
	for _, routers := range []int{10, 500} {
		b.Run(fmt.Sprintf("routers=%d", routers), func(b *testing.B) {
			c := &cluster{}
			hub := newReplica(b, c, "", clock.RealClock{})
			hub.serve(1)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			names := make([]string, routers)
			for i := range names {
				names[i] = fmt.Sprintf("api-%d", i)
				newRouter(b, api, names[i]).dial(hub)
			}
			acks := make(chan struct{}, 1)
			hub.Watch(func(Baseline) {
				select {
				case acks <- struct{}{}:
				default:
				}
			})
			wait := func(ok func(View) bool) {
				for {
					v, err := hub.view(b.Context(), api)
					if err != nil {
						b.Fatal(err)
					}
					if len(v.Routers) == routers && ok(v) {
						return
					}
					<-acks
				}
			}
			wait(func(View) bool { return true })
			runtime.GC()
			runtime.ReadMemStats(&after)
			for i := 0; b.Loop(); i++ {
				pod := fmt.Sprintf("pod-%d", i)
				hub.change(b, c, api, fork("pr-1", pod))
				wait(acked(pod, names...))
			}
			b.ReportMetric(float64(after.HeapAlloc+after.StackInuse-before.HeapAlloc-before.StackInuse)/float64(routers), "B/stream")
		})
	}
}
