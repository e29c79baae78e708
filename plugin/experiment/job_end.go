package experiment

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A JobView is the state of a check's Job at one time, with the last known state of every pod that it ever had: the
// Job controller deletes the pods of a Job that took too long.
type JobView struct {
	Job  *batchv1.Job
	Gone bool         // it was deleted
	Pods []corev1.Pod // the oldest first
	// Refused is the API server's reason for refusing the Job's pods; only set if there has never been one.
	Refused string
	// Events are the Events of pods that do not start, by the pod's UID.
	Events map[types.UID]PodEvents
	Now    time.Time
}

// PodEvents is what Events report of a pod, beyond its status.
type PodEvents struct {
	Warning  string // the latest
	ScalesUp bool   // an autoscaler adds a node for it
}

// A JobEnd is how a Job ended.
type JobEnd struct {
	Complete bool   // all that it was to do was done: every test exited with 0
	Failed   bool   // it ended otherwise; of neither, it has not ended
	Reason   string // of the Job's condition, such as BackoffLimitExceeded
	Message  string
	// Pods is the number of its pods. Uninjected names those that admission gave no router.
	Pods       int
	Uninjected []string
	// Exit is the exit status of the first test container that failed, and Container its name; empty if none failed.
	Container string
	Exit      int32
	// TimedOut is the limit that ended it; empty if none did.
	TimedOut string
	// Broken is what kept the Job from ending with a result for the variant: an image that can't be pulled, a lost
	// node, a container beside the test that did not end. It is nil if nothing did.
	Broken *Reason
}

// Ended reports whether a Job has ended for good.
func Ended(job *batchv1.Job) bool {
	return jobCondition(job, batchv1.JobComplete) != nil || jobCondition(job, batchv1.JobFailed) != nil
}

