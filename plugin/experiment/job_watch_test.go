package experiment

import (
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func pull(reason, message string) func(*JobView) {
	return both(statuses(waiting("test", reason, message)), phase(corev1.PodPending))
}

// starts makes the pod one whose container is being created.
func starts(v *JobView) { pull("ContainerCreating", "")(v) }

// warned adds an Event of the pod.
func warned(warning string) func(*JobView) {
	return func(v *JobView) { v.Events = map[types.UID]PodEvents{"smoke-1": {Warning: warning}} }
}

func unmounted(why string) func(*JobView) {
	return warned(`MountVolume.SetUp failed for volume "t" : ` + why)
}

// refused is a Job whose pods the API server refuses.
func refused(why string) func(*JobView) {
	return both(noPods, func(v *JobView) { v.Refused = why })
}

func suspended(s *batchv1.JobSpec) { s.Suspend = ptr.To(true) }

func unscheduled(message string) func(*JobView) {
	unschedulable := podCondition(corev1.PodScheduled, corev1.ConditionFalse, "Unschedulable", message)
	return both(statuses(), phase(corev1.PodPending), unschedulable)
}

// never is longer than any Job of these tests may take.
const never = 10 * time.Minute

// A hang is a Job whose view stays as it is while time goes by, and what the verdict says after a JobWatch ended it. No
// code: the test passed.
type hang struct {
	name   string
	view   *JobView
	limits suite.Limits
	within time.Duration // after which it is ended; never: it is not
	code   Code
	fault  Fault
	cause  string
	say    string
}

// Pods that do not start, whatever keeps them from it.
func TestJobWatch_EndsPodsThatDoNotStart(t *testing.T) {
	for _, tt := range []hang{
		{"the image's name is mistyped", scene(pull("ErrImagePull", "reg/nothing:1: not found")),
			minute, 0, NotRun, FaultTest, "ImagePullFailed", "not found"},
		{"the image's name is none", scene(pull("InvalidImageName", "")),
			minute, 0, NotRun, FaultTest, "ImageNameInvalid", "no valid image name"},
		{"the registry does not answer once", scene(pull("ErrImagePull", "i/o timeout")),
			minute, patience, NotRun, FaultCluster, "ImagePullFailed", "i/o timeout"},
		{"the registry does not answer", scene(pull("ImagePullBackOff", "i/o timeout")),
			minute, 0, NotRun, FaultCluster, "ImagePullFailed", "i/o timeout"},
		{"a variable's Secret is missing", scene(pull("CreateContainerConfigError", `secret "token" not found`)),
			minute, 0, NotRun, FaultTest, "SecretNotFound", `secret "token" not found`},
		{"a variable's ConfigMap is missing", scene(
			pull("CreateContainerConfigError", `configmap "env" not found`)),
			minute, 0, NotRun, FaultTest, "ConfigMapNotFound", `configmap "env" not found`},
		{"a volume's Secret is missing", scene(starts, unmounted(`secret "token" not found`)),
			minute, patience, NotRun, FaultTest, "SecretNotFound", `secret "token" not found`},
		{"a volume's ConfigMap is missing", scene(starts, unmounted(`configmap "suite" not found`)),
			minute, patience, NotRun, FaultTest, "ConfigMapNotFound", `configmap "suite"`},
		{"a volume's key is missing", scene(starts, unmounted(`references non-existent config key: x`)),
			minute, patience, NotRun, FaultTest, "ConfigMapNotFound", "config key: x"},
		{"a volume can't be attached", scene(starts, warned("AttachVolume.Attach failed: busy")),
			minute, startTime, NotRun, FaultCluster, "PodStarting", "no test began within 5m0s"},
		{"no node has room", scene(unscheduled("0/3 nodes are available: 3 Insufficient memory.")),
			minute, patience, NotRun, FaultCluster, "PodUnschedulable", "Insufficient memory"},
		{"a claim is missing", scene(unscheduled(`persistentvolumeclaim "data" not found`)),
			minute, patience, NotRun, FaultTest, "PodUnschedulable", `persistentvolumeclaim "data" not found`},
		{"a node comes", scene(unscheduled("0/3 nodes are available"), func(v *JobView) {
			v.Events = map[types.UID]PodEvents{"smoke-1": {ScalesUp: true}}
		}),
			minute, startTime, NotRun, FaultCluster, "PodUnschedulable", "no node takes the pod"},
		{"a gate holds its scheduling", scene(statuses(), phase(corev1.PodPending), func(v *JobView) {
			v.Pods[0].Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "q"}}
		},
			podCondition(corev1.PodScheduled, corev1.ConditionFalse, corev1.PodReasonSchedulingGated, "")),
			minute, startTime, NotRun, FaultCluster, "PodSchedulingGated", "scheduling gate q"},
		{"an init container does not end", scene(initContainer(running("wait-for-db")), phase(corev1.PodPending)),
			minute, startTime, NotRun, FaultTest, "PodStarting", "init container wait-for-db runs"},
		{"the router's image can't be pulled", scene(
			initContainer(waiting(sandbox.RouterContainer, "ErrImageNeverPull", "")), phase(corev1.PodPending)),
			minute, 0, NotRun, FaultProduct, "ImagePullFailed", "sandbox-router"},
	} {
		t.Run(tt.name, tt.check)
	}
}

