package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/hotrod"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A jobKind is a way in which people write Jobs, and what becomes of one.
type jobKind struct {
	name    string
	line    string // of the test; empty: one request
	write   func(*batchv1.JobSpec)
	timeout string // --timeout; empty: 1m
	within  time.Duration
	outcome experiment.Outcome
	code    experiment.Code
	fault   experiment.Fault
	cause   health.Code
	say     string
}

// jobKinds are those that pass, those that fail by the variant or by a time, and those that come to no end that tells anything.
func jobKinds() []jobKind {
	pod := func(change func(*corev1.PodSpec)) func(*batchv1.JobSpec) {
		return func(j *batchv1.JobSpec) { change(&j.Template.Spec) }
	}
	proxy := func(j *batchv1.JobSpec) {
		c := j.Template.Spec.Containers[0]
		c.Name, c.Command = "cloud-sql-proxy", []string{"/usr/bin/bash", "-c", "sleep 600"}
		j.Template.Spec.Containers = append(j.Template.Spec.Containers, c)
	}
	seconds := func(n int64) func(*batchv1.JobSpec) { return func(j *batchv1.JobSpec) { j.ActiveDeadlineSeconds = &n } }
	indexed := func(n int32) func(*batchv1.JobSpec) {
		return func(j *batchv1.JobSpec) {
			j.Completions, j.Parallelism, j.CompletionMode = &n, &n, new(batchv1.IndexedCompletion)
		}
	}
	all := func(changes ...func(*batchv1.JobSpec)) func(*batchv1.JobSpec) {
		return func(j *batchv1.JobSpec) {
			for _, change := range changes {
				change(j)
			}
		}
	}
	const soon = time.Minute // far less than what the test might take
	return []jobKind{
		{name: "ttl", write: func(j *batchv1.JobSpec) { j.TTLSecondsAfterFinished = new(int32(0)) }, outcome: experiment.Passed},
		{name: "deadline-longer", line: once + "sleep 20; " + once, write: seconds(120), timeout: "8s", outcome: experiment.Passed},
		{name: "indexed", write: indexed(3), outcome: experiment.Passed},
		{name: "on-failure", write: func(j *batchv1.JobSpec) {
			j.BackoffLimit, j.Template.Spec.RestartPolicy = new(int32(2)), corev1.RestartPolicyOnFailure
		}, outcome: experiment.Passed},
		{name: "success-policy", line: `if [ "$JOB_COMPLETION_INDEX" = 0 ]; then ` + once + "else sleep 600; fi", write: all(indexed(2), func(j *batchv1.JobSpec) {
			j.SuccessPolicy = &batchv1.SuccessPolicy{Rules: []batchv1.SuccessPolicyRule{{SucceededIndexes: new("0")}}}
		}), outcome: experiment.Passed},
		{name: "replacement-policy", write: func(j *batchv1.JobSpec) { j.PodReplacementPolicy = new(batchv1.Failed) }, outcome: experiment.Passed},
		{name: "sidecar-named", write: all(proxy, func(j *batchv1.JobSpec) {
			j.Template.Annotations = map[string]string{"kubectl.kubernetes.io/default-container": "test"}
		}), within: soon, outcome: experiment.Passed},

		{name: "failure-policy", line: once + "exit 3", write: func(j *batchv1.JobSpec) {
			j.BackoffLimit, j.PodFailurePolicy = new(int32(2)), &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{{
				Action: batchv1.PodFailurePolicyActionFailJob, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
					ContainerName: new("test"), Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{3},
				},
			}}}
		}, outcome: experiment.Failed, code: experiment.TestFailed, fault: experiment.FaultVariant, say: "exited with status 3"},
		{name: "deadline", line: once + "sleep 600", write: seconds(40), outcome: experiment.Failed, code: experiment.TimedOut, fault: experiment.FaultVariant, say: "own activeDeadlineSeconds (40s)"},
		{name: "timeout", line: once + "sleep 600", timeout: "8s", outcome: experiment.Failed, code: experiment.TimedOut, fault: experiment.FaultVariant, say: "8s (--timeout)"},
		{name: "deadline-longer-and-over", line: once + "sleep 600", write: seconds(40), timeout: "8s",
			outcome: experiment.Inconclusive, code: experiment.TimedOut, fault: experiment.FaultTest, say: "longer than --timeout"},

		{name: "sidecar", write: all(proxy, seconds(40)), outcome: experiment.Inconclusive, code: experiment.NotFinished, fault: experiment.FaultTest, say: "cloud-sql-proxy"},
		{name: "suspended", write: func(j *batchv1.JobSpec) { j.Suspend = new(true) }, timeout: "8s", within: soon,
			outcome: experiment.Inconclusive, code: experiment.NotRun, fault: experiment.FaultTest, say: "suspended"},
		{name: "managed", write: func(j *batchv1.JobSpec) { j.ManagedBy = new("example.test/nobody") }, timeout: "8s", within: soon,
			outcome: experiment.Inconclusive, code: experiment.NotRun, fault: experiment.FaultCluster, say: "example.test/nobody (spec.managedBy)"},
		{name: "no-image", write: pod(func(p *corev1.PodSpec) { p.Containers[0].Image = "example.test/nothing:1" }), within: soon,
			outcome: experiment.Inconclusive, code: experiment.NotRun, cause: health.ImagePullFailed, say: "example.test/nothing:1"},
		{name: "no-secret", write: pod(func(p *corev1.PodSpec) {
			p.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "token"}}}}
		}), within: soon, outcome: experiment.Inconclusive, code: experiment.NotRun, fault: experiment.FaultTest, cause: health.SecretNotFound, say: "token"},
		{name: "no-config-map", write: pod(func(p *corev1.PodSpec) {
			mount(p, "suite", "/suite", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "script"}}})
		}), within: 2 * soon, outcome: experiment.Inconclusive, code: experiment.NotRun, fault: experiment.FaultTest, cause: health.ConfigMapNotFound, say: "script"},
		{name: "no-account", write: pod(func(p *corev1.PodSpec) { p.ServiceAccountName = "nobody" }), within: soon,
			outcome: experiment.Inconclusive, code: experiment.NotRun, fault: experiment.FaultTest, cause: health.PodForbidden, say: "nobody"},
		{name: "no-node", write: pod(func(p *corev1.PodSpec) { p.NodeSelector = map[string]string{"disk": "fast"} }), within: 2 * soon,
			outcome: experiment.Inconclusive, code: experiment.NotRun, fault: experiment.FaultCluster, cause: health.PodUnschedulable, say: "no node takes the pod"},
		{name: "no-command", write: pod(func(p *corev1.PodSpec) { p.Containers[0].Command = []string{"/usr/bin/pytst"} }), within: soon,
			outcome: experiment.Inconclusive, code: experiment.NotRun, fault: experiment.FaultTest, cause: health.ContainerStartFailed, say: "pytst"},
		{name: "memory", line: once + "exec tail /dev/zero", write: pod(func(p *corev1.PodSpec) {
			p.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("24Mi")}
		}), outcome: experiment.Inconclusive, code: experiment.NotRun, fault: experiment.FaultTest, cause: health.OutOfMemory, say: "memory"},
		{name: "init", write: pod(func(p *corev1.PodSpec) {
			c := p.Containers[0]
			c.Name, c.Command = "wait-for-db", []string{"/usr/bin/bash", "-c", "exit 1"}
			p.InitContainers = []corev1.Container{c}
		}), outcome: experiment.Inconclusive, code: experiment.NotRun, fault: experiment.FaultTest, cause: health.ContainerCrashed, say: "init container wait-for-db"},
	}
}

