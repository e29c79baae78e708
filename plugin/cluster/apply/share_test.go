package apply

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/policies"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func gateway() *admissionv1.MutatingWebhookConfiguration {
	return &admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{
		Name: cluster.WebhookConfiguration, Annotations: map[string]string{sandbox.AnnotationGateway: "preview.example.com"},
	}}
}

func service(namespace, name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
}

func edge(entry string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "edge", Labels: map[string]string{sandbox.LabelEntry: entry}}}
}

// problem returns what a Problem says, with its command; of another error, its text.
func problem(err error) string {
	var p *plan.Problem
	switch {
	case errors.As(err, &p):
		return p.What + ": " + plan.Quote(p.Fix)
	case err != nil:
		return err.Error()
	}
	return ""
}

func no(resource string) error {
	return apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "", errors.New("no"))
}

func TestShare(t *testing.T) {
	for _, tt := range []struct {
		name    string
		objects []runtime.Object
		service string
		refuse  string // a resource that may not be read
		url     string
		problem string
	}{
		{"by a Service", []runtime.Object{gateway(), configMap(), service("shop", "web")}, "web", "",
			"https://web--pr-42--shop.preview.example.com/", ""},
		{"not by one that is missing", []runtime.Object{gateway(), configMap()}, "web", "", "",
			`service "web" not found in namespace "shop": kubectl get services`},
		{"not where there is no gateway", []runtime.Object{configMap()}, "web", "", "", "no gateway serves previews"},
		{"not of a sandbox that does not exist", []runtime.Object{gateway()}, "web", "", "", `there is no sandbox "pr-42"`},
		{"by a Service of a namespace that lets it", []runtime.Object{
			gateway(), configMap(), edge(sandbox.EntryAllowed), service("edge", "web"),
		}, "web.edge", "", "https://web-edge-pr-42-4wijyvbpgsgzfmiu.preview.example.com/", ""},
		{"not by one of a namespace that does not", []runtime.Object{gateway(), configMap(), edge(""), service("edge", "web")},
			"web.edge", "", "", `namespace "edge" does not let sandboxes of other namespaces be entered`},
		{"not by a Service that the other namespace lacks", []runtime.Object{gateway(), configMap(), edge(sandbox.EntryAllowed)},
			"web.edge", "", "", `services "web" not found`},
		{"as far as the caller may know", []runtime.Object{gateway(), configMap()}, "web.edge", "namespaces",
			"https://web-edge-pr-42-4wijyvbpgsgzfmiu.preview.example.com/", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, tt.objects...)
			if tt.refuse != "" {
				s.kube.PrependReactor("get", tt.refuse, func(clienttesting.Action) (bool, runtime.Object, error) {
					return true, nil, no(tt.refuse)
				})
			}
			shared, err := s.writer().Share(t.Context(), "pr-42", tt.service, "token", time.Now().Add(time.Hour))
			if tt.problem != "" {
				if !strings.Contains(problem(err), tt.problem) {
					t.Errorf("got %q, want %q", problem(err), tt.problem)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if shared.URL != tt.url || shared.Service != tt.service {
				t.Errorf("got %+v, want %s", shared, tt.url)
			}
			if n, err := s.writer().Revoke(t.Context(), "pr-42", "another"); n != 0 || err != nil {
				t.Errorf("revoked %d of another Service, error %v", n, err)
			}
			if n, err := s.writer().Revoke(t.Context(), "pr-42", tt.service); n != 1 || err != nil || s.remains(t) != "sandbox-pr-42" {
				t.Errorf("revoked %d, error %v; stored %s", n, err, s.remains(t))
			}
		})
	}
}

func TestRevoke_OfASandboxThatDoesNotExist(t *testing.T) {
	if _, err := newServer(t).writer().Revoke(t.Context(), "pr-42", ""); !strings.Contains(problem(err), `there is no sandbox "pr-42"`) {
		t.Errorf("got %v", err)
	}
}

