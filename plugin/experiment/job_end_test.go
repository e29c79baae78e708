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
