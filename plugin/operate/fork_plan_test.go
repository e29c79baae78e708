package operate

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
)

const unroutedText = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: shop, uid: "7", generation: 1}
spec:
  replicas: 1
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec:
      containers:
      - name: api
        image: api:1
        ports: [{name: http, containerPort: 8080}]
status: {observedGeneration: 1, replicas: 1, updatedReplicas: 1, readyReplicas: 1, availableReplicas: 1}
`

// fakeUnrouted is a namespace with a Deployment that has no routers, behind a Service.
type fakeUnrouted struct {
	fakeRouting
	api     *plan.Workload
	service corev1.Service

	opened    bool
	admission error
}

func newUnrouted(t *testing.T) *fakeUnrouted {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(unroutedText), &u.Object); err != nil {
		t.Fatal(err)
	}
	return &fakeUnrouted{
		api: plan.NewWorkload(u, schema.GroupResource{Group: "apps", Resource: "deployments"}, ""),
		service: corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "api", Namespace: "shop", UID: "8"},
			Spec: corev1.ServiceSpec{
				Selector: map[string]string{"app": "api"},
				Ports:    []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http"), Protocol: corev1.ProtocolTCP}},
			},
		},
	}
}

func (f *fakeUnrouted) ReadFork(
	_ context.Context, _ []string, _ *forks.Options,
) ([]*plan.Workload, *forks.State, error) {
	return []*plan.Workload{f.api}, &forks.State{Namespace: "shop", Services: []corev1.Service{f.service}}, nil
}

func (f *fakeUnrouted) View(context.Context) (*routes.View, error) {
	return &routes.View{Targets: []*plan.Workload{f.api}, Services: []*corev1.Service{&f.service}}, nil
}

func (f *fakeUnrouted) Admission(context.Context, *routes.View) error { return f.admission }

func (f *fakeUnrouted) open(context.Context, []*plan.Workload) (Routing, error) {
	f.opened = true
	return f, nil
}

func (f *fakeUnrouted) fork(ctx context.Context, t *testing.T, o ForkOptions) (*Forked, *fakeForkWriter, error) {
	t.Helper()
	image, err := forks.ParseImage("api:2")
	if err != nil {
		t.Fatal(err)
	}
	o.Workloads, o.Change.Sandbox, o.Change.NewKey = []string{"deploy/api"}, "pr-42", "key"
	o.Change.Images = []forks.ImageChange{image}
	w := &fakeForkWriter{}
	use := Fork{Read: f, Write: w, Open: f.open, Report: &reported{}}
	done, err := use.Run(ctx, o)
	return done, w, err
}

func TestFork_RefusesAWorkloadWithoutRouters(t *testing.T) {
	f := newUnrouted(t)
	done, w, err := f.fork(t.Context(), t, ForkOptions{})
	wantProblem(t, err, "deployment.apps/api")
	if done != nil || len(w.runs) > 0 || len(f.writes) > 0 || !f.opened {
		t.Errorf("got %v, %d writes of forks, %q of routing", done, len(w.runs), f.writes)
	}
}

func TestFork_PlansRoutingAndRollsNothingOutInADryRun(t *testing.T) {
	f := newUnrouted(t)
	done, w, err := f.fork(t.Context(), t, ForkOptions{DryRun: DryRunClient, Change: forks.Options{Route: true}})
	if err != nil {
		t.Fatal(err)
	}
	if len(done.Plan.Forks) != 1 || len(w.runs) > 0 || len(f.writes) > 0 || !f.opened {
		t.Errorf("got %v, %d writes of forks, %q of routing", done.Plan, len(w.runs), f.writes)
	}
}

func TestFork_RoutesNothingThatAdmissionWouldGiveNoRouter(t *testing.T) {
	f := newUnrouted(t)
	f.admission = errors.New("no router")
	done, w, err := f.fork(t.Context(), t, ForkOptions{Change: forks.Options{Route: true}})
	if !errors.Is(err, f.admission) || done != nil || len(w.runs) > 0 || len(f.writes) > 0 {
		t.Errorf("got %v, error %v, %d writes of forks, %q of routing", done, err, len(w.runs), f.writes)
	}
}

func TestFork_WritesNoForkIfRoutingFails(t *testing.T) {
	f := newUnrouted(t)
	f.errs = []error{errors.New("no")}
	done, w, err := f.fork(t.Context(), t, ForkOptions{Change: forks.Options{Route: true}})
	if err == nil || done != nil || len(w.runs) > 0 || len(f.writes) != 1 {
		t.Errorf("got %v, error %v, %d writes of forks, %q of routing", done, err, len(w.runs), f.writes)
	}
}
