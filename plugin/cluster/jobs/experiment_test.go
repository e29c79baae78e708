package jobs

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// An outcome that no experiment writes is no report, and is not shown.
func TestExperiment_ReadsNoOutcomeOfSomebodysOwn(t *testing.T) {
	for outcome, valid := range map[experiment.Outcome]bool{experiment.Passed: true, "passed, says mallory": false} {
		r := experiment.NewReport(&suite.Run{ID: "r1", Namespace: "shop"}, experiment.RequireAny, nil, []suite.Variant{{Name: "a"}}, false)
		r.Variants[0].Outcome = outcome
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		c := New(&cluster.Client{Namespace: "shop", Kube: fake.NewClientset(&corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: sandbox.RunName("r1"), Labels: map[string]string{sandbox.LabelRole: sandbox.RoleRun}},
			Data:       map[string]string{dataReport: string(data)},
		})})
		_, err = c.Experiment(t.Context(), "r1")
		var p *plan.Problem
		switch {
		case valid && err != nil:
			t.Errorf("%s: %v", outcome, err)
		case !valid && (!errors.As(err, &p) || !strings.Contains(p.What, `outcome "passed, says mallory" is none of`) || len(p.Fix) == 0):
			t.Errorf("%s: got %v", outcome, err)
		}
	}
}