// Jobs as people write them, all at once against one sandbox: each is reported as what it came to, and with whose fault that is.
func TestJobsOfAllKindsAreReportedAsWhatTheyAre(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.hotrodAlone(hotrod.Customer, apps.HotrodEven)
	s.sandbox("fork", "deploy/customer", "--name=a", "--image="+apps.HotrodFast)
	t.Run("kinds", func(t *testing.T) {
		for _, k := range jobKinds() {
			t.Run(k.name, func(t *testing.T) {
				t.Parallel()
				s.in(t).reportsKind(k)
			})
		}
	})
	t.Run("refused by Pod Security", func(t *testing.T) {
		s := s.in(t)
		s.kubectl("label", "namespace", s.name, "pod-security.kubernetes.io/enforce=restricted")
		s.reportsKind(jobKind{name: "security", within: time.Minute,
			outcome: experiment.Inconclusive, code: experiment.NotRun, fault: experiment.FaultTest, cause: health.PodSecurity, say: "violates PodSecurity"})
	})
}

func (s *space) reportsKind(k jobKind) {
	s.t.Helper()
	line := k.line
	if line == "" {
		line = once
	}
	j := shellJob(k.name, "customer", line)
	if k.write != nil {
		k.write(&j.Spec)
	}
	exit := map[experiment.Outcome]int{experiment.Passed: 0, experiment.Failed: 1, experiment.Inconclusive: 2}[k.outcome]
	timeout := k.timeout
	if timeout == "" {
		timeout = "1m"
	}
	began := time.Now()
	r := s.tested(exit, "a", "--id="+k.name, "--timeout="+timeout, "--filename="+s.suiteOf(j))
	got := r.Variant("a").Result(k.name)
	s.judged(k.name, got.Verdict, k.outcome, k.code)
	if took := time.Since(began); k.within > 0 && took > k.within {
		s.t.Errorf("it took %s, and is known within %s", took.Round(time.Second), k.within)
	}
	if k.code == "" {
		return
	}
	i := slices.IndexFunc(got.Reasons, func(r experiment.Reason) bool { return r.Code == k.code })
	if i < 0 {
		return
	}
	if r := got.Reasons[i]; k.fault != "" && r.Fault != k.fault || r.Cause != string(k.cause) || !strings.Contains(r.Message, k.say) {
		s.t.Errorf("got %+v, want fault %s, cause %s and %q", r, k.fault, k.cause, k.say)
	}
}

