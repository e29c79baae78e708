package forks_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
)

func TestDiffs(t *testing.T) {
	w := workloadOf(t, `{spec: {containers: [{name: api, image: "api:1"}, {name: log, image: log}]}}`)
	o := options("api=api:2")
	p, err := forks.New(&o, []*plan.Workload{w}, &forks.State{Namespace: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	deployments := []unstructured.Unstructured{*p.Forks[0].Deployment}
	diffs, err := forks.Diffs("pr-42", []*plan.Workload{w}, deployments)
	if err != nil || len(diffs) != 1 {
		t.Fatal(diffs, err)
	}
	const want = `diff deployment.apps/api deployment.apps/api-pr-42
--- deployment.apps/api
+++ deployment.apps/api-pr-42
@@ -1,6 +1,6 @@
 spec:
   containers:
-  - image: api:1
+  - image: api:2
     name: api
   - image: log
     name: log
`
	if d := diffs[0]; d.Unified != want || d.Behind {
		t.Errorf("behind: %t, got\n%s", d.Behind, d.Unified)
	}
	newer := workloadOf(t, `{spec: {hostname: h, containers: [{name: api, image: "api:2"}]}}`)
	diffs, err = forks.Diffs("pr-42", []*plan.Workload{newer}, deployments)
	if err != nil || diffs[0].Unified != "" || string(diffs[0].Patch) != "[]" || !diffs[0].Behind {
		t.Errorf("on a baseline that has the change: %+v, %v", diffs, err)
	}
	other := workloadOf(t, `{spec: {containers: [{name: web}]}}`)
	if diffs, err = forks.Diffs("pr-42", []*plan.Workload{other}, deployments); err == nil {
		t.Errorf("on a baseline that the change does not fit: %+v", diffs)
	}
	if diffs, err = forks.Diffs("other", []*plan.Workload{w}, deployments); err == nil {
		t.Errorf("of a sandbox without a fork: %+v", diffs)
	}
}
