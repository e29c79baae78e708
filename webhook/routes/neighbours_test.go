package routes

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/clock"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

var canary = Baseline{"shop", "deployment.canary"}

func TestNeighboursOf(t *testing.T) {
	pod := func(workload string, labels map[string]string) corev1.Pod {
		l := map[string]string{sandbox.LabelRole: sandbox.RoleBaseline, sandbox.LabelWorkload: workload}
		for k, v := range labels {
			l[k] = v
		}
		return corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Labels: l, Annotations: map[string]string{sandbox.AnnotationPorts: "http=8080,grpc=9000"}}}
	}
	service := func(selector map[string]string, targets ...intstr.IntOrString) corev1.Service {
		s := corev1.Service{Spec: corev1.ServiceSpec{Selector: selector}}
		for _, target := range targets {
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{TargetPort: target})
		}
		return s
	}
	name := intstr.FromString
	pods := []corev1.Pod{
		pod(api.Workload, map[string]string{"app": "api", "track": "stable"}), pod(canary.Workload, map[string]string{"app": "api", "track": "canary"}),
		pod("deployment.other", map[string]string{"app": "other"}),
	}
	for what, test := range map[string]struct {
		services []corev1.Service
		want     neighbours
	}{
		"no Service":                          {nil, neighbours{}},
		"each behind its own":                 {[]corev1.Service{service(map[string]string{"track": "stable"}, name("http")), service(map[string]string{"track": "canary"}, name("http"))}, neighbours{}},
		"both behind one":                     {[]corev1.Service{service(map[string]string{"app": "api"}, name("http"))}, neighbours{canary: {"http"}}},
		"by number, where pod IPs are caught": {[]corev1.Service{service(map[string]string{"app": "api"}, intstr.FromInt32(9000))}, neighbours{canary: {"grpc"}}},
		"by a port that is not captured":      {[]corev1.Service{service(map[string]string{"app": "api"}, name("metrics"))}, neighbours{}},
		"several Services": {[]corev1.Service{service(map[string]string{"app": "api"}, name("http")), service(map[string]string{"app": "api"}, name("http"), name("grpc"))},
			neighbours{canary: {"grpc", "http"}}},
		"without a selector": {[]corev1.Service{service(nil, name("http"))}, neighbours{}},
	} {
		if got := neighboursOf(api, test.services, pods); !cmp.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", what, got, test.want)
		}
	}
	gone := slices.Clone(pods)
	gone[1].DeletionTimestamp = &metav1.Time{}
	if got := neighboursOf(api, []corev1.Service{service(map[string]string{"app": "api"}, name("http"))}, gone); len(got) > 0 {
		t.Errorf("of a pod on its way out: %v", got)
	}
}

// A fork of one of two workloads behind a Service is routed by the routers of both: the view that gates turn by waits
// for both, and what both count is counted for the fork's baseline.
func TestNeighbours_RouteEachOthersForks(t *testing.T) {
	c := newCluster(t, "api-1", "canary-1")
	state := &cluster{near: map[Baseline]neighbours{api: {canary: {"http"}}, canary: {api: {"http"}}}}
	hub := newReplica(t, state, "", clock.RealClock{})
	hub.serve(1)
	stable, other := newRouter(t, api, "api-1"), newRouter(t, canary, "canary-1")
	stable.dial(hub)
	other.silent = true
	other.dial(hub)
	other.wait("table", func() bool { return other.table != nil })
	hub.change(t, state, api, fork("pr-1", "a"))
	if err := hub.spread(t.Context(), api, "pr-1"); err != nil {
		t.Fatal(err)
	}
	other.wait("route", func() bool { return len(other.table.Routes) == 1 })
	other.mu.Lock()
	if f := other.table.Routes["pr-1"]; f.Name != "api-pr-1" || !slices.Equal(f.Only, []string{"http"}) || len(f.Pods) != 1 {
		t.Errorf("the neighbour routes by %+v", f)
	}
	other.mu.Unlock()
	stable.wait("route", func() bool { return stable.table != nil && len(stable.table.Routes) == 1 })
	stable.mu.Lock()
	if f := stable.table.Routes["pr-1"]; f.Only != nil {
		t.Errorf("the baseline routes at %v alone", f.Only)
	}
	stable.mu.Unlock()

	pods := []*corev1.Pod{fork("pr-1", "a").Pods[0]}
	pods[0].Labels = map[string]string{sandbox.LabelSandbox: "pr-1", sandbox.LabelWorkload: api.Workload}
	routed := func(pod string) bool {
		v, err := hub.View(t.Context(), api, pods)
		if err != nil {
			t.Fatal(err)
		}
		r, ok := v.Routers[types.UID(pod)]
		return ok && r.Acked.Compare(v.Serving["a"]) >= 0
	}
	hub.waitView(t, api, "acknowledgement of the baseline's own router", func(View) bool { return routed("api-1") })
	if routed("canary-1") {
		t.Error("a router counts as having acknowledged that has not")
	}
	other.mu.Lock()
	v := other.table.Version
	other.silent = false
	up := other.up
	other.mu.Unlock()
	if err := route.Write(up, route.ToControl{Ack: &v}); err != nil {
		t.Fatal(err)
	}
	hub.waitView(t, api, "acknowledgement of the neighbour's router", func(View) bool { return routed("canary-1") })

	stable.serve("pr-1", 3)
	other.serve("pr-1", 4)
	flush(t, c, "now")
	counter := newTestCounter(hub.Hub, c)
	if _, err := counter.Reconcile(t.Context(), pr1); err != nil {
		t.Fatal(err)
	}
	if totals, _ := countsIn(t, c); !cmp.Equal(totals, route.Totals{api.Workload: {Fork: 7}}) {
		t.Errorf("counts %v, want 7 of %s", totals, api.Workload)
	}

	// Two forks of one sandbox: each workload's own has the key there.
	own := fork("pr-1", "b")
	own.Deployment.Name, own.Deployment.UID = "canary-pr-1", "another"
	hub.change(t, state, canary, own)
	other.wait("its own fork", func() bool { return other.table.Routes["pr-1"].UID == "another" })
	if !routed("canary-1") {
		t.Error("a fork waits for a router that does not route to it")
	}

	// They part.
	hub.change(t, state, canary)
	other.wait("the guest again", func() bool { return other.table.Routes["pr-1"].Name == "api-pr-1" })
	state.mu.Lock()
	state.near = nil
	state.mu.Unlock()
	for _, b := range []Baseline{api, canary} {
		if err := hub.regroup(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	other.wait("no route", func() bool { return len(other.table.Routes) == 0 })
}
