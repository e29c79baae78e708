package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/hotrod"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A test of a suite: podinfo's client, which knows nothing of sandboxes.
func suiteJob(name, annotations string, args ...string) string {
	quoted, _ := json.Marshal(args)
	return fmt.Sprintf(`---
apiVersion: batch/v1
kind: Job
metadata:
  name: %s
  annotations: {%s}
spec:
  template:
    spec:
      containers:
      - name: test
        image: %s
        imagePullPolicy: IfNotPresent
        args: %s
        resources: {requests: {cpu: 1m, memory: 16Mi}}
`, name, annotations, apps.Podcli, quoted)
}

// suite writes a suite to a file.
func (s *space) suite(jobs ...string) string {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "suite.yaml")
	if err := os.WriteFile(file, []byte(strings.Join(jobs, "")), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return file
}

// tested runs `kubectl sandbox test`, holds it to its exit status, and returns the report.
func (s *space) tested(exit int, args ...string) *experiment.Report {
	s.t.Helper()
	return s.reported(exit, s.trySandbox(append([]string{"test", "--output=json", "--timeout=3m"}, args...)...))
}

// reported holds a run of `kubectl sandbox test --output=json` to its exit status, and returns the report.
func (s *space) reported(exit int, r result) *experiment.Report {
	s.t.Helper()
	if got := exitStatus(r.err); got != exit {
		s.t.Fatalf("exit status %d, want %d: %v", got, exit, r)
	}
	var report experiment.Report
	if err := json.Unmarshal([]byte(r.stdout), &report); err != nil {
		s.t.Fatalf("%v: %v", err, r)
	}
	return &report
}

