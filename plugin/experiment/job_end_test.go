package experiment

import (
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// noon is when the Jobs of these tests begin, and minutes and seconds count from it.
var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func at(seconds int) metav1.Time {
	return metav1.NewTime(noon.Add(time.Duration(seconds) * time.Second))
}

// A scene is a Job of a check, as a series of tests has it: one pod, which runs, of one container, test, that started after 2 s.
func scene(change ...func(*JobView)) *JobView {
	v := &JobView{
		Job: &batchv1.Job{Spec: batchv1.JobSpec{
			BackoffLimit: ptr.To[int32](0),
			Template:     corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "test"}}}},
		}, Status: batchv1.JobStatus{StartTime: ptr.To(at(0))}},
		Pods: []corev1.Pod{podNamed("smoke-1")}, Now: noon.Add(time.Minute),
	}
	for _, f := range change {
		f(v)
	}
	return v
}

func podNamed(name string) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), Labels: map[string]string{sandbox.LabelRole: sandbox.RoleCheck}},
		Spec: corev1.PodSpec{
			RestartPolicy:  corev1.RestartPolicyNever,
			InitContainers: []corev1.Container{{Name: sandbox.RouterContainer, RestartPolicy: ptr.To(corev1.ContainerRestartPolicyAlways)}},
			Containers:     []corev1.Container{{Name: "test"}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{running("test")}},
	}
}

func running(name string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, Ready: true, Started: ptr.To(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: at(2)}}}
}

func exited(name string, exit int32, after int) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: exit, StartedAt: at(2), FinishedAt: at(after)}}}
}

func waiting(name, reason, message string) corev1.ContainerStatus {
	return corev1.ContainerStatus{Name: name, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}
}

// statuses are those of the first pod's containers.
func statuses(all ...corev1.ContainerStatus) func(*JobView) {
	return func(v *JobView) { v.Pods[0].Status.ContainerStatuses = all }
}

// beside adds containers to the template, as the Job's author does, and to the pod.
func beside(names ...string) func(*JobView) {
	return func(v *JobView) {
		for _, name := range names {
			v.Job.Spec.Template.Spec.Containers = append(v.Job.Spec.Template.Spec.Containers, corev1.Container{Name: name})
			added(name)(v)
		}
	}
}

// added adds a container to the pod alone, as admission does.
func added(name string) func(*JobView) {
	return func(v *JobView) {
		v.Pods[0].Spec.Containers = append(v.Pods[0].Spec.Containers, corev1.Container{Name: name})
	}
}

func testIs(name string) func(*JobView) {
	return func(v *JobView) { v.Job.Spec.Template.Annotations = map[string]string{annotationTest: name} }
}

func phase(p corev1.PodPhase) func(*JobView) {
	return func(v *JobView) { v.Pods[0].Status.Phase = p }
}

// deleted says that the pod was asked to end then.
func deleted(after int) func(*JobView) {
	return func(v *JobView) {
		v.Pods[0].DeletionTimestamp, v.Pods[0].DeletionGracePeriodSeconds = ptr.To(at(after+30)), ptr.To[int64](30)
	}
}

func condition(of batchv1.JobConditionType, reason string) func(*JobView) {
	return func(v *JobView) {
		v.Job.Status.Conditions = append(v.Job.Status.Conditions, batchv1.JobCondition{Type: of, Status: corev1.ConditionTrue, Reason: reason, Message: "as told"})
	}
}

func failedBy(reason string) func(*JobView) { return condition(batchv1.JobFailed, reason) }

func podCondition(of corev1.PodConditionType, status corev1.ConditionStatus, reason, message string) func(*JobView) {
	return func(v *JobView) {
		v.Pods[0].Status.Conditions = append(v.Pods[0].Status.Conditions, corev1.PodCondition{Type: of, Status: status, Reason: reason, Message: message})
	}
}

func spec(change func(*batchv1.JobSpec)) func(*JobView) {
	return func(v *JobView) { change(&v.Job.Spec) }
}

func noPods(v *JobView) { v.Pods = nil }

