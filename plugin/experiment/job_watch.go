package experiment

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
)

const (
	// patience is how long to wait for what may pass by itself: a registry that does not answer, a node without room.
	patience = 30 * time.Second
	// settleTime is how long the containers beside a test may take to end after it: usually they end with it.
	settleTime = 5 * time.Second
)

// A JobWatch decides, while the Job of a check runs, whether to stop it. It measures how long a state has lasted by
// the client's clock: clocks are not compared.
type JobWatch struct {
	Limits suite.Limits

	createdAt, startedAt, testStarted, done time.Time
	seen                                    map[string]time.Time // what keeps pods from starting, and since when
}

// A Step is what to do about a Job.
type Step struct {
	Over bool   // it has ended
	Stop *Stop  // end it now
	Wait string // what it waits for, where that is not the test
}

// A Stop is why to stop a Job before it ends by itself: one of the three.
type Stop struct {
	Reason Reason    // what keeps its test from ending by itself
	Limit  string    // the limit that was exceeded
	Done   *TestDone // the test has ended, and the containers beside it have not
}

// TestDone is how a test ended: the container that failed, and its status. If none failed, Container is empty.
type TestDone struct {
	Container string
	Exit      int32
}

// Next returns what to do in the Job's present state.
func (w *JobWatch) Next(v *JobView) Step {
	if v.Gone || Ended(v.Job) {
		return Step{Over: true}
	}
	if w.createdAt.IsZero() {
		w.createdAt = v.Now
	}
	if held, fault := w.waitsForController(v); held != "" {
		if v.Now.Sub(w.createdAt) > w.Limits.Admission {
			return Step{Stop: &Stop{Reason: *broken(fault, "", fmt.Sprintf("%s within %s", held, w.Limits.Admission))}}
		}
		return Step{Wait: held + " yet"}
	}
	if w.startedAt.IsZero() {
		w.startedAt = v.Now
	}
	if started, _ := v.starting(); started && w.testStarted.IsZero() {
		w.testStarted = v.Now
	}
	if w.testStarted.IsZero() {
		return w.starting(v)
	}
	return w.testing(v)
}

// waitsForController returns what keeps the Job from starting, and whose fault that is; empty if nothing does. If a
// Job is suspended again once its test runs, its time goes on.
func (w *JobWatch) waitsForController(v *JobView) (string, Fault) {
	spec := &v.Job.Spec
	switch queue := v.Job.Labels["kueue.x-k8s.io/queue-name"]; {
	case !w.testStarted.IsZero():
	case spec.Suspend != nil && *spec.Suspend && queue != "":
		return fmt.Sprintf("the Job is suspended (spec.suspend: true), and queue %s did not resume it", queue), FaultCluster
	case spec.Suspend != nil && *spec.Suspend:
		return "the Job is suspended (spec.suspend: true), and nobody resumed it", FaultTest
	case spec.ManagedBy != nil && *spec.ManagedBy != batchv1.JobControllerName && len(v.Pods) == 0:
		return fmt.Sprintf("%s (spec.managedBy) did not run the Job", *spec.ManagedBy), FaultCluster
	}
	return "", ""
}

// starting judges a Job none of whose tests has begun.
func (w *JobWatch) starting(v *JobView) Step {
	seen := map[string]time.Time{}
	defer func() { w.seen = seen }()
	if v.Refused != "" {
		r := refusal(v.Refused)
		if r.Cause == string(health.WebhookAway) && !w.lastsFor(seen, v.Now, r.Message, patience) {
			return Step{Wait: r.Message}
		}
		return Step{Stop: &Stop{Reason: *r}}
	}
	wait := "the Job has no pod yet"
	for i := range v.Pods {
		p := &v.Pods[i]
		if over(p) {
			continue
		}
		c := w.startCause(v, p)
		wait = "pod/" + p.Name + ": " + c.Message
		hold := w.Limits.Start
		switch {
		case c.Outlook == health.OutlookFinal:
			hold = 0
		case c.Outlook == health.OutlookMayPass, c.Code == health.PodUnschedulable && !v.Events[p.UID].ScalesUp:
			hold = patience
		}
		if hold < w.Limits.Start && w.lastsFor(seen, v.Now, string(p.UID)+string(c.Code), hold) {
			return Step{Stop: &Stop{Reason: *brokenBy(p, c)}}
		}
	}
	if v.Now.Sub(w.startedAt) > w.Limits.Start {
		why := v.notStarted(fmt.Sprintf("no test began within %s", w.Limits.Start))
		if len(v.Pods) == 0 {
			why = broken(FaultCluster, "", fmt.Sprintf("the Job got no pod within %s for an unknown reason: check that its controller runs", w.Limits.Start))
		}
		return Step{Stop: &Stop{Reason: *why}}
	}
	return Step{Wait: wait}
}