// jobCondition returns the Job's condition of that type if it is true; else nil.
func jobCondition(job *batchv1.Job, of batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range job.Status.Conditions {
		if c := &job.Status.Conditions[i]; c.Type == of && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

// End returns how the Job ended. stopped is why this client stopped it; nil if it did not.
func (v *JobView) End(limits suite.Limits, stopped *Stop) JobEnd {
	j := JobEnd{Complete: jobCondition(v.Job, batchv1.JobComplete) != nil, Pods: len(v.Pods), Uninjected: v.uninjected()}
	if c := jobCondition(v.Job, batchv1.JobFailed); c != nil {
		j.Failed, j.Reason, j.Message = true, c.Reason, c.Message
	}
	tests := v.tests()
	switch {
	case j.Complete:
	case stopped != nil:
		j.stopped(stopped)
	case v.Gone:
		j.Broken = broken(FaultCluster, "", "the Job was deleted before it ended")
	case v.Refused != "":
		j.Broken = refusal(v.Refused)
	case j.Failed && j.Reason == batchv1.JobReasonDeadlineExceeded:
		v.outOfTime(&j, limits, tests)
	case j.Failed:
		v.failed(&j, tests)
	}
	return j
}

// stopped records that this client stopped the Job.
func (j *JobEnd) stopped(s *Stop) {
	switch {
	case s.Done != nil:
		j.Complete, j.Failed, j.Container, j.Exit = s.Done.Container == "", s.Done.Container != "", s.Done.Container, s.Done.Exit
	case s.Limit != "":
		j.Failed, j.TimedOut = true, s.Limit
	default:
		j.Failed, j.Broken = true, &s.Reason
	}
}

// outOfTime explains a Job that its own deadline ended.
func (v *JobView) outOfTime(j *JobEnd, limits suite.Limits, tests []podTest) {
	const field = "activeDeadlineSeconds"
	own := limits.Own.Round(time.Second)
	started, starting := v.starting()
	switch unclear := unclearOf(tests); {
	case limits.Own == 0:
		j.Broken = broken(FaultProduct, "", "the Job ran into the deadline that it was given for the case that nobody waits for it")
	case !started:
		j.Broken = v.notStarted(fmt.Sprintf("no test began within the Job's own %s (%s)", field, own))
	case unclear != "":
		j.Broken = blamed(FaultTest, NotFinished, unclear+fmt.Sprintf("; its own %s (%s) ended it", field, own))
	case 2*starting > limits.Own:
		j.Broken = broken(FaultTest, "", fmt.Sprintf("%s of the Job's own %s (%s) went by before its test began: raise it, or leave it to annotation %s, "+
			"whose time begins with the test", starting.Round(time.Second), field, own, sandbox.AnnotationTimeout))
	case limits.Longer:
		j.Broken = blamed(FaultTest, TimedOut, fmt.Sprintf("the test did not end within the Job's own %s (%s), which is longer than --timeout and holds in its place; "+
			"which of them is meant for the variant is not known: set annotation %s", field, own, sandbox.AnnotationTimeout))
	default:
		j.TimedOut = fmt.Sprintf("the Job's own %s (%s)", field, own)
	}
}

// failed explains a Job that failed because of a pod.
func (v *JobView) failed(j *JobEnd, tests []podTest) {
	for i, t := range tests {
		if t.failed == nil || t.unclear() != "" || v.fromOutside(i) {
			continue
		}
		j.Container, j.Exit = t.failed.name, t.failed.exit
		// The container's own reason comes first: out of memory, command not found.
		for _, c := range health.Containers(&v.Pods[i], v.Now) {
			if c.Container == t.failed.name && c.Code != health.ContainerCrashed {
				j.Broken = brokenBy(&v.Pods[i], c)
			}
		}
		return
	}
	for i, t := range tests {
		c := v.cause(&v.Pods[i])
		switch {
		case v.fromOutside(i):
			j.Broken = brokenBy(&v.Pods[i], c)
		case t.unclear() != "":
			j.Broken = blamed(FaultTest, NotFinished, t.unclear())
		case t.deleted && len(t.running) > 0:
			j.Broken = broken(FaultCluster, string(health.PodTerminating), "pod/"+v.Pods[i].Name+" was deleted while its test ran")
		case !c.OK() && c.Code != health.PodTerminating:
			j.Broken = brokenBy(&v.Pods[i], c)
		}
		if j.Broken != nil {
			return
		}
	}
}

// fromOutside reports whether a pod was ended by its node or by another controller, whatever its containers' exit
// statuses.
func (v *JobView) fromOutside(i int) bool {
	c := v.cause(&v.Pods[i])
	return !c.OK() && c.Container == "" && c.Code != health.PodTerminating && c.Code != health.PodStarting
}

// cause returns the diagnosis of a pod.
func (v *JobView) cause(p *corev1.Pod) health.Cause { return health.Pod(p, v.Now) }

// notStarted returns why no test began: a pod's cause, or else what.
func (v *JobView) notStarted(what string) *Reason {
	var starts *Reason
	for i := range v.Pods {
		switch c := v.cause(&v.Pods[i]); {
		case c.OK() || c.Code == health.PodTerminating:
		case c.Code == health.PodStarting:
			starts = brokenBy(&v.Pods[i], c)
			starts.Message = what + ": " + starts.Message
		default:
			return brokenBy(&v.Pods[i], c)
		}
	}
	if starts != nil {
		return starts
	}
	return broken(FaultCluster, "", what)
}

func (v *JobView) uninjected() (pods []string) {
	for _, p := range v.Pods {
		routed := slices.ContainsFunc(p.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == sandbox.RouterContainer })
		if !routed && p.Labels[sandbox.LabelRole] == sandbox.RoleCheck {
			pods = append(pods, "pod/"+p.Name)
		}
	}
	return pods
}

// starting reports whether any test has started, and how long after the Job the first one did, by the cluster's
// clock.
func (v *JobView) starting() (started bool, after time.Duration) {
	for _, t := range v.tests() {
		if t.began.IsZero() {
			continue
		}
		d := time.Duration(0)
		if s := v.Job.Status.StartTime; s != nil {
			d = max(0, t.began.Sub(s.Time))
		}
		if !started || d < after {
			started, after = true, d
		}
	}
	return started, after
}

// A podTest is the state of the test in a pod.
type podTest struct {
	deleted bool
	began   time.Time        // of its first container; zero: none has
	ended   []string         // containers of the test that exited with 0 by themselves
	failed  *containerFailed // the first that exited otherwise, by itself
	running []string         // those that have not ended, or not by themselves
	beside  []string         // containers that are none of the test's and have not ended by themselves
}

type containerFailed struct {
	name string
	exit int32
}

// unclear returns why the result of a test of several containers can't be determined; empty if it can.
func (t *podTest) unclear() string {
	const name = "name the test's by annotation " + annotationTest + " of the pod template"
	kept := slices.Concat(t.running, t.beside)
	switch {
	case t.failed != nil && len(t.ended) > 0:
		return fmt.Sprintf("container %s exited with status %d, and %s with 0: which of them is the test is not known; "+name, t.failed.name, t.failed.exit, listed(t.ended))
	case t.failed != nil && len(kept) > 0:
		return fmt.Sprintf("container %s exited with status %d, and the Job did not end because of container %s: which of them is the test is not known; "+name,
			t.failed.name, t.failed.exit, listed(kept))
	case len(t.ended) > 0 && len(kept) > 0:
		return fmt.Sprintf("container %s exited with status 0, and the Job did not end because of container %s: make that a native sidecar "+
			"(an init container with restartPolicy: Always), or "+name, listed(t.ended), listed(kept))
	}
	return ""
}

// unclearOf returns why the result of the test can't be determined in the first such pod; empty if it can.
func unclearOf(tests []podTest) string {
	for _, t := range tests {
		if unclear := t.unclear(); unclear != "" {
			return unclear
		}
	}
	return ""
}

// done reports whether all containers of the test have ended by themselves.
func (t *podTest) done() bool { return len(t.running) == 0 && (len(t.ended) > 0 || t.failed != nil) }

// annotationTest names the default container of a pod for tools.
const annotationTest = "kubectl.kubernetes.io/default-container"

// tests returns the state of the test in each pod. A test is the containers that the Job's author wrote, or the one
// that the pod template's annotation names. Other containers, such as a mesh's proxy, were added by admission.
func (v *JobView) tests() []podTest {
	template := v.Job.Spec.Template
	of := make([]string, 0, len(template.Spec.Containers))
	for _, c := range template.Spec.Containers {
		of = append(of, c.Name)
	}
	if named := template.Annotations[annotationTest]; slices.Contains(of, named) {
		of = []string{named}
	}
	tests := make([]podTest, len(v.Pods))
	for i := range v.Pods {
		tests[i] = testOf(&v.Pods[i], of)
	}
	return tests
}

func testOf(p *corev1.Pod, of []string) podTest {
	t := podTest{deleted: p.DeletionTimestamp != nil}
	for _, c := range p.Status.ContainerStatuses {
		test := slices.Contains(of, c.Name)
		if began := containerBegan(&c); test && !began.IsZero() && (t.began.IsZero() || began.Before(t.began)) {
			t.began = began
		}
		end := c.State.Terminated
		switch byItself := end != nil && !stoppedBy(p, end); {
		case !test && !byItself:
			t.beside = append(t.beside, c.Name)
		case !test:
		case !byItself:
			t.running = append(t.running, c.Name)
		case end.ExitCode == 0:
			t.ended = append(t.ended, c.Name)
		case t.failed == nil:
			t.failed = &containerFailed{c.Name, end.ExitCode}
		}
	}
	return t
}

func containerBegan(c *corev1.ContainerStatus) time.Time {
	switch {
	case c.State.Running != nil:
		return c.State.Running.StartedAt.Time
	case c.State.Terminated != nil:
		return c.State.Terminated.StartedAt.Time
	}
	return time.Time{}
}

// stoppedBy reports whether a container ended while its pod was being deleted. The deletion was requested one grace
// period before the pod's deletionTimestamp. Both are in whole seconds.
func stoppedBy(p *corev1.Pod, end *corev1.ContainerStateTerminated) bool {
	if p.DeletionTimestamp == nil {
		return false
	}
	var grace time.Duration
	if s := p.DeletionGracePeriodSeconds; s != nil {
		grace = time.Duration(*s) * time.Second
	}
	return !end.FinishedAt.Time.Before(p.DeletionTimestamp.Add(-grace))
}

// broken returns the reason for which a test did not end by itself. cause is the diagnosis code of its pod.
func broken(f Fault, cause, message string) *Reason {
	return &Reason{Code: NotRun, Fault: f, Cause: cause, Message: message}
}

// brokenBy returns the reason that a pod's cause gives.
func brokenBy(p *corev1.Pod, c health.Cause) *Reason {
	return broken(faultOfPod(c.Fault), string(c.Code), "pod/"+p.Name+": "+c.Message)
}

// refusal explains why the API server refuses a Job's pods.
func refusal(message string) *Reason {
	fault, code := FaultCluster, health.PodForbidden
	switch {
	case strings.Contains(message, "violates PodSecurity"):
		fault, code = FaultTest, health.PodSecurity
	case strings.Contains(message, "exceeded quota:"):
		code = health.QuotaExceeded
	case strings.Contains(message, "serviceaccount") && strings.Contains(message, "not found"):
		fault = FaultTest
	case strings.Contains(message, "failed calling webhook"):
		code = health.WebhookAway
	case strings.Contains(message, "is invalid:"):
		fault = FaultTest
	}
	return broken(fault, string(code), "the Job got no pod: "+cmp.Or(message, "no reason is given"))
}

// NotCreated returns the end of a Job that the API server refused.
func NotCreated(message string) JobEnd {
	return JobEnd{Failed: true, Broken: broken(FaultTest, "", "the Job could not be created: "+message)}
}