func initContainer(s corev1.ContainerStatus) func(*JobView) {
	return func(v *JobView) {
		v.Pods[0].Spec.InitContainers = append(v.Pods[0].Spec.InitContainers, corev1.Container{Name: s.Name})
		v.Pods[0].Status.InitContainerStatuses = append(v.Pods[0].Status.InitContainerStatuses, s)
		v.Pods[0].Status.ContainerStatuses = []corev1.ContainerStatus{waiting("test", "PodInitializing", "")}
	}
}

// startTime is how long the tests' Jobs may take to start.
const startTime = 5 * time.Minute

// own are the limits of a Job with a deadline of its own.
func own(seconds int, longer bool) suite.Limits {
	return suite.Limits{Own: time.Duration(seconds) * time.Second, Longer: longer, Start: startTime, Admission: time.Minute}
}

var minute = suite.Limits{Test: time.Minute, By: "--timeout", Start: startTime, Admission: time.Minute}

// How Jobs end: what a verdict is made of. No code: the Job completed.
func TestJobView_End(t *testing.T) {
	oom := exited("test", 137, 9)
	oom.State.Terminated.Reason = "OOMKilled"
	noCommand := exited("test", 128, 2)
	noCommand.State.Terminated.Reason, noCommand.State.Terminated.Message = "StartError", `exec: "pytst": not found`
	for _, tt := range []struct {
		name   string
		view   *JobView
		limits suite.Limits
		code   Code
		fault  Fault
		cause  string
		say    string
	}{
		{"it passes", scene(statuses(exited("test", 0, 9)), phase(corev1.PodSucceeded), condition(batchv1.JobComplete, "CompletionsReached")), minute, "", "", "", ""},
		{"one of its indexes is enough for it (successPolicy)", scene(statuses(exited("test", 1, 9)), phase(corev1.PodFailed),
			condition(batchv1.JobSuccessCriteriaMet, "SuccessPolicy"), condition(batchv1.JobComplete, "SuccessPolicy")), minute, "", "", "", ""},
		{"it fails", scene(statuses(exited("test", 1, 9)), phase(corev1.PodFailed), failedBy("BackoffLimitExceeded")), minute, TestFailed, FaultVariant, "", "container test exited with status 1"},
		{"its own policy says that it failed (podFailurePolicy)", scene(statuses(exited("test", 3, 9)), phase(corev1.PodFailed), failedBy("PodFailurePolicy")), minute,
			TestFailed, FaultVariant, "", "container test exited with status 3"},
		{"one of its indexes fails", scene(statuses(exited("test", 3, 9)), phase(corev1.PodFailed), failedBy("FailedIndexes")), minute, TestFailed, FaultVariant, "", "status 3"},
		{"a pod is evicted, and the next one fails", scene(statuses(exited("test", 137, 9)), phase(corev1.PodFailed),
			podCondition(corev1.DisruptionTarget, corev1.ConditionTrue, "EvictionByEvictionAPI", "Eviction API: evicting"), func(v *JobView) {
				again := podNamed("smoke-2")
				again.Status.Phase, again.Status.ContainerStatuses = corev1.PodFailed, []corev1.ContainerStatus{exited("test", 4, 20)}
				v.Pods = append(v.Pods, again)
			}, failedBy("BackoffLimitExceeded")), minute, TestFailed, FaultVariant, "", "status 4"},
		{"its pod is evicted", scene(statuses(exited("test", 137, 9)), phase(corev1.PodFailed),
			podCondition(corev1.DisruptionTarget, corev1.ConditionTrue, "EvictionByEvictionAPI", "Eviction API: evicting"), failedBy("BackoffLimitExceeded")), minute,
			NotRun, FaultCluster, "PodEvicted", "pod/smoke-1: the pod was evicted"},
		{"its pod is deleted", scene(statuses(exited("test", 143, 12)), phase(corev1.PodFailed), deleted(10), failedBy("BackoffLimitExceeded")), minute,
			NotRun, FaultCluster, "PodTerminating", "pod/smoke-1 was deleted while its test ran"},
		{"it fails, and its pod is deleted after", scene(statuses(exited("test", 1, 9)), phase(corev1.PodFailed), deleted(10), failedBy("BackoffLimitExceeded")), minute,
			TestFailed, FaultVariant, "", "status 1"},
		{"it runs out of memory", scene(statuses(oom), phase(corev1.PodFailed), failedBy("BackoffLimitExceeded")), minute, NotRun, FaultTest, "OutOfMemory", "container test ran out of memory"},
		{"there is no such command", scene(statuses(noCommand), phase(corev1.PodFailed), failedBy("BackoffLimitExceeded")), minute, NotRun, FaultTest, "ContainerStartFailed", "pytst"},
		{"an init container fails", scene(initContainer(exited("wait-for-db", 1, 9)), phase(corev1.PodFailed), failedBy("BackoffLimitExceeded")), minute,
			NotRun, FaultTest, "ContainerCrashed", "init container wait-for-db failed: exit code 1"},
		{"it is deleted", scene(func(v *JobView) { v.Gone = true }), minute, NotRun, FaultCluster, "", "the Job was deleted before it ended"},
		{"Pod Security refuses its pods", scene(noPods, func(v *JobView) {
			v.Refused = `pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true`
		}, failedBy("DeadlineExceeded")),
			own(30, false), NotRun, FaultTest, "PodSecurity", "violates PodSecurity"},

		{"its own deadline ends it", scene(statuses(exited("test", 143, 31)), deleted(30), failedBy("DeadlineExceeded")), own(30, false),
			TimedOut, FaultVariant, "", "did not end within the Job's own activeDeadlineSeconds (30s)"},
		{"its own deadline, longer than --timeout, ends it", scene(statuses(running("test")), failedBy("DeadlineExceeded")), own(90, true),
			TimedOut, FaultTest, "", "own activeDeadlineSeconds (1m30s), which is longer than --timeout"},
		{"most of its own deadline goes by before the test begins", scene(statuses(exited("test", 143, 5)), deleted(3), failedBy("DeadlineExceeded")), own(3, false),
			NotRun, FaultTest, "", "2s of the Job's own activeDeadlineSeconds (3s) went by before its test began"},
		{"all of its own deadline goes by before the test begins", scene(statuses(waiting("test", "ImagePullBackOff", "")), phase(corev1.PodPending), failedBy("DeadlineExceeded")), own(30, false),
			NotRun, FaultCluster, "ImagePullFailed", "can't be pulled"},
		{"its own deadline ends it, and an init container has not ended", scene(initContainer(running("wait-for-db")), phase(corev1.PodPending), failedBy("DeadlineExceeded")), own(30, false),
			NotRun, FaultTest, "PodStarting", "init container wait-for-db runs"},
		{"a container beside the test does not end", scene(beside("cloud-sql-proxy"), statuses(exited("test", 0, 5), exited("cloud-sql-proxy", 2, 31)), deleted(30), failedBy("DeadlineExceeded")),
			own(30, false), NotFinished, FaultTest, "", "container test exited with status 0, and the Job did not end because of container cloud-sql-proxy"},
		{"a test fails, and a container beside it does not end", scene(beside("proxy"), statuses(exited("test", 1, 5), exited("proxy", 143, 31)), deleted(30), failedBy("DeadlineExceeded")),
			own(30, false), NotFinished, FaultTest, "", "container test exited with status 1, and the Job did not end because of container proxy: which of them is the test is not known"},
		{"a container beside the test fails", scene(beside("proxy"), statuses(exited("test", 0, 5), exited("proxy", 1, 6)), phase(corev1.PodFailed), failedBy("BackoffLimitExceeded")), minute,
			NotFinished, FaultTest, "", "container proxy exited with status 1, and test with 0: which of them is the test is not known"},
		{"a container beside the test, which is named, fails", scene(beside("proxy"), testIs("test"), statuses(exited("test", 5, 5), exited("proxy", 1, 4)), phase(corev1.PodFailed), failedBy("BackoffLimitExceeded")), minute,
			TestFailed, FaultVariant, "", "container test exited with status 5"},
		{"all containers of the test fail", scene(beside("api"), statuses(exited("test", 1, 5), exited("api", 2, 6)), phase(corev1.PodFailed), failedBy("BackoffLimitExceeded")), minute,
			TestFailed, FaultVariant, "", "container test exited with status 1"},
		{"it has not ended", scene(), minute, NotFinished, FaultTest, "", "the Job has not ended"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := sound()
			e.Job = tt.view.End(tt.limits, nil)
			e.Job.Pods = max(1, e.Job.Pods)
			v := Judge(e)
			if tt.code == "" {
				if v.Outcome != Passed {
					t.Errorf("got %+v", v)
				}
				return
			}
			want := Inconclusive
			if tt.fault == FaultVariant {
				want = Failed
			}
			if r := v.Reasons[0]; v.Outcome != want || r.Code != tt.code || r.Fault != tt.fault || r.Cause != tt.cause || !strings.Contains(r.Message, tt.say) {
				t.Errorf("got %+v (%+v), want %s %s %s: ...%s", v, e.Job, tt.code, tt.fault, tt.cause, tt.say)
			}
		})
	}
}

