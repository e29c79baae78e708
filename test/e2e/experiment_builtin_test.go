package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/hotrod"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// What HotROD's customer service promises its callers.
const customerContract = `openapi: 3.0.3
info: {title: customer, version: "1"}
paths:
  /customer:
    get:
      parameters: [{name: customer, in: query, required: true, schema: {type: string}, example: "123"}]
      responses:
        "200":
          description: a customer
          content:
            application/json:
              schema: {type: object, required: [ID, Name, Location]}
`

// builtIn is a built-in check of HotROD's customer service, whose files are in ConfigMap "suite".
func builtIn(name, annotations, args string) string {
	return fmt.Sprintf(`---
apiVersion: batch/v1
kind: Job
metadata: {name: %s, annotations: {kubectl-sandbox.dev/services: customer%s}}
spec:
  template:
    spec:
      containers:
      - {name: probe, image: sandbox-probe, args: [%s], volumeMounts: [{name: suite, mountPath: /suite}]}
      volumes: [{name: suite, configMap: {name: suite}}]
`, name, annotations, args)
}

// HotROD's customer service, whose database takes as long for every request, beside the same once more, one whose database is 80 ms
// slower, and Caddy, which answers at once and in another shape. Load and contract are told from each other: each finds what is its own to find.
func TestBuiltInChecksTellVariantsOfHotRODApart(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "suite"}, Data: map[string]string{
		"customer.yaml": customerContract, "targets.txt": "GET /customer?customer=123\n\nGET /customer?customer=392\n",
	}})
	s.hotrodAlone(hotrod.Customer, apps.HotrodEven)
	s.sandbox("fork", "deploy/customer", "--name=same", "--image="+apps.HotrodEven, "--env=X=1")
	s.sandbox("fork", "deploy/customer", "--name=slow", "--image="+apps.HotrodSlow)
	s.sandbox("fork", "deploy/customer", "--name=other", "--image="+apps.Caddy,
		`--args=["respond", "--listen=:8081", "--header=Content-Type: application/json", "{\"id\": 123}"]`)
	html := filepath.Join(t.TempDir(), "out.html")
	r := s.tested(0, "same", "slow", "other", "--id=b1", "--report=html="+html, "--filename="+s.suite(
		builtIn("promise", "", "contract, openapi, --document=/suite/customer.yaml"),
		// The suite runs beside others: what is asked for here is far from what that may do to a database of 200 ms.
		builtIn("latency", ", kubectl-sandbox.dev/thresholds: 'p50<=baseline+20%, errors<=baseline+10%'",
			"load, --requests=/suite/targets.txt, --rate=50, --duration=30s, --round=1s, --warm-up=2s"),
	))
	same, slow, other := r.Variant("same"), r.Variant("slow"), r.Variant("other")
	s.judged("same", same.Verdict, experiment.Passed, "")
	s.judged("slow's contract", slow.Result("promise").Verdict, experiment.Passed, "")
	s.judged("slow's latency", slow.Result("latency").Verdict, experiment.Failed, experiment.BudgetMissed)
	s.judged("other's contract", other.Result("promise").Verdict, experiment.Failed, experiment.ContractBroken)
	if m := slow.Result("latency").Measured; m == nil || len(m.Shares) == 0 || m.Differences[0].Low <= 0 || m.Differences[0].High < 0.05 {
		t.Errorf("slow is slower by 80 ms, and measured is %+v", m)
	}
	if c := other.Result("promise").Contract; c == nil || c.Operations != 1 || len(c.Findings) == 0 {
		t.Errorf("other's contract: %+v", c)
	}
	if b, err := os.ReadFile(html); err != nil || !strings.Contains(string(b), "<svg") || !strings.Contains(string(b), "breaks the contract of GET /customer") {
		t.Errorf("report in HTML: %v", err)
	}
	if l := r.Checks[1].Load; l == nil || l.Requests < 50 {
		t.Errorf("load %+v", l)
	}
}

// podinfo's gRPC services are compared by the reflection that each of its pods serves.
func TestABuiltInCheckComparesServicesOfGRPC(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("api", 1), podinfoService("api"), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "suite"}})
	s.available("api")
	s.sandbox("route", "deploy/api")
	s.sandbox("fork", "deploy/api", "--name=same", "--env=X=1")
	check := strings.Replace(builtIn("calls", "", "contract, grpc"), "services: customer", "services: 'api:grpc'", 1)
	r := s.tested(0, "same", "--id=g1", "--filename="+s.suite(check))
	v := r.Variant("same")
	s.judged("same", v.Verdict, experiment.Passed, "")
	if c := v.Result("calls").Contract; c == nil || c.Protocol != "grpc" || c.Operations < 2 {
		t.Errorf("compared %+v", c)
	}
}

// An experiment is left to the cluster, and read when it is done.
func TestAnExperimentNobodyWaitsFor(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.hotrodAlone(hotrod.Frontend, apps.Hotrod)
	suite := "--filename=" + s.suite(suiteJob("answers", "", "check", "http", "$(SANDBOX_URL)/config"))
	command := []string{"deploy/frontend", "--variant=a=" + apps.HotrodFast, "--variant=b=" + apps.HotrodMoved, "--entry=svc/frontend", "--delete=losers", suite, "--wait=false"}
	if r := s.trySandbox(append([]string{"test", "--id=w0", "--service-account=pipeline"}, command...)...); exitStatus(r.err) != 3 ||
		!strings.Contains(r.stderr, `serviceaccount "pipeline" not found`) || !strings.Contains(r.stderr, "nothing of it is left") {
		t.Errorf("without the service account: %v", r)
	}
	s.kubectl("create", "serviceaccount", "pipeline")
	s.kubectl("create", "rolebinding", "pipeline", "--clusterrole=sandbox-user", "--serviceaccount="+s.name+":pipeline")
	made := s.sandbox(append([]string{"test", "--id=w1", "--service-account=pipeline"}, command...)...)
	if !strings.Contains(made.stdout, "job.batch/sandbox-run-w1 created") {
		t.Errorf("said %v", made)
	}
	r := s.trySandbox("report", "w1", "--wait")
	if exitStatus(r.err) != 0 || !strings.Contains(r.stdout, "best: a") {
		t.Errorf("found %v", r)
	}
	for name, there := range map[string]bool{"w1-a": true, "w1-b": false} {
		eventually(t, time.Minute, fmt.Sprintf("sandbox %s is there: %v", name, there), func(ctx context.Context) error {
			_, err := s.client.CoreV1().ConfigMaps(s.name).Get(ctx, sandbox.ConfigMapName(name), metav1.GetOptions{})
			if there == apierrors.IsNotFound(err) {
				return fmt.Errorf("got %w", err)
			}
			return nil
		})
	}
	if r := s.trySandbox(append([]string{"test", "--id=w1", "--service-account=pipeline"}, command...)...); exitStatus(r.err) != 3 ||
		!strings.Contains(r.stderr, `experiment "w1" has ended`) {
		t.Errorf("once more: %v", r)
	}
	s.kubectl("delete", "configmap", sandbox.RunName("w1"))
	eventually(t, time.Minute, "its Jobs go with it", func(context.Context) error {
		if left := s.kubectl("get", "jobs,pods,configmaps", "-o", "name", "-l", sandbox.LabelRun+"=w1,"+sandbox.LabelSandbox+"!=w1-a"); left != "" {
			return fmt.Errorf("%s", left)
		}
		return nil
	})
}