// lastsFor reports whether a state has lasted for so long, and records in seen that it still does.
func (w *JobWatch) lastsFor(seen map[string]time.Time, now time.Time, what string, long time.Duration) bool {
	since, ok := w.seen[what]
	if !ok {
		since = now
	}
	seen[what] = since
	return now.Sub(since) >= long
}

// testing judges a Job whose test runs.
func (w *JobWatch) testing(v *JobView) Step {
	tests := v.tests()
	for i := range v.Pods {
		p := &v.Pods[i]
		if c := v.cause(p); !over(p) && c.Outlook == health.OutlookFinal && c.Code != health.ContainerCrashed && c.Code != health.ContainerExited {
			return Step{Stop: &Stop{Reason: *brokenBy(p, c)}}
		}
	}
	if done := v.testDone(tests); done != nil {
		if w.done.IsZero() {
			w.done = v.Now
		}
		if v.Now.Sub(w.done) >= settleTime {
			return Step{Stop: &Stop{Done: done}}
		}
	}
	since := v.Now.Sub(w.testStarted)
	switch l := w.Limits; {
	case l.Test > 0 && since > l.Test:
		if unclear := unclearOf(tests); unclear != "" {
			return Step{Stop: &Stop{Reason: *blamed(FaultTest, NotFinished, fmt.Sprintf("%s; it was ended after %s (%s)", unclear, l.Test, l.By))}}
		}
		return Step{Stop: &Stop{Limit: fmt.Sprintf("%s (%s)", l.Test, l.By)}}
	case l.Own > 0 && v.Now.Sub(w.startedAt) > l.Own+suite.Overtime:
		return Step{Stop: &Stop{Reason: *blamed(FaultCluster, NotFinished,
			fmt.Sprintf("the Job's own activeDeadlineSeconds (%s) are over, and it was not ended: its controller may be away", l.Own))}}
	}
	return Step{}
}

// testDone returns how the test ended, if all of its containers have ended and only other containers keep the Job
// from ending; else nil. A test that may be retried has not ended.
func (v *JobView) testDone(tests []podTest) *TestDone {
	spec := &v.Job.Spec
	need := 1
	for _, n := range []*int32{spec.Parallelism, spec.Completions} {
		if n != nil {
			need = int(*n)
		}
	}
	again := spec.BackoffLimitPerIndex != nil || spec.BackoffLimit == nil || *spec.BackoffLimit > 0
	succeeded, kept := 0, false
	for i := range tests {
		t := &tests[i]
		if !t.done() || t.deleted {
			continue
		}
		kept = kept || len(t.beside) > 0 && !over(&v.Pods[i])
		switch {
		case t.failed == nil:
			succeeded++
		case len(t.beside) > 0 && !again && len(t.ended) == 0:
			return &TestDone{t.failed.name, t.failed.exit}
		}
	}
	if kept && succeeded >= need {
		return &TestDone{}
	}
	return nil
}

// notFound matches the messages of the kubelet and the scheduler about a missing object that a volume names.
var notFound = regexp.MustCompile(`(?i)(secret|configmap|persistentvolumeclaim) "[^"]+" not found|references non-existent (secret|config) key`)

// startCause returns why a pod does not start, from its status and its Events.
func (w *JobWatch) startCause(v *JobView, p *corev1.Pod) health.Cause {
	c := v.cause(p)
	warning := v.Events[p.UID].Warning
	said := c.Message
	if c.Code == health.PodStarting && warning != "" {
		c.Message, said = warning, warning
	}
	if m := notFound.FindStringSubmatch(said); m != nil && (c.Code == health.PodStarting || c.Code == health.PodUnschedulable) {
		c.Fault, c.Outlook = health.FaultApp, health.OutlookMayPass // it may have been created a moment after the Job
		switch kind := strings.ToLower(m[1] + m[2]); kind {
		case "secret":
			c.Code = health.SecretNotFound
		case "configmap", "config":
			c.Code = health.ConfigMapNotFound
		}
	}
	return c
}

// over reports whether a pod has ended, or is being deleted.
func over(p *corev1.Pod) bool {
	return p.DeletionTimestamp != nil || slices.Contains([]corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed}, p.Status.Phase)
}
