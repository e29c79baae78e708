package operate

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/apply"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/open"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// sandboxConfigMap returns the ConfigMap of a sandbox without forks.
func sandboxConfigMap(name, team string) corev1.ConfigMap {
	return corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "sandbox-" + name, Labels: map[string]string{
			sandbox.LabelRole: sandbox.RoleSandbox, sandbox.LabelSandbox: name, "team": team,
		}},
		Data: map[string]string{sandbox.DataKey: name},
	}
}

// fakeInventories are read one after the other; the last one stays. Each change is an error, or nil.
type fakeInventories struct {
	all     [][]corev1.ConfigMap
	changes []error
}

func (f *fakeInventories) Inventory(context.Context, string) (*sandboxes.Inventory, error) {
	if len(f.all) == 0 {
		return nil, errors.New("can't be read")
	}
	v := &sandboxes.Inventory{ConfigMaps: f.all[0], Now: time.Now()}
	if len(f.all) > 1 {
		f.all = f.all[1:]
	}
	return v, nil
}

func (f *fakeInventories) WatchInventory(context.Context, string) <-chan error {
	changes := make(chan error, len(f.changes))
	for _, err := range f.changes {
		changes <- err
	}
	close(changes)
	return changes
}

func TestList_SelectsAndWatches(t *testing.T) {
	a, b, c := sandboxConfigMap("a", "x"), sandboxConfigMap("b", "y"), sandboxConfigMap("c", "x")
	for _, tt := range []struct {
		name     string
		o        ListOptions
		changes  []error
		shown    string
		updated  []string
		fails    bool
		selector string
	}{
		{name: "all", shown: "a,b"},
		{name: "by labels", selector: "team=x", shown: "a"},
		{name: "what is new", o: ListOptions{Watch: true}, changes: []error{nil, nil}, shown: "a,b", updated: []string{"c"}},
		{name: "what is new, by labels", o: ListOptions{Watch: true}, selector: "team=y", changes: []error{nil}, shown: "b"},
		{name: "until the watch fails", o: ListOptions{Watch: true}, changes: []error{errors.New("no"), nil},
			shown: "a,b", fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var shown string
			var updated []string
			l := List{
				Read: &fakeInventories{all: [][]corev1.ConfigMap{{a, b}, {a, b, c}}, changes: tt.changes},
				Show: func(v *sandboxes.Inventory) error { shown = namesOf(v.Sandboxes()); return nil },
				Update: func(_ *sandboxes.Inventory, changed []sandboxes.Sandbox) error {
					updated = append(updated, namesOf(changed))
					return nil
				},
			}
			if tt.selector != "" {
				tt.o.Selector = labels.SelectorFromSet(labels.Set{"team": tt.selector[len("team="):]})
			}
			err := l.Run(t.Context(), tt.o)
			if (err != nil) != tt.fails || shown != tt.shown || len(updated) != len(tt.updated) ||
				len(updated) > 0 && updated[0] != tt.updated[0] {
				t.Errorf("shown %s, updated %q, error %v", shown, updated, err)
			}
		})
	}
}

// fakeShares record what is shared.
type fakeShares struct {
	service, token string
	err            error
}

func (f *fakeShares) Share(_ context.Context, _, service, token string, expires time.Time) (*apply.Shared, error) {
	f.service, f.token = service, token
	return &apply.Shared{URL: "https://preview", Expires: expires}, f.err
}

func (f *fakeShares) Revoke(_ context.Context, _, service string) (int, error) {
	f.service = service
	return 2, f.err
}

func TestShare_GivesOutTheTokenThatWasStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &fakeShares{}
		s := Share{Read: &fakeInventories{}, Write: w}
		o := ShareOptions{Namespace: "shop", Name: "pr-42", Service: "svc/frontend", Lifetime: time.Hour}
		shared, err := s.Run(t.Context(), o)
		if err != nil || shared.Token != w.token || w.token == "" || w.service != "frontend" ||
			!shared.Expires.Equal(time.Now().Add(time.Hour)) {
			t.Errorf("got %v for %s, error %v", shared, w.service, err)
		}
		if n, err := s.Revoke(t.Context(), o); n != 2 || err != nil || w.service != "frontend" {
			t.Errorf("%d revoked for %s, error %v", n, w.service, err)
		}
		w.err = errors.New("no")
		if shared, err := s.Run(t.Context(), o); shared != nil || err == nil {
			t.Errorf("got %v, error %v", shared, err)
		}
	})
}

// fakeView has the Service api, whose pods are dialled with err.
type fakeView struct{ err error }