func exitStatus(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

// judged holds a verdict to an outcome, and to the code of one of its reasons.
func (s *space) judged(what string, v experiment.Verdict, outcome experiment.Outcome, code experiment.Code) {
	s.t.Helper()
	has := code == "" && len(v.Reasons) == 0 || slices.ContainsFunc(v.Reasons, func(r experiment.Reason) bool { return r.Code == code })
	if v.Outcome != outcome || !has {
		s.t.Errorf("%s: got %s %v, want %s %s", what, v.Outcome, v.Reasons, outcome, code)
	}
}

func TestAnExperiment_TellsGoodVariantsFromBadAndWhatItCannotTell(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.hotrodRouted(hotrod.Frontend, hotrod.Customer)
	t.Run("one command from images to verdicts", func(t *testing.T) { fromImagesToVerdicts(t, s) })
	t.Run("tests that do not test", func(t *testing.T) { testsThatDoNotTest(t, s) })
	t.Run("one whose client was killed goes on", func(t *testing.T) { goesOnAfterItsClientWasKilled(t, s) })
	t.Run("an interrupted one leaves nothing", func(t *testing.T) { leavesNothingWhenInterrupted(t, s) })
}

func fromImagesToVerdicts(t *testing.T, s *space) {
	s = s.in(t)
	html := filepath.Join(t.TempDir(), "out.html")
	r := s.tested(0, "deploy/frontend", "--variant=good="+apps.HotrodFast, "--variant=moved="+apps.HotrodMoved, "--id=x1",
		"--filename="+s.suite(suiteJob("dispatch", "", "check", "http", "$(SANDBOX_URL)/dispatch?customer=123", "--timeout=20s")),
		"--entry=svc/frontend", "--delete=losers", "--report=html="+html)
	if r.Best != "good" || r.Outcome != experiment.Passed {
		t.Errorf("%s, best %q", r.Outcome, r.Best)
	}
	s.judged("good", r.Variant("good").Verdict, experiment.Passed, "")
	s.judged("moved", r.Variant("moved").Verdict, experiment.Failed, experiment.TestFailed)
	if log := strings.Join(r.Variant("moved").Results[0].Log, "\n"); !strings.Contains(log, "404") {
		t.Errorf("the log does not tell of the failure: %q", log)
	}
	if images := r.Variant("good").Images; len(images) != 1 || images[0].Image != apps.HotrodFast || images[0].Digest == "" {
		t.Errorf("images %v", images)
	}
	if b, err := os.ReadFile(html); err != nil || !strings.Contains(string(b), "test-failed") {
		t.Errorf("no report in HTML: %v", err)
	}
	configMaps := s.client.CoreV1().ConfigMaps(s.name)
	if _, err := configMaps.Get(t.Context(), sandbox.ConfigMapName("x1-moved"), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("the loser is still there: %v", err)
	}
	if _, err := configMaps.Get(t.Context(), sandbox.ConfigMapName("x1-good"), metav1.GetOptions{}); err != nil {
		t.Errorf("the best is gone: %v", err)
	}
	// The same again is the same experiment, and done.
	if again := s.trySandbox("report", "x1"); exitStatus(again.err) != 0 || !strings.Contains(again.stdout, "best: good") {
		t.Errorf("%v", again)
	}
}

func testsThatDoNotTest(t *testing.T, s *space) {
	s = s.in(t)
	s.sandbox("fork", "deploy/customer", "--name=fast", "--image="+apps.HotrodFast)
	check := func(name, services string, more ...string) string {
		annotations := "kubectl-sandbox.dev/services: " + services
		return suiteJob(name, annotations, append([]string{"check", "http"}, more...)...)
	}
	r := s.tested(1, "fast", "--id=x2", "--filename="+s.suite(
		check("through", "frontend", "$(SANDBOX_URL)/dispatch?customer=123", "--timeout=20s"), // customer is one hop further
		suiteJob("silent", "kubectl-sandbox.dev/services: frontend", "version"),
		check("elsewhere", "route", "$(SANDBOX_URL)/route?pickup=1,1&dropoff=2,2"),
		check("around", "customer", "$(SANDBOX_URL)/customer?customer=123"),
		strings.Replace(check("hangs", "customer", "$(SANDBOX_URL)/nowhere", "--retry=1000"), "annotations: {", `annotations: {kubectl-sandbox.dev/timeout: 20s, `, 1),
	))
	v := r.Variant("fast")
	s.judged("through", v.Result("through").Verdict, experiment.Passed, "")
	s.judged("around", v.Result("around").Verdict, experiment.Passed, "")
	s.judged("silent", v.Result("silent").Verdict, experiment.Inconclusive, experiment.NothingSent)
	s.judged("elsewhere", v.Result("elsewhere").Verdict, experiment.Inconclusive, experiment.NotReached)
	s.judged("hangs", v.Result("hangs").Verdict, experiment.Failed, experiment.TimedOut)
	eventually(t, 60*time.Second, "no Job is left running", func(context.Context) error {
		jobs, err := s.client.BatchV1().Jobs(s.name).List(t.Context(), metav1.ListOptions{LabelSelector: sandbox.LabelRun + "=x2"})
		if err != nil {
			return err
		}
		if slices.ContainsFunc(jobs.Items, func(j batchv1.Job) bool { return j.Status.Active > 0 }) {
			return fmt.Errorf("%d Jobs", len(jobs.Items))
		}
		return nil
	})
}

func goesOnAfterItsClientWasKilled(t *testing.T, s *space) {
	s = s.in(t)
	ok := suiteJob("first", "", "check", "http", "$(SANDBOX_URL)/customer?customer=123")
	hangs := strings.Replace(suiteJob("hangs", "X", "check", "http", "$(SANDBOX_URL)/nowhere", "--retry=1000"), "{X}", "{kubectl-sandbox.dev/timeout: 30s}", 1)
	args := []string{"deploy/customer", "--variant=a=" + apps.HotrodFast, "--id=x4", "--entry=svc/customer", "--delete=all", "--filename=" + s.suite(ok, hangs)}
	cmd := s.command(t.Context(), "kubectl", append([]string{"sandbox", "-n", s.name, "test"}, args...)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 90*time.Second, "the second test runs", func(context.Context) error {
		if n := len(s.pods(sandbox.LabelCheck + "=hangs," + sandbox.LabelRun + "=x4")); n != 1 {
			return fmt.Errorf("%d pods", n)
		}
		return nil
	})
	if r := s.trySandbox(append([]string{"test"}, args...)...); exitStatus(r.err) != 3 || !strings.Contains(r.stderr, "is being run by another client") {
		t.Errorf("two clients at once: %v", r)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	job := sandbox.CheckName("first", "x4-a", "x4")
	before, err := s.client.BatchV1().Jobs(s.name).Get(t.Context(), job, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if r := s.trySandbox("test", "deploy/customer", "--variant=a="+apps.Hotrod, "--id=x4", "--entry=svc/customer", "--filename="+s.suite(ok)); exitStatus(r.err) != 3 ||
		!strings.Contains(r.stderr, "of another suite or of other variants") {
		t.Errorf("another experiment took the ID: %v", r)
	}
	r := s.tested(1, args...)
	s.judged("first", r.Variant("a").Result("first").Verdict, experiment.Passed, "")
	s.judged("hangs", r.Variant("a").Result("hangs").Verdict, experiment.Failed, experiment.TimedOut)
	if after, err := s.client.BatchV1().Jobs(s.name).Get(t.Context(), job, metav1.GetOptions{}); err != nil || after.UID != before.UID {
		t.Errorf("what was done was done again: %v", err)
	}
}

func leavesNothingWhenInterrupted(t *testing.T, s *space) {
	s = s.in(t)
	cmd := s.command(t.Context(), "kubectl", "sandbox", "-n", s.name, "test", "deploy/customer", "--variant=a="+apps.HotrodFast, "--id=x3",
		"--entry=svc/customer", "--filename="+s.suite(suiteJob("hangs", "", "check", "http", "$(SANDBOX_URL)/nowhere", "--retry=1000")))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 90*time.Second, "the test runs", func(context.Context) error {
		if n := len(s.pods(sandbox.LabelRun + "=x3," + sandbox.LabelRole + "=" + sandbox.RoleCheck)); n != 1 {
			return fmt.Errorf("%d pods", n)
		}
		return nil
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); exitStatus(err) != 3 {
		t.Errorf("exit status %d, want 3: %v", exitStatus(err), err)
	}
	eventually(t, 60*time.Second, "nothing of it is left", func(context.Context) error {
		left := s.kubectl("get", "configmaps,jobs,pods,deployments", "-o", "name", "-l", sandbox.LabelRun+"=x3") +
			s.kubectl("get", "configmaps,deployments,pods", "-o", "name", "-l", sandbox.LabelSandbox+"=x3-a")
		if left != "" {
			return errors.New(left)
		}
		return nil
	})
}

// A quota that has room for one test at a time has all of them wait their turn; one that has room for none is told as what it is.
func TestAnExperimentKeepsWithinTheNamespacesQuota(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.hotrodAlone(hotrod.Customer, apps.HotrodEven)
	s.sandbox("fork", "deploy/customer", "--name=a", "--image="+apps.HotrodFast)
	s.sandbox("fork", "deploy/customer", "--name=b", "--image="+apps.HotrodEven)
	quota := func(pods string) {
		s.t.Helper()
		s.applyYAML("apiVersion: v1\nkind: ResourceQuota\nmetadata: {name: few}\nspec: {hard: {pods: '" + pods + "'}}")
		eventually(t, time.Minute, "the quota is in force", func(ctx context.Context) error {
			q, err := s.client.CoreV1().ResourceQuotas(s.name).Get(ctx, "few", metav1.GetOptions{})
			if err != nil {
				return err
			}
			if hard := q.Status.Hard[corev1.ResourcePods]; hard.String() != pods || q.Status.Used.Pods().Value() != 3 {
				return fmt.Errorf("of %s used %v", hard.String(), q.Status.Used)
			}
			return nil
		})
	}
	check := func(name, annotations string) string {
		return suiteJob(name, "kubectl-sandbox.dev/services: customer"+annotations, "check", "http", "$(SANDBOX_URL)/customer?customer=123")
	}

	quota("4")
	r := s.tested(0, "a", "b", "--id=q1", "--parallel=2", "--require=all", "--filename="+s.suite(check("one", ""), check("two", "")))
	if r.Outcome != experiment.Passed || len(r.Summary) != 1 || r.Summary[0] != "a and b passed all checks." {
		t.Errorf("%s: %v", r.Outcome, r.Summary)
	}

	quota("3")
	r = s.tested(2, "a", "--id=q2", "--filename="+s.suite(check("one", ", kubectl-sandbox.dev/timeout: 1s")))
	v := r.Variant("a").Result("one").Verdict
	s.judged("without room", v, experiment.Inconclusive, experiment.NotRun)
	if len(v.Reasons) != 1 || !strings.Contains(v.Reasons[0].Message, "exceeded quota: few") {
		t.Errorf("without room: %v", v.Reasons)
	}
	if left := s.kubectl("get", "jobs", "-o", "name", "-l", sandbox.LabelRun+"=q2"); left != "" {
		t.Errorf("left: %s", left)
	}
}

// in returns the space for a part of its test.
func (s *space) in(t *testing.T) *space {
	part := *s
	part.t = t
	return &part
}