// How Jobs hang: what is looked at while they are waited for. The view stays as it is, and time goes by.
func TestJobWatch_EndsWhatTellsNothing(t *testing.T) {
	pull := func(reason, message string) func(*JobView) {
		return both(statuses(waiting("test", reason, message)), phase(corev1.PodPending))
	}
	starts := pull("ContainerCreating", "")
	warned := func(warning string) func(*JobView) {
		return func(v *JobView) { v.Events = map[types.UID]PodEvents{"smoke-1": {Warning: warning}} }
	}
	unscheduled := func(message string) func(*JobView) {
		return both(statuses(), phase(corev1.PodPending), podCondition(corev1.PodScheduled, corev1.ConditionFalse, "Unschedulable", message))
	}
	const never = 10 * time.Minute
	for _, tt := range []struct {
		name   string
		view   *JobView
		limits suite.Limits
		within time.Duration // after which it is ended; never: it is not
		code   Code
		fault  Fault
		cause  string
		say    string
	}{
		{"the image's name is mistyped", scene(pull("ErrImagePull", "reg/nothing:1: not found")), minute, 0, NotRun, FaultTest, "ImagePullFailed", "not found"},
		{"the image's name is none", scene(pull("InvalidImageName", "")), minute, 0, NotRun, FaultTest, "ImageNameInvalid", "no valid image name"},
		{"the registry does not answer once", scene(pull("ErrImagePull", "i/o timeout")), minute, patience, NotRun, FaultCluster, "ImagePullFailed", "i/o timeout"},
		{"the registry does not answer", scene(pull("ImagePullBackOff", "i/o timeout")), minute, 0, NotRun, FaultCluster, "ImagePullFailed", "i/o timeout"},
		{"a variable's Secret is missing", scene(pull("CreateContainerConfigError", `secret "token" not found`)), minute, 0, NotRun, FaultTest, "SecretNotFound", `secret "token" not found`},
		{"a variable's ConfigMap is missing", scene(pull("CreateContainerConfigError", `configmap "env" not found`)), minute, 0, NotRun, FaultTest, "ConfigMapNotFound", `configmap "env" not found`},
		{"a volume's Secret is missing", scene(starts, warned(`MountVolume.SetUp failed for volume "t" : secret "token" not found`)), minute, patience, NotRun, FaultTest, "SecretNotFound", `secret "token" not found`},
		{"a volume's ConfigMap is missing", scene(starts, warned(`MountVolume.SetUp failed for volume "t" : configmap "suite" not found`)), minute, patience, NotRun, FaultTest, "ConfigMapNotFound", `configmap "suite"`},
		{"a volume's key is missing", scene(starts, warned(`MountVolume.SetUp failed for volume "t" : references non-existent config key: x`)), minute, patience, NotRun, FaultTest, "ConfigMapNotFound", "config key: x"},
		{"a volume can't be attached", scene(starts, warned("AttachVolume.Attach failed: busy")), minute, startTime, NotRun, FaultCluster, "PodStarting", "no test began within 5m0s"},
		{"no node has room", scene(unscheduled("0/3 nodes are available: 3 Insufficient memory.")), minute, patience, NotRun, FaultCluster, "PodUnschedulable", "Insufficient memory"},
		{"a claim is missing", scene(unscheduled(`persistentvolumeclaim "data" not found`)), minute, patience, NotRun, FaultTest, "PodUnschedulable", `persistentvolumeclaim "data" not found`},
		{"a node comes", scene(unscheduled("0/3 nodes are available"), func(v *JobView) { v.Events = map[types.UID]PodEvents{"smoke-1": {ScalesUp: true}} }), minute,
			startTime, NotRun, FaultCluster, "PodUnschedulable", "no node takes the pod"},
		{"a gate holds its scheduling", scene(statuses(), phase(corev1.PodPending), func(v *JobView) { v.Pods[0].Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "q"}} },
			podCondition(corev1.PodScheduled, corev1.ConditionFalse, corev1.PodReasonSchedulingGated, "")), minute, startTime, NotRun, FaultCluster, "PodSchedulingGated", "scheduling gate q"},
		{"an init container does not end", scene(initContainer(running("wait-for-db")), phase(corev1.PodPending)), minute, startTime, NotRun, FaultTest, "PodStarting", "init container wait-for-db runs"},
		{"the router's image can't be pulled", scene(initContainer(waiting(sandbox.RouterContainer, "ErrImageNeverPull", "")), phase(corev1.PodPending)), minute, 0, NotRun, FaultProduct, "ImagePullFailed", "sandbox-router"},
		{"Pod Security refuses its pods", scene(noPods, func(v *JobView) { v.Refused = `violates PodSecurity "restricted:latest"` }), minute, 0, NotRun, FaultTest, "PodSecurity", "violates PodSecurity"},
		{"its ServiceAccount is missing", scene(noPods, func(v *JobView) {
			v.Refused = `error looking up service account shop/ci: serviceaccount "ci" not found`
		}), minute, 0, NotRun, FaultTest, "PodForbidden", `serviceaccount "ci" not found`},
		{"a policy refuses its pods", scene(noPods, func(v *JobView) { v.Refused = `admission webhook "validate.kyverno.svc" denied the request` }), minute, 0, NotRun, FaultCluster, "PodForbidden", "kyverno"},
		{"an admission webhook is away", scene(noPods, func(v *JobView) { v.Refused = `failed calling webhook "x": no endpoints` }), minute, patience, NotRun, FaultCluster, "WebhookAway", "failed calling webhook"},
		{"nobody makes its pods", scene(noPods), minute, startTime, NotRun, FaultCluster, "", "got no pod within 5m0s"},
		{"it is suspended", scene(noPods, spec(func(s *batchv1.JobSpec) { s.Suspend = ptr.To(true) })), minute, time.Minute, NotRun, FaultTest, "", "the Job is suspended (spec.suspend: true), and nobody resumed it within 1m0s"},
		{"a queue does not admit it", scene(noPods, spec(func(s *batchv1.JobSpec) { s.Suspend = ptr.To(true) }), func(v *JobView) { v.Job.Labels = map[string]string{"kueue.x-k8s.io/queue-name": "ci"} }), minute,
			time.Minute, NotRun, FaultCluster, "", "queue ci did not resume it"},
		{"who manages it does not run it", scene(noPods, spec(func(s *batchv1.JobSpec) { s.ManagedBy = ptr.To("kueue.x-k8s.io/multikueue") })), minute, time.Minute, NotRun, FaultCluster, "", "kueue.x-k8s.io/multikueue (spec.managedBy)"},

		{"the test does not end", scene(), minute, time.Minute, TimedOut, FaultVariant, "", "did not end within 1m0s (--timeout)"},
		{"its own deadline is not over", scene(), own(900, true), never, "", "", "", ""},
		{"its own deadline is over, and nobody ends it", scene(), own(60, false), time.Minute + suite.Overtime, NotFinished, FaultCluster, "", "its controller may be away"},
		{"a container beside the test does not end", scene(beside("proxy"), statuses(exited("test", 0, 5), running("proxy"))), minute, time.Minute, NotFinished, FaultTest, "",
			"the Job did not end because of container proxy"},
		{"a container beside the test, which is named, does not end", scene(beside("proxy"), testIs("test"), statuses(exited("test", 0, 5), running("proxy"))), minute, settleTime, "", "", "", ""},
		{"the test, which is named, fails, and a container beside it does not end", scene(beside("proxy"), testIs("test"), statuses(exited("test", 7, 5), running("proxy"))), minute, settleTime,
			TestFailed, FaultVariant, "", "container test exited with status 7"},
		{"a mesh's proxy does not end", scene(added("istio-proxy"), statuses(exited("test", 0, 5), running("istio-proxy"))), minute, settleTime, "", "", "", ""},
		{"a mesh's proxy does not end, and two completions are to come", scene(added("istio-proxy"), statuses(exited("test", 0, 5), running("istio-proxy")),
			spec(func(s *batchv1.JobSpec) { s.Completions = ptr.To[int32](2) })), minute, time.Minute, NotFinished, FaultTest, "", "istio-proxy"},
		{"the test runs out of memory beside a container that does not end", scene(beside("proxy"), statuses(outOfMemory("test"), running("proxy"))), minute, 0,
			NotRun, FaultTest, "OutOfMemory", "ran out of memory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := JobWatch{Limits: tt.limits}
			began := tt.view.Now
			for {
				s := w.Next(tt.view)
				after := tt.view.Now.Sub(began)
				if s.Over {
					t.Fatal("it is over")
				}
				if s.Stop == nil && after <= never {
					tt.view.Now = tt.view.Now.Add(time.Second)
					continue
				}
				if s.Stop == nil {
					if tt.within != never {
						t.Errorf("it is not ended within %s", tt.within)
					}
					return
				}
				if after < tt.within || after > tt.within+time.Second {
					t.Errorf("ended after %s, want %s", after, tt.within)
				}
				e := sound()
				e.Job = tt.view.End(tt.limits, s.Stop)
				e.Job.Pods = max(1, e.Job.Pods)
				v := Judge(e)
				if tt.code == "" {
					if v.Outcome != Passed {
						t.Errorf("got %+v", v)
					}
					return
				}
				if r := v.Reasons[0]; r.Code != tt.code || r.Fault != tt.fault || r.Cause != tt.cause || !strings.Contains(r.Message, tt.say) || (v.Outcome == Failed) != (tt.fault == FaultVariant) {
					t.Errorf("got %+v (%+v), want %s %s %s: ...%s", v, e.Job, tt.code, tt.fault, tt.cause, tt.say)
				}
				return
			}
		})
	}
}