func (fakeView) Key(string) (string, bool)    { return "pr-42", true }
func (fakeView) Waiting(string) *health.Block { return nil }

func (fakeView) Service(_, name string) (*corev1.Service, bool) {
	return &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}}, name == "api"
}

func (v fakeView) Dial(context.Context, string, string, string) (net.Conn, error) {
	if v.err != nil {
		return nil, v.err
	}
	conn, other := net.Pipe()
	return conn, other.Close()
}

// fakeEntries are the sandbox pr-42, entered by the Service api.
type fakeEntries struct{}

func (fakeEntries) SandboxesNamed(
	_ context.Context,
	names []string,
) (found []sandboxes.Sandbox, missing []string, err error) {
	if names[0] != "pr-42" {
		return nil, names, nil
	}
	return []sandboxes.Sandbox{{Name: "pr-42", ConfigMap: &corev1.ConfigMap{}}}, nil, nil
}

func (fakeEntries) Entry(context.Context, []string) (plan.Entry, error) {
	return plan.Entry{Service: plan.ServiceRef{Name: "api", Namespace: "shop"}}, nil
}

func (fakeEntries) KeyCarriers(context.Context, string) (route.Carriers, error) {
	return route.Carriers{}, nil
}

func TestOpen_TriesTheService(t *testing.T) {
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "api-1", errors.New("portforward"))
	for _, tt := range []struct {
		name    string
		o       OpenOptions
		dial    error
		problem string
		fails   bool
		warns   bool
	}{
		{"that can be reached", OpenOptions{Name: "pr-42"}, nil, "", false, false},
		{"whose pods are not ready", OpenOptions{Name: "pr-42"}, io.EOF, "", false, true},
		{"whose pods must be ready", OpenOptions{Name: "pr-42", Reachable: true}, io.EOF,
			"can't be reached: EOF", true, false},
		{"that the caller may not reach", OpenOptions{Name: "pr-42"}, forbidden, "", true, false},
		{"that does not exist", OpenOptions{Name: "pr-42", Service: "svc/web"}, nil, `service "web" not found`, true, false},
		{"of a sandbox that does not exist", OpenOptions{Name: "pr-43"}, nil, `there is no sandbox "pr-43"`, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			report := &reported{}
			u := Open{Read: fakeEntries{}, Report: report, Watch: func(context.Context, string) (open.View, error) {
				return fakeView{tt.dial}, nil
			}}
			tt.o.Namespace = "shop"
			p, err := u.Connect(t.Context(), tt.o)
			if tt.problem != "" {
				wantProblem(t, err, tt.problem)
			}
			if (err != nil) != tt.fails || len(report.warnings) > 0 != tt.warns || !tt.fails && p.Entry.Port != "80" {
				t.Errorf("got %v, warnings %q", err, report.warnings)
			}
		})
	}
}

// fakeRouted have one routed namespace.
type fakeRouted struct{ read []string }

func (f *fakeRouted) Workloads(_ context.Context, args []string, _ string) ([]*plan.Workload, error) {
	f.read = args
	return nil, nil
}

func (f *fakeRouted) RoutedByNamespace(context.Context, string) ([]read.RoutedNamespace, error) {
	return []read.RoutedNamespace{{Namespace: "shop"}, {Namespace: "edge"}}, nil
}

func TestUnroute_Plans(t *testing.T) {
	for _, tt := range []struct {
		name   string
		o      UnrouteOptions
		opened []string
		plans  int
		fails  bool
	}{
		{"nothing where nothing is to be done", UnrouteOptions{All: true}, []string{"shop", "edge"}, 0, false},
		{"for what is named, also without steps", UnrouteOptions{Namespace: "shop", Workloads: []string{"deploy/api"}},
			[]string{"shop"}, 1, false},
		{"nothing for a Service that is missing", UnrouteOptions{Namespace: "shop", Services: []string{"api"}},
			[]string{"shop"}, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var opened []string
			u := Unroute{
				Read: &fakeRouted{},
				Open: func(_ context.Context, namespace string, _ []*plan.Workload) (Routing, error) {
					opened = append(opened, namespace)
					return &fakeRouting{}, nil
				},
			}
			plans, err := u.Plan(t.Context(), tt.o)
			if len(plans) != tt.plans || len(opened) != len(tt.opened) || (err != nil) != tt.fails {
				t.Errorf("%d plans in %q, error %v", len(plans), opened, err)
			}
			for _, p := range plans {
				if !p.Removes {
					t.Error("it does not remove routers")
				}
			}
		})
	}
}