// A suite may bring what its Jobs use. It is there under names of the experiment's own, and goes with it.
func TestASuiteBringsWhatItsJobsUse(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.hotrodAlone(hotrod.Customer, apps.HotrodEven)
	s.sandbox("fork", "deploy/customer", "--name=a", "--image="+apps.HotrodFast)
	// Somebody has one of that name, which is another.
	s.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "script"}, Data: map[string]string{"run.sh": "exit 9"}})
	j := shellJob("scripted", "customer", `[ "$TOKEN" = geheim ] && . /suite/run.sh`)
	p := &j.Spec.Template.Spec
	p.ServiceAccountName = "ci"
	mount(p, "suite", "/suite", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "script"}}})
	p.Containers[0].Env = append(p.Containers[0].Env, corev1.EnvVar{Name: "TOKEN", ValueFrom: &corev1.EnvVarSource{
		SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "token"}, Key: "t"},
	}})
	suite := s.suite(fmt.Sprintf(`apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: script}, data: {run.sh: %q}}
- {apiVersion: v1, kind: Secret, metadata: {name: token}, stringData: {t: geheim}}
- {apiVersion: v1, kind: ServiceAccount, metadata: {name: ci}}
`, once), j.yaml())
	for _, id := range []string{"one", "two"} {
		s.judged(id, s.tested(0, "a", "--id="+id, "--filename="+suite).Variant("a").Verdict, experiment.Passed, "")
	}
	s.kubectl("delete", "configmap", sandbox.RunName("one"))
	s.nothingLeft("one")
	if left := s.kubectl("get", "configmap/script", "configmap/script-two", "secret/token-two", "serviceaccount/ci", "-o", "name"); strings.Count(left, "\n") != 4 {
		t.Errorf("what the other experiment uses has gone: %s", left)
	}
	if r := s.trySandbox("test", "a", "--filename="+s.suite(strings.Replace(shellJob("poses", "customer", once).yaml(), `"name":"test"`, `"name":"sandbox-router"`, 1))); exitStatus(r.err) != 3 ||
		!strings.Contains(r.stderr, `"sandbox-router" is the name of the router`) {
		t.Errorf("a container that poses as the router is taken: %v", r)
	}
}