// The time of a test begins when it does.
func TestJobWatch_CountsFromTheTestsStart(t *testing.T) {
	w := JobWatch{Limits: minute}
	v := scene(statuses(waiting("test", "ContainerCreating", "")), phase(corev1.PodPending))
	for range 4 { // images are pulled for 4 minutes
		if s := w.Next(v); s.Stop != nil || !strings.Contains(s.Wait, "smoke-1") {
			t.Fatalf("got %+v", s)
		}
		v.Now = v.Now.Add(time.Minute)
	}
	run := scene()
	for _, tt := range []struct {
		after time.Duration
		stop  bool
	}{{0, false}, {50 * time.Second, false}, {61 * time.Second, true}} {
		run.Now = v.Now.Add(tt.after)
		if s := w.Next(run); (s.Stop != nil) != tt.stop {
			t.Errorf("after %s: %+v", tt.after, s)
		}
	}
}

// What passes by itself before it has lasted is waited for again.
func TestJobWatch_ForgetsWhatHasPassed(t *testing.T) {
	w := JobWatch{Limits: minute}
	away := scene(statuses(waiting("test", "ErrImagePull", "i/o timeout")), phase(corev1.PodPending))
	fine := scene(statuses(waiting("test", "ContainerCreating", "")), phase(corev1.PodPending))
	now := noon
	for i, v := range []*JobView{away, fine, away, fine} {
		v.Now = now
		if s := w.Next(v); s.Stop != nil {
			t.Fatalf("look %d: %+v", i, s.Stop)
		}
		now = now.Add(patience - time.Second)
	}
}

func both(changes ...func(*JobView)) func(*JobView) {
	return func(v *JobView) {
		for _, f := range changes {
			f(v)
		}
	}
}

func outOfMemory(name string) corev1.ContainerStatus {
	s := exited(name, 137, 9)
	s.State.Terminated.Reason = "OOMKilled"
	return s
}

func TestUninjected(t *testing.T) {
	v := scene(func(v *JobView) { v.Pods[0].Spec.InitContainers = nil })
	if got := v.End(minute, nil).Uninjected; !slices.Equal(got, []string{"pod/smoke-1"}) {
		t.Errorf("got %v", got)
	}
}
