package printer

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/apply"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/policies"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
)

// forkPlan is the plan of a new fork of api with a policy, and of an update of the fork of worker.
func forkPlan(t *testing.T) *forks.Plan {
	t.Helper()
	return &forks.Plan{
		Sandbox: "pr-42", Namespace: "shop", Key: "pr-42", ConfigMap: typed(configMap()),
		Forks: []forks.Fork{
			{
				Deployment: object(t, typedFork(deployment("api", nil))),
				Inherits:   "secret/db", Lacks: "a stable name", Policies: []policies.Policy{{NetworkPolicy: policy()}},
				Reach: []plan.Endpoint{{Service: "api", Namespace: "shop", Port: 8080}, {Service: "other"}},
			},
			{
				Deployment: object(t, typedFork(deployment("worker", nil))), Replaces: 2, Inherits: "secret/queue",
				Reach: []plan.Endpoint{{Service: "worker", Namespace: "shop", Port: 80, HTTP2: true}},
			},
		},
	}
}

// applied are the objects of a plan as the API server returns them, at their first generation.
func applied(t *testing.T, p *forks.Plan) *apply.Applied {
	t.Helper()
	a := &apply.Applied{ConfigMap: configMap()}
	for i := range p.Forks {
		d := p.Forks[i].Deployment.DeepCopy()
		d.SetGeneration(1)
		a.Forks = append(a.Forks, d)
		var written []*unstructured.Unstructured
		for j := range p.Forks[i].Policies {
			written = append(written, object(t, typedPolicy(p.Forks[i].Policies[j].NetworkPolicy)))
		}
		a.Policies = append(a.Policies, written)
	}
	return a
}

// statuses are those of the forks of a plan, of which that of api has a pod.
func statuses(api, worker health.Report) map[string]sandboxes.ForkStatus {
	pod := corev1.Pod{
		Spec: corev1.PodSpec{Containers: []corev1.Container{
			{Name: "app", Image: "api:pr-42"}, {Name: "log", Image: "log:1"},
		}},
		Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{
			{Name: "app", ImageID: "registry.example.com/api@sha256:0123"}, {Name: "log"},
		}},
	}
	return map[string]sandboxes.ForkStatus{
		"api-pr-42":    {Report: api, Pods: []corev1.Pod{pod}},
		"worker-pr-42": {Report: worker},
	}
}

