package printer

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// statusOf is the status of pr-42 with forks of the given states.
func statusOf(forks []appsv1.Deployment, reports ...health.Report) *read.Status {
	s := &read.Status{Counted: true, Sandbox: sandboxes.Sandbox{
		Namespace: "shop", Name: "pr-42", Key: "pr-42", CreatedBy: "jane", Created: noon().Add(-2 * time.Hour),
		ConfigMap: configMap(), Forks: forks,
	}}
	for _, r := range reports {
		s.Forks = append(s.Forks, sandboxes.ForkStatus{Report: r})
	}
	return s
}

func TestStatus(t *testing.T) {
	for _, tt := range []struct {
		name   string
		status func() *read.Status
		want   string
	}{
		{"routed", func() *read.Status {
			worker := deployment("worker", nil)
			worker.Spec.Replicas, worker.Status.AvailableReplicas = nil, 0
			s := statusOf([]appsv1.Deployment{*deployment("api", nil), *worker},
				health.Report{State: health.StateRouted}, health.Report{State: health.StateRunning})
			s.Counts = route.Totals{"deployment.api": {Fork: 5, FellBack: 2, Refused: 1}}
			s.Uncounted, s.Previews = "web-1", []string{"https://a.example.com/", "https://b.example.com/"}
			s.Policies = []networkingv1.NetworkPolicy{*policy()}
			return s
		}, `
sandbox pr-42 in shop, key pr-42, created 120m ago by jane, never expires

FORK           OF                  READY   REQUESTS   STATE     AGE
api-pr-42      deployment/api      1/1     8          Routed    60m
worker-pr-42   deployment/worker   0/1     0          Running   60m

requests: without the latest of web-1, which did not answer

preview: https://a.example.com/

preview: https://b.example.com/

policy: networkpolicy/api-pr-42-ingress gives the fork of deployment/api the rules that the baseline has by deny, web
`},
		{"not routed", func() *read.Status {
			s := statusOf([]appsv1.Deployment{*deployment("api", nil)}, health.Report{
				State: health.StateFailed, Unknown: []string{"whether its pods are ready"}, Causes: []health.Cause{
					{Message: "container app crashes", Outlook: health.OutlookMayPass, Say: "read its log",
						Fix: plan.Kubectl("logs", "deploy/api-pr-42")},
					{Message: "pods start", Outlook: health.OutlookWaits},
					{Message: "a router lags", Outlook: health.OutlookMayPass, Partial: true, Path: true},
					{Message: "no router", Outlook: health.OutlookMayPass, Path: true,
						Fix: plan.Kubectl("sandbox", "route", "deployment/api", "-n", "shop")},
				},
			})
			s.Counted = false
			return s
		}, `
sandbox pr-42 in shop, key pr-42, created 120m ago by jane, never expires

FORK        OF               READY   REQUESTS   STATE    AGE
api-pr-42   deployment/api   1/1     0          Failed   60m

requests: as last written; the webhook did not answer, or you may not patch configmaps

failed: deployment.apps/api-pr-42: container app crashes
hint: read its log: kubectl logs deploy/api-pr-42 --context=dev --namespace=shop

waiting: deployment.apps/api-pr-42: pods start

warning: deployment.apps/api-pr-42: a router lags

not routed: deployment.apps/api-pr-42: no router
hint: kubectl sandbox route deployment/api -n shop --context=dev

not known: deployment.apps/api-pr-42: whether its pods are ready
`},
		{"without forks", func() *read.Status {
			s := statusOf(nil)
			s.CreatedBy, s.Expires = "", noon().Add(-time.Hour)
			return s
		}, `
sandbox pr-42 in shop, key pr-42, created 120m ago, expired 60m ago
no forks
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			if err := Status(&out, tt.status(), chosen(), noon()); err != nil {
				t.Fatal(err)
			}
			compare(t, out.String(), tt.want)
		})
	}
}

// What is known of the baselines comes after what keeps requests from the forks.
func TestStatus_Baselines(t *testing.T) {
	followed := `{"generation":4,"time":"2026-01-02T11:00:00Z"}`
	routed := health.Report{State: health.StateRouted}
	s := statusOf([]appsv1.Deployment{
		*deployment("a", nil), *deployment("b", nil), *deployment("c", nil),
		*deployment("d", map[string]string{sandbox.AnnotationFollowed: followed}),
	}, routed, routed, routed, routed)
	s.Key, s.ConfigMap = "", nil
	s.Standings = []sandboxes.BaselineState{
		{Behind: true}, {Behind: true, Conflict: "no container app", Generation: 3}, {Follows: true}, {Follows: true},
	}
	var out strings.Builder
	if err := Status(&out, s, chosen(), noon()); err != nil {
		t.Fatal(err)
	}
	compare(t, out.String(), `
sandbox pr-42 in shop, key <none>, its ConfigMap is missing, never expires

FORK      OF             READY   REQUESTS   STATE    AGE
a-pr-42   deployment/a   1/1     0          Routed   60m
b-pr-42   deployment/b   1/1     0          Routed   60m
c-pr-42   deployment/c   1/1     0          Routed   60m
d-pr-42   deployment/d   1/1     0          Routed   60m

behind: deployment.apps/a-pr-42 lacks later changes of deployment/a
hint: rebase the fork: kubectl sandbox rebase pr-42 deployment/a --context=dev --namespace=shop

conflict: deployment.apps/b-pr-42 can't follow deployment/b to generation 3
  no container app
hint: delete it, then fork again: kubectl sandbox delete pr-42 --context=dev --namespace=shop

follows: deployment.apps/c-pr-42 is rebased whenever deployment/c changes

follows: deployment.apps/d-pr-42 was rebased on generation 4 of deployment/d at 2026-01-02T11:00:00Z
`)
}

func TestExpiry_NamesTheTimeInTheCallersZone(t *testing.T) {
	at := noon().Add(8 * time.Hour)
	if got, want := expiry(at, noon()), "expires in 8h ("+at.Local().Format(time.RFC3339)+")"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