// Jobs that get no pod.
func TestJobWatch_EndsJobsWithoutPods(t *testing.T) {
	for _, tt := range []hang{
		{"Pod Security refuses its pods", scene(refused(`violates PodSecurity "restricted:latest"`)),
			minute, 0, NotRun, FaultTest, "PodSecurity", "violates PodSecurity"},
		{"its ServiceAccount is missing", scene(
			refused(`error looking up service account shop/ci: serviceaccount "ci" not found`)),
			minute, 0, NotRun, FaultTest, "PodForbidden", `serviceaccount "ci" not found`},
		{"a policy refuses its pods", scene(refused(`admission webhook "validate.kyverno.svc" denied the request`)),
			minute, 0, NotRun, FaultCluster, "PodForbidden", "kyverno"},
		{"an admission webhook is away", scene(refused(`failed calling webhook "x": no endpoints`)),
			minute, patience, NotRun, FaultCluster, "WebhookAway", "failed calling webhook"},
		{"nobody makes its pods", scene(noPods),
			minute, startTime, NotRun, FaultCluster, "", "got no pod within 5m0s"},
		{"it is suspended", scene(noPods, spec(suspended)),
			minute, time.Minute, NotRun, FaultTest, "",
			"the Job is suspended (spec.suspend: true), and nobody resumed it within 1m0s"},
		{"a queue does not admit it", scene(noPods, spec(suspended), func(v *JobView) {
			v.Job.Labels = map[string]string{"kueue.x-k8s.io/queue-name": "ci"}
		}),
			minute, time.Minute, NotRun, FaultCluster, "", "queue ci did not resume it"},
		{"who manages it does not run it", scene(noPods, spec(func(s *batchv1.JobSpec) {
			s.ManagedBy = ptr.To("kueue.x-k8s.io/multikueue")
		})),
			minute, time.Minute, NotRun, FaultCluster, "", "kueue.x-k8s.io/multikueue (spec.managedBy)"},
	} {
		t.Run(tt.name, tt.check)
	}
}

// Tests that run, and do not end by themselves.
func TestJobWatch_EndsTestsThatDoNotEnd(t *testing.T) {
	for _, tt := range []hang{
		{"the test does not end", scene(),
			minute, time.Minute, TimedOut, FaultVariant, "", "did not end within 1m0s (--timeout)"},
		{"its own deadline is not over", scene(), own(900, true), never, "", "", "", ""},
		{"its own deadline is over, and nobody ends it", scene(),
			own(60, false), time.Minute + suite.Overtime, NotFinished, FaultCluster, "", "its controller may be away"},
		{"a container beside the test does not end", scene(
			beside("proxy"), statuses(exited("test", 0, 5), running("proxy"))),
			minute, time.Minute, NotFinished, FaultTest, "",
			"the Job did not end because of container proxy"},
		{"a container beside the test, which is named, does not end", scene(
			beside("proxy"), testIs("test"), statuses(exited("test", 0, 5), running("proxy"))),
			minute, settleTime, "", "", "", ""},
		{"the test, which is named, fails, and a container beside it does not end", scene(
			beside("proxy"), testIs("test"), statuses(exited("test", 7, 5), running("proxy"))),
			minute, settleTime, TestFailed, FaultVariant, "", "container test exited with status 7"},
		{"a mesh's proxy does not end", scene(
			added("istio-proxy"), statuses(exited("test", 0, 5), running("istio-proxy"))),
			minute, settleTime, "", "", "", ""},
		{"a mesh's proxy does not end, and two completions are to come", scene(
			added("istio-proxy"), statuses(exited("test", 0, 5), running("istio-proxy")),
			spec(func(s *batchv1.JobSpec) { s.Completions = ptr.To[int32](2) })),
			minute, time.Minute, NotFinished, FaultTest, "", "istio-proxy"},
		{"the test runs out of memory beside a container that does not end", scene(
			beside("proxy"), statuses(outOfMemory("test"), running("proxy"))),
			minute, 0, NotRun, FaultTest, "OutOfMemory", "ran out of memory"},
	} {
		t.Run(tt.name, tt.check)
	}
}

// check waits for the Job as a client does, a look each second.
func (tt hang) check(t *testing.T) {
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
		if r := v.Reasons[0]; r.Code != tt.code || r.Fault != tt.fault || r.Cause != tt.cause ||
			!strings.Contains(r.Message, tt.say) || (v.Outcome == Failed) != (tt.fault == FaultVariant) {
			t.Errorf("got %+v (%+v), want %s %s %s: ...%s", v, e.Job, tt.code, tt.fault, tt.cause, tt.say)
		}
		return
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