// What the ConfigMap owns is left to the garbage collector.
func TestDelete_DeletesWhatNothingOwns(t *testing.T) {
	owned, left := ownedDeployment("api-pr-42"), ownedDeployment("web-pr-42")
	left.OwnerReferences, left.UID = nil, "2"
	alone := networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-pr-42", UID: "3"}}
	kept := networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api-pr-42", OwnerReferences: owner(configMap())},
	}
	all := &sandboxes.Sandbox{
		Namespace: "shop", Name: "pr-42", ConfigMap: configMap(),
		Forks: []appsv1.Deployment{*owned, *left}, Policies: []networkingv1.NetworkPolicy{alone, kept},
	}
	for _, tt := range []struct {
		name    string
		refused error // of all deletions
		dryRun  bool
		deleted string
		problem string
	}{
		{"each by its UID", nil, false, "configmaps/sandbox-pr-42=1 deployments/web-pr-42=2 networkpolicies/web-pr-42=3", ""},
		{"on trial", nil, true, "configmaps/sandbox-pr-42=1 deployments/web-pr-42=2 networkpolicies/web-pr-42=3", ""},
		{"but not what came in its place", apierrors.NewConflict(schema.GroupResource{}, "x", errors.New("uid")), false,
			"configmaps/sandbox-pr-42=1 deployments/web-pr-42=2 networkpolicies/web-pr-42=3", ""},
		{"up to what it may not", no("configmaps"), false, "configmaps/sandbox-pr-42=1", "not allowed: configmaps"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			var deleted []string
			s.kube.PrependReactor("delete", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
				d := a.(clienttesting.DeleteActionImpl) //nolint:forcetypeassert // by its verb
				uid := string(*d.DeleteOptions.Preconditions.UID)
				deleted = append(deleted, d.Resource.Resource+"/"+d.Name+"="+uid)
				if slices.Contains(d.DeleteOptions.DryRun, metav1.DryRunAll) != tt.dryRun {
					t.Errorf("%s: dry run %q", d.Name, d.DeleteOptions.DryRun)
				}
				return true, nil, tt.refused
			})
			err := s.writer().Delete(t.Context(), all, tt.dryRun)
			if got := strings.Join(deleted, " "); got != tt.deleted || !strings.HasPrefix(problem(err), tt.problem) ||
				(err != nil) != (tt.problem != "") {
				t.Errorf("deleted %q, want %q; error %v", got, tt.deleted, err)
			}
		})
	}
}

func TestApply_TakesOverOnlyFromItsFormerVersion(t *testing.T) {
	cause := func(manager string) metav1.StatusCause {
		return metav1.StatusCause{Type: metav1.CauseTypeFieldManagerConflict, Message: `conflict with "` + manager + `"`}
	}
	for _, tt := range []struct {
		name   string
		causes []metav1.StatusCause
		forced bool
	}{
		{"all fields of it", []metav1.StatusCause{cause(sandbox.FormerFieldManager)}, true},
		{"not others' too", []metav1.StatusCause{cause(sandbox.FormerFieldManager), cause("helm")}, false},
		{"nothing of unknown cause", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			forced := false
			s.dynamic.PrependReactor("patch", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
				p := a.(clienttesting.PatchActionImpl) //nolint:forcetypeassert // by its verb
				if forced = p.PatchOptions.Force != nil && *p.PatchOptions.Force; forced {
					return true, deployment("api"), nil
				}
				return true, nil, apierrors.NewApplyConflict(tt.causes, "conflicts")
			})
			_, err := s.writer().Apply(t.Context(), cluster.Deployments(), deployment("api"), false, false)
			if forced != tt.forced || apierrors.IsConflict(err) == tt.forced {
				t.Errorf("forced %t, error %v", forced, err)
			}
		})
	}
}

func TestApplyFork_OfAPlanThatIsStale(t *testing.T) {
	s := newServer(t, configMap())
	if _, err := s.writer().ApplyFork(t.Context(), forked(false), false); !IsStale(err) || s.remains(t) != "sandbox-pr-42" {
		t.Errorf("created by somebody else: got %v, stored %s", err, s.remains(t))
	}
	s = newServer(t)
	if _, err := s.writer().ApplyFork(t.Context(), forked(true), false); !IsStale(err) {
		t.Errorf("deleted meanwhile: got %v", err)
	}
}

func TestApplyFork_DeletesPoliciesThatItAdded(t *testing.T) {
	named := func(name string) *networkingv1.NetworkPolicy {
		return &networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, OwnerReferences: owner(configMap())},
		}
	}
	for _, tt := range []struct {
		name    string
		before  *networkingv1.NetworkPolicy // changed by the plan
		refuse  error                       // of the policy; else the fork is refused
		problem string
		remains int
	}{
		{"added", nil, nil, "", 0},
		{"changed, which stays", func() *networkingv1.NetworkPolicy {
			p := named("added")
			p.Labels = map[string]string{"x": "y"}
			return p
		}(),
			nil, "networkpolicy.networking.k8s.io/added", 1},
		{"that others changed", nil, apierrors.NewApplyConflict(nil, "conflict with helm"),
			"networkpolicy/added was changed by others than this command: conflict with helm", 0},
		{"that may not be written", nil, no("networkpolicies"), "not allowed: networkpolicies", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t, configMap())
			s.apply = refuse("api-pr-42")
			s.dynamic.PrependReactor("patch", "networkpolicies", func(clienttesting.Action) (bool, runtime.Object, error) {
				if tt.refuse != nil {
					return true, nil, tt.refuse
				}
				return true, deployment("added"), s.kube.Tracker().Add(named("added"))
			})
			p := forked(true)
			p.Forks[0].Replaces = 0
			p.Forks[0].Policies = []policies.Policy{{NetworkPolicy: named("added"), Before: tt.before}}
			_, err := s.writer().ApplyFork(t.Context(), p, false)
			list, listErr := s.kube.NetworkingV1().NetworkPolicies("shop").List(t.Context(), metav1.ListOptions{})
			if err == nil || !strings.Contains(err.Error(), tt.problem) || listErr != nil || len(list.Items) != tt.remains {
				t.Errorf("got %v; %d policies remain, want %d", err, len(list.Items), tt.remains)
			}
		})
	}
}
