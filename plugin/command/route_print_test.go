package command

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func TestPrintRoutes(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	fork := func(name, workload string, ready int32) appsv1.Deployment {
		return appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "shop", Name: workload + "-" + name, CreationTimestamp: metav1.NewTime(now.Add(-3 * time.Hour)),
				Labels:      map[string]string{sandbox.LabelSandbox: name, sandbox.LabelRole: sandbox.RoleFork, sandbox.LabelWorkload: "deployment." + workload},
				Annotations: map[string]string{sandbox.AnnotationKey: "key-" + name},
			},
			Status: appsv1.DeploymentStatus{ReadyReplicas: ready},
		}
	}
	config := func(name, role, counts string) corev1.ConfigMap {
		return corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: sandbox.ConfigMapName(name), Labels: map[string]string{sandbox.LabelRole: role}},
			Data:       map[string]string{sandbox.DataCounts: counts},
		}
	}
	rows := plan.RouteRows(
		[]appsv1.Deployment{fork("pr-2", "api", 0), fork("pr-1", "web", 1), fork("pr-1", "api", 1), fork("theirs", "api", 1)},
		[]corev1.ConfigMap{
			config("pr-1", sandbox.RoleSandbox, `{"deployment.api":{"fork":7,"refused":2},"deployment.web":{"fork":3,"fellBack":1,"unfinished":1}}`),
			config("pr-2", sandbox.RoleSandbox, "not written yet"),
			config("theirs", "", `{"deployment.api":{"fork":9}}`), // not a sandbox's: its counts are not believed
		})
	for _, tt := range []struct {
		name       string
		namespaces bool
		want       string
	}{
		{"of one namespace", false, `
SANDBOX   KEY          WORKLOAD         READY   REQUESTS                          AGE
pr-1      key-pr-1     deployment/api   1/1     9 (2 refused)                     3h
pr-1      key-pr-1     deployment/web   1/1     4 (1 to the baseline, 1 broken off)   3h
pr-2      key-pr-2     deployment/api   0/1     0                                 3h
theirs    key-theirs   deployment/api   1/1     0                                 3h
`},
		{"of all", true, `
NAMESPACE SANDBOX   KEY          WORKLOAD         READY   REQUESTS AGE
shop pr-1      key-pr-1     deployment/api   1/1     9 (2 refused) 3h
shop pr-1      key-pr-1     deployment/web   1/1     4 (1 to the baseline, 1 broken off) 3h
shop pr-2      key-pr-2     deployment/api   0/1     0 3h
shop theirs    key-theirs   deployment/api   1/1     0 3h
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			if err := printRoutes(&out, tableFlags{print: genericclioptions.NewPrintFlags("")}, rows, tt.namespaces, now); err != nil {
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
