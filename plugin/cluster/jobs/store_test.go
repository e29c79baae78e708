package jobs

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func experiments(kube *fake.Clientset) *Experiments {
	return New(&cluster.Client{Namespace: "shop", Kube: kube})
}

func report(ended time.Time) *experiment.Report {
	run := &suite.Run{ID: "r1", Namespace: "shop"}
	r := experiment.NewReport(run, experiment.RequireAny, nil, []suite.Variant{{Name: "a"}}, false)
	r.Window.Ended = ended
	return r
}

func TestStartExperiment_ResumesOnlyItsOwn(t *testing.T) {
	ended := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name    string
		before  *experiment.Report // nil: there is none
		spec    string             // of that
		problem string
		began   bool
	}{
		{"there is none", nil, "", "", true},
		{"the same", report(time.Time{}), "spec", "", false},
		{"one of another specification", report(time.Time{}), "another", "is there already, of another suite", false},
		{"one that has ended", report(ended), "spec", "has ended, at 2026-03-01T10:00:00Z", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := experiments(fake.NewClientset())
			if tt.before != nil {
				if _, err := c.StartExperiment(t.Context(), tt.before, tt.spec, time.Time{}, false); err != nil {
					t.Fatal(err)
				}
			}
			e, err := c.StartExperiment(t.Context(), report(time.Time{}), "spec", time.Time{}, false)
			var p *plan.Problem
			switch {
			case tt.problem != "":
				if !errors.As(err, &p) || !strings.Contains(p.What, tt.problem) {
					t.Errorf("got %v", err)
				}
			case err != nil || e.Began != tt.began:
				t.Errorf("got %v, error %v", e, err)
			}
		})
	}
}

func TestExperiment_ThatIsMissing(t *testing.T) {
	other := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: sandbox.RunName("r1")}}
	for _, objects := range [][]runtime.Object{nil, {other}} {
		_, err := experiments(fake.NewClientset(objects...)).Experiment(t.Context(), "r1")
		var p *plan.Problem
		if !errors.As(err, &p) || !strings.Contains(p.What, `experiment "r1" not found`) {
			t.Errorf("got %v", err)
		}
	}
}

func variantSandbox(name, run string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: sandbox.ConfigMapName(name),
		Labels: map[string]string{sandbox.LabelRole: sandbox.RoleSandbox, sandbox.LabelSandbox: name, sandbox.LabelRun: run},
	}}
}

func TestAbandonExperiment_DeletesWhatItCreatedOrNamesIt(t *testing.T) {
	for _, tt := range []struct {
		name    string
		refuse  string // a name that can't be deleted
		left    []string
		remains []string
	}{
		{"all of it", "", nil, []string{"sandbox-b"}},
		{"but for a sandbox", "sandbox-a", []string{"configmap/sandbox-a"}, []string{"sandbox-a", "sandbox-b"}},
		{"but for itself", sandbox.RunName("r1"), []string{"configmap/" + sandbox.RunName("r1")},
			[]string{"sandbox-b", sandbox.RunName("r1")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kube := fake.NewClientset(variantSandbox("a", "r1"), variantSandbox("b", "another"))
			c := experiments(kube)
			e, err := c.StartExperiment(t.Context(), report(time.Time{}), "spec", time.Time{}, false)
			if err != nil {
				t.Fatal(err)
			}
			kube.PrependReactor("delete", "configmaps", func(a clienttesting.Action) (bool, runtime.Object, error) {
				refused := a.(clienttesting.DeleteAction).GetName() == tt.refuse //nolint:forcetypeassert // by its verb
				return refused, nil, errors.New("can't be deleted")
			})
			left, err := c.AbandonExperiment(t.Context(), e, []string{"a", "b", "gone"})
			if err != nil || !slices.Equal(left, tt.left) {
				t.Errorf("left %q, error %v", left, err)
			}
			list, err := kube.CoreV1().ConfigMaps("shop").List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var remains []string
			for i := range list.Items {
				remains = append(remains, list.Items[i].Name)
			}
			if slices.Sort(remains); !slices.Equal(remains, tt.remains) {
				t.Errorf("there is still %q, want %q", remains, tt.remains)
			}
		})
	}
}

func TestOverQuota(t *testing.T) {
	for message, want := range map[string]bool{
		`pods "a" is forbidden: exceeded quota: pods, requested: pods=1`: true,
		`pods "a" is forbidden: violates PodSecurity`:                    false,
	} {
		if overQuota(message) != want {
			t.Errorf("%s: %t", message, !want)
		}
	}
}
