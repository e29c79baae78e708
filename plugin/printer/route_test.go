package printer

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
)

func TestRoutes(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	made := metav1.NewTime(now.Add(-3 * time.Hour))
	route := func(name, workload, state string, ready int32, requests status.Requests) status.Route {
		return status.Route{Sandbox: name, Key: "key-" + name, Fork: workload + "-" + name, State: state, CreationTimestamp: &made, Replicas: 1, ReadyReplicas: ready, Requests: requests}
	}
	list := status.RouteStatusList{Items: []status.RouteStatus{
		{Metadata: status.Metadata{Name: "api", Namespace: "shop", CreationTimestamp: &made}, Workload: "deployment/api", State: "Routed", Pods: 2, Routers: 2, Routes: []status.Route{
			route("pr-1", "api", "Routed", 1, status.Requests{Fork: 7, Refused: 2}), route("pr-2", "api", "Waiting", 0, status.Requests{}),
		}},
		{Metadata: status.Metadata{Name: "idle", Namespace: "shop", CreationTimestamp: &made}, Workload: "deployment/idle", State: "Routed", Pods: 1, Routers: 1},
		{Metadata: status.Metadata{Name: "web", Namespace: "shop", CreationTimestamp: &made}, Workload: "deployment/web", State: "NotRouted", Pods: 2, Routers: 1, Routes: []status.Route{
			route("pr-1", "web", "Routed", 1, status.Requests{Fork: 3, Baseline: 1, Unfinished: 1}),
		}},
	}}
	for _, tt := range []struct {
		name       string
		namespaces bool
		want       string
	}{
		{"of one namespace", false, `
WORKLOAD ROUTERS STATE SANDBOX KEY READY REQUESTS AGE
deployment/api 2/2 Routed pr-1 key-pr-1 1/1 9 (2 refused) 3h
deployment/api 2/2 Waiting pr-2 key-pr-2 0/1 0 3h
deployment/idle 1/1 Routed <none> <none> <none> <none> 3h
deployment/web 1/2 NotRouted pr-1 key-pr-1 1/1 4 (1 to the baseline, 1 broken off) 3h
`},
		{"of all", true, `
NAMESPACE WORKLOAD ROUTERS STATE SANDBOX KEY READY REQUESTS AGE
shop deployment/api 2/2 Routed pr-1 key-pr-1 1/1 9 (2 refused) 3h
shop deployment/api 2/2 Waiting pr-2 key-pr-2 0/1 0 3h
shop deployment/idle 1/1 Routed <none> <none> <none> <none> 3h
shop deployment/web 1/2 NotRouted pr-1 key-pr-1 1/1 4 (1 to the baseline, 1 broken off) 3h
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			if err := Routes(&out, list, tt.namespaces, now); err != nil {
				t.Fatal(err)
			}
			if got, want := squeeze(out.String()), squeeze(tt.want[1:]); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// squeeze makes each run of spaces one, so that a table's test is of its cells.
func squeeze(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.Join(strings.Fields(l), " ")
	}
	return strings.Join(lines, "\n")
}
