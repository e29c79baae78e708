package printer

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
)

// routePlan switches Service api, writes deployment api twice, adds a policy, and takes another away. Deployment idle
// and Service old, which are named as well, need no change.
func routePlan(t *testing.T) *operate.RoutePlan {
	t.Helper()
	workload := func(name string) *plan.Workload {
		d := deployment(name, nil)
		d.Name = name
		return &plan.Workload{Object: object(t, typedFork(d)), Resource: appsv1.Resource("deployments")}
	}
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "api", Namespace: "shop", UID: "u"}}
	old := service.DeepCopy()
	old.Name = "old"
	added, gone := policy(), policy()
	added.Name, gone.Name = "api-router", "gone"
	api := workload("api")
	write := func(resource schema.GroupVersionResource, name, object string) routes.Write {
		return routes.Write{Resource: resource, Name: name, Object: object}
	}
	deployments := appsv1.SchemeGroupVersion.WithResource("deployments")
	policies := schema.GroupVersionResource{Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"}
	names, labels := write(deployments, "api", api.String()), write(deployments, "api", api.String())
	names.After, labels.After = api.Object, api.Object
	switched := write(corev1.SchemeGroupVersion.WithResource("services"), "api", "service/api")
	switched.After = object(t, typedService(service))
	create := write(policies, "api-router", "networkpolicy.networking.k8s.io/api-router")
	create.Create = object(t, typedPolicy(added))
	remove := write(policies, "gone", "networkpolicy.networking.k8s.io/gone")
	remove.Before, remove.Delete = object(t, typedPolicy(gone)), "u"
	return &operate.RoutePlan{
		Targets: []*plan.Workload{api, workload("idle")}, Services: []*corev1.Service{old},
		Steps: []*routes.Step{
			{Writes: []routes.Write{names}}, {Writes: []routes.Write{switched, create}},
			{Writes: []routes.Write{labels, remove}},
		},
	}
}

// written are the writes of a plan, with the objects that they result in.
func written(p *operate.RoutePlan) (all []operate.RouteWritten) {
	for _, step := range p.Steps {
		for _, w := range step.Writes {
			var object *unstructured.Unstructured
			for _, o := range []*unstructured.Unstructured{w.After, w.Create, w.Before} {
				if o != nil {
					object = o
				}
			}
			all = append(all, operate.RouteWritten{Write: w, Object: object})
		}
	}
	return all
}

func TestRoute(t *testing.T) {
	for _, tt := range []struct {
		name, output string
		dryRun       operate.DryRun
		done         func(*Route) []Done
		want         string
	}{
		{"done", "", operate.DryRunNone, func(r *Route) []Done { return r.Done(written(r.Plan)) }, `
deployment.apps/api routed
service/api configured
networkpolicy.networking.k8s.io/api-router created
networkpolicy.networking.k8s.io/gone deleted
deployment.apps/idle unchanged
service/old unchanged
`},
		{"client-side dry run", "", operate.DryRunClient, func(r *Route) []Done { return r.Planned() }, `
deployment.apps/api routed (dry run)
service/api configured (dry run)
networkpolicy.networking.k8s.io/api-router created (dry run)
networkpolicy.networking.k8s.io/gone deleted (dry run)
deployment.apps/idle unchanged (dry run)
service/old unchanged (dry run)
`},
		{"server-side dry run that fails", "", operate.DryRunServer,
			func(r *Route) []Done { return r.Tried(written(r.Plan)[:1]) }, `
deployment.apps/api routed (server dry run)
deployment.apps/idle unchanged (server dry run)
service/old unchanged (server dry run)
`},
		{"names", "name", operate.DryRunNone, func(r *Route) []Done { return r.Done(written(r.Plan)[:2]) }, `
deployment.apps/api
service/api
deployment.apps/idle
service/old
`},
		{"a template, of one object", "jsonpath={.kind}", operate.DryRunNone, func(r *Route) []Done {
			return r.Done(written(r.Plan)[:1])[:1]
		}, `Deployment`},
		{"a template, of several", "jsonpath={.kind}", operate.DryRunNone, func(r *Route) []Done {
			return r.Done(written(r.Plan))
		}, `List`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			p := &Objects{Format: format(tt.output), DryRun: tt.dryRun, Out: &out}
			if err := p.PrintDone(tt.done(&Route{Plan: routePlan(t), Verbed: "routed"})); err != nil {
				t.Fatal(err)
			}
			compare(t, out.String(), tt.want)
		})
	}
}

func TestRoute_ServicesHint(t *testing.T) {
	p := routePlan(t)
	var out strings.Builder
	(&Route{Plan: p}).ServicesHint(&out)
	p.Steps = p.Steps[:1]
	(&Route{Plan: p}).ServicesHint(&out)
	compare(t, out.String(), "Apply the Services only when the workloads have rolled out: "+
		"a Service loses pods whose ports lack the name it goes to.\n")
}

func TestPartlyRouted(t *testing.T) {
	for removes, want := range map[bool]string{
		false: `
changed so far: deployment.apps/api, service/api
to go on: kubectl sandbox route deployment/api deployment/idle --context=dev --namespace=shop
to go back: kubectl sandbox unroute deployment/api deployment/idle --context=dev --namespace=shop
`,
		true: `
changed so far: deployment.apps/api, service/api
to go on: kubectl sandbox unroute deployment/api deployment/idle --context=dev --namespace=shop
to go back: kubectl sandbox route deployment/api deployment/idle --context=dev --namespace=shop
`,
	} {
		p := routePlan(t)
		p.Removes = removes
		var out strings.Builder
		PartlyRouted(&out, &operate.PartlyRouted{Plan: p, Changed: []string{"deployment.apps/api", "service/api"}}, chosen())
		compare(t, out.String(), want)
	}
}

func TestRoutes(t *testing.T) {
	now := noon()
	made := since(3 * time.Hour)
	route := func(name, workload, state string, ready int32, requests status.Requests) status.Route {
		return status.Route{
			Sandbox: name, Key: "key-" + name, Fork: workload + "-" + name, State: state, CreationTimestamp: &made,
			Replicas: 1, ReadyReplicas: ready, Requests: requests,
		}
	}
	workload := func(name, state string, pods, routers int, all ...status.Route) status.RouteStatus {
		return status.RouteStatus{
			Metadata: status.Metadata{Name: name, Namespace: "shop", CreationTimestamp: &made},
			Workload: "deployment/" + name, State: state, Pods: pods, Routers: routers, Routes: all,
		}
	}
	list := status.RouteStatusList{Items: []status.RouteStatus{
		workload("api", "Routed", 2, 2, route("pr-1", "api", "Routed", 1, status.Requests{Fork: 7, Refused: 2}),
			route("pr-2", "api", "Waiting", 0, status.Requests{})),
		workload("idle", "Routed", 1, 1),
		workload("web", "NotRouted", 2, 1,
			route("pr-1", "web", "Routed", 1, status.Requests{Fork: 3, Baseline: 1, Unfinished: 1})),
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
