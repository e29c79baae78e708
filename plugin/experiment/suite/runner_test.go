package suite

import (
	"slices"
	"testing"
)

func TestRunner(t *testing.T) {
	r := Runner{Image: "reg/kubectl-sandbox:1", ServiceAccount: "ci", Args: []string{"test", "a", "--id=r1"}, Suite: "one"}
	suites, job := r.Objects(&Run{ID: "r1", Namespace: "shop", UID: "u"})
	pod := job.Spec.Template.Spec
	if got := pod.Containers[0].Args; !slices.Equal(got, []string{"test", "a", "--id=r1", "--filename=/suite/suite.yaml"}) {
		t.Errorf("args %q", got)
	}
	if suites.Data["suite.yaml"] != "one" || pod.Volumes[0].ConfigMap.Name != suites.Name {
		t.Errorf("suites %+v", suites)
	}
	if pod.ServiceAccountName != "ci" || !*pod.AutomountServiceAccountToken || !*pod.Containers[0].SecurityContext.RunAsNonRoot {
		t.Errorf("pod %+v", pod)
	}
	for _, o := range [][]string{{suites.Namespace, string(suites.OwnerReferences[0].UID)}, {job.Namespace, string(job.OwnerReferences[0].UID)}} {
		if o[0] != "shop" || o[1] != "u" {
			t.Errorf("is the run's: %v", o)
		}
	}
	if len(r.Args) != 3 {
		t.Errorf("args were changed: %q", r.Args)
	}
}