// printFork returns what f prints of forkPlan, applied and routed, after a change.
func printFork(t *testing.T, f Fork, change func(*operate.Forked)) string {
	t.Helper()
	routed := health.Report{State: health.StateRouted}
	p := forkPlan(t)
	done := &operate.Forked{Plan: p, Applied: applied(t, p), Statuses: statuses(routed, routed)}
	change(done)
	var out strings.Builder
	f.Out = &out
	if err := f.PrintForked(done); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestFork(t *testing.T) {
	routed := health.Report{State: health.StateRouted}
	for _, tt := range []struct {
		name, gateway string
		change        func(*operate.Forked)
		want          string
	}{
		{"routed", "preview.example.com", func(*operate.Forked) {}, `
networkpolicy.networking.k8s.io/api-pr-42-ingress created
deployment.apps/api-pr-42 forked
deployment.apps/worker-pr-42 configured
deployment.apps/api-pr-42 inherits: secret/db
deployment.apps/api-pr-42 lacks: a stable name
sandbox pr-42: key pr-42, routed in 1.24s, never expires
container app runs api:pr-42 (sha256:0123)
container log runs log:1
open it here:
  kubectl sandbox open pr-42 svc/api:8080 --context=dev --namespace=shop
  kubectl sandbox open pr-42 svc/worker:80 --context=dev --namespace=shop
reach it from inside the cluster:
  curl -H 'baggage: sandbox-key=pr-42' http://api.shop:8080/
  curl --http2-prior-knowledge -H 'baggage: sandbox-key=pr-42' http://worker.shop/
show it to others, at https://api--pr-42--shop.preview.example.com/:
  kubectl sandbox share pr-42 svc/api --context=dev --namespace=shop
show it to others, at https://worker--pr-42--shop.preview.example.com/:
  kubectl sandbox share pr-42 svc/worker --context=dev --namespace=shop
`},
		{"running, without a gateway, expired", "", func(d *operate.Forked) {
			d.Plan.Expires = noon().Add(-time.Minute)
			d.Plan.Forks, d.Applied.Forks = d.Plan.Forks[:1], d.Applied.Forks[:1]
			d.Plan.Forks[0].Reach = nil
			d.Statuses = statuses(health.Report{State: health.StateRunning}, routed)
		}, `
networkpolicy.networking.k8s.io/api-pr-42-ingress created
deployment.apps/api-pr-42 forked
deployment.apps/api-pr-42 inherits: secret/db
deployment.apps/api-pr-42 lacks: a stable name
sandbox pr-42: key pr-42, running in 1.24s, expired 60s ago
container app runs api:pr-42 (sha256:0123)
container log runs log:1
`},
		{"unchanged, and rebased to no replicas", "", func(d *operate.Forked) {
			d.Plan.Forks[0].Replaces, d.Plan.Forks[1].Rebased = 1, true
			d.Plan.Forks[0].Reach, d.Plan.Forks[1].Reach = nil, nil
			d.Statuses = statuses(routed, health.Report{Causes: []health.Cause{{Code: health.ScaledToZero}}})
		}, `
networkpolicy.networking.k8s.io/api-pr-42-ingress created
deployment.apps/api-pr-42 unchanged
deployment.apps/worker-pr-42 rebased
sandbox pr-42: key pr-42, never expires
container app runs api:pr-42 (sha256:0123)
container log runs log:1
`},
		{"not waited for", "", func(d *operate.Forked) { d.Statuses = nil }, `
networkpolicy.networking.k8s.io/api-pr-42-ingress created
deployment.apps/api-pr-42 forked
deployment.apps/worker-pr-42 configured
deployment.apps/api-pr-42 inherits: secret/db
deployment.apps/api-pr-42 lacks: a stable name
sandbox pr-42: key pr-42, never expires
wait until it is routed:
  kubectl rollout status deployment/api-pr-42 --context=dev --namespace=shop
wait until it is routed:
  kubectl rollout status deployment/worker-pr-42 --context=dev --namespace=shop
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := Fork{
				Objects: &Objects{Format: format("")},
				Globals: chosen(), Begun: noon(), Took: 1236 * time.Millisecond, Gateway: tt.gateway,
			}
			compare(t, printFork(t, f, tt.change), tt.want)
		})
	}
}

func TestFork_DryRunsAndFormats(t *testing.T) {
	for _, tt := range []struct {
		name, output string
		dryRun       operate.DryRun
		change       func(*operate.Forked)
		want         string
	}{
		{"server-side dry run", "", operate.DryRunServer, func(d *operate.Forked) { d.Statuses = nil }, `
networkpolicy.networking.k8s.io/api-pr-42-ingress created (server dry run)
deployment.apps/api-pr-42 forked (server dry run)
deployment.apps/worker-pr-42 configured (server dry run)
`},
		{"client-side dry run", "", operate.DryRunClient, func(d *operate.Forked) { d.Applied = nil }, `
networkpolicy.networking.k8s.io/api-pr-42-ingress created (dry run)
deployment.apps/api-pr-42 forked (dry run)
deployment.apps/worker-pr-42 configured (dry run)
deployment.apps/api-pr-42 inherits: secret/db
deployment.apps/api-pr-42 lacks: a stable name
`},
		{"names", "name", operate.DryRunNone, func(*operate.Forked) {}, `
configmap/sandbox-pr-42
networkpolicy.networking.k8s.io/api-pr-42-ingress
deployment.apps/api-pr-42
deployment.apps/worker-pr-42
`},
		{"a template, of one list", "jsonpath={.kind}: {.items[*].kind}", operate.DryRunClient,
			func(d *operate.Forked) { d.Applied = nil }, `List: ConfigMap NetworkPolicy Deployment Deployment`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := Fork{Objects: &Objects{Format: format(tt.output), DryRun: tt.dryRun}, Globals: chosen(), Begun: noon()}
			compare(t, printFork(t, f, tt.change), tt.want)
		})
	}
}

// A client-side dry run prints what can be committed: documents without owners.
func TestFork_PrintsADryRunWithoutOwners(t *testing.T) {
	p := forkPlan(t)
	p.Forks = p.Forks[1:]
	p.Forks[0].Deployment.Object["metadata"].(map[string]any)["ownerReferences"] = []any{map[string]any{"uid": "u"}}
	var out strings.Builder
	f := Fork{Objects: &Objects{Format: format("yaml"), DryRun: operate.DryRunClient, Out: &out}}
	if err := f.PrintForked(&operate.Forked{Plan: p}); err != nil {
		t.Fatal(err)
	}
	if strings.Count(out.String(), "---\n") != 1 || strings.Contains(out.String(), "ownerReferences") {
		t.Errorf("got\n%s", out.String())
	}
}
