package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A jobWatch is a Job, with every pod of its that was ever seen, as it was seen last: the Job controller deletes those of a Job that took
// too long.
type jobWatch struct {
	client *Client
	job    *batchv1.Job
	gone   bool
	pods   map[types.UID]corev1.Pod
	begun  time.Time // when it was first seen not to be suspended
	kept   string    // what keeps it from having any pod, as the API server says it
}

// NoRoom is that a quota of the namespace keeps a check's Job from having its pod, or from being made: nothing of it is left.
type NoRoom struct{ Message string }

func (e *NoRoom) Error() string {
	return "the namespace's quota has no room for the check: " + e.Message
}

// overQuota says whether a refusal is that of a quota that is used up, in the words of the API server's admission plugin ResourceQuota.
func overQuota(message string) bool { return strings.Contains(message, "exceeded quota:") }

// run watches the Job and its pods until it has ended, or should have long ago, or a quota keeps it from having any, and calls beside
// every now and then. What a watch that was cut off did not see, it looks for then too.
func (w *jobWatch) run(ctx context.Context, beside func() error) error {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	events := make(chan func(*jobWatch) error)
	ns, nothing := w.job.Namespace, func(*jobWatch) {}
	go follow(watching, metav1.ListOptions{FieldSelector: "metadata.name=" + w.job.Name}, w.client.Kube.BatchV1().Jobs(ns).Watch, events, nothing, (*jobWatch).seeJob)
	go follow(watching, w.selectPods(), w.client.Kube.CoreV1().Pods(ns).Watch, events, nothing, (*jobWatch).seePod)
	tick := time.NewTicker(stateInterval)
	defer tick.Stop()
	for !w.ended() && !w.late() && !overQuota(w.kept) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event := <-events:
			if err := event(w); err != nil && !IsTransient(err) { // else it is looked at all the same
				return err
			}
		case <-tick.C:
			if err := Persist(ctx, func() error { return w.look(ctx) }); err != nil {
				return err
			}
			if err := beside(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *jobWatch) selectPods() metav1.ListOptions {
	return metav1.ListOptions{LabelSelector: batchv1.ControllerUidLabel + "=" + string(w.job.UID)}
}

func (w *jobWatch) seeJob(job *batchv1.Job, gone bool) {
	if job.UID == w.job.UID {
		w.job, w.gone = job, gone
	}
	if w.begun.IsZero() && (w.job.Spec.Suspend == nil || !*w.job.Spec.Suspend) {
		w.begun = time.Now()
	}
}

func (w *jobWatch) seePod(p *corev1.Pod, _ bool) { w.pods[p.UID] = *p }

// look reads the Job and its pods as they are.
func (w *jobWatch) look(ctx context.Context) error {
	job, err := w.client.Kube.BatchV1().Jobs(w.job.Namespace).Get(ctx, w.job.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) || err == nil && job.UID != w.job.UID:
		w.gone = true
	case err != nil:
		return Explain(err)
	default:
		w.seeJob(job, false)
	}
	pods, err := w.client.Kube.CoreV1().Pods(w.job.Namespace).List(ctx, w.selectPods())
	if err != nil {
		return Explain(err)
	}
	for i := range pods.Items {
		w.seePod(&pods.Items[i], false)
	}
	if w.kept = ""; len(w.pods) == 0 && !w.begun.IsZero() {
		w.kept = w.client.lastWarning(ctx, w.job.Namespace, "reason=FailedCreate,involvedObject.uid="+string(w.job.UID))
	}
	return nil
}

// giveUp deletes the Job, so that it comes to no pod when nobody looks at it any more.
func (w *jobWatch) giveUp(ctx context.Context) error {
	err := w.client.Kube.BatchV1().Jobs(w.job.Namespace).Delete(ctx, w.job.Name, deleteOptions(w.job.UID, false))
	if err != nil && !apierrors.IsNotFound(err) {
		return Explain(err)
	}
	return &NoRoom{w.kept}
}

// jobCondition returns the condition of a Job that is of that type and true; nil: there is none.
func jobCondition(job *batchv1.Job, of batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range job.Status.Conditions {
		if c := &job.Status.Conditions[i]; c.Type == of && c.Status == corev1.ConditionTrue {
			return c
		}
	}
	return nil
}

func jobEnded(job *batchv1.Job) bool {
	return jobCondition(job, batchv1.JobComplete) != nil || jobCondition(job, batchv1.JobFailed) != nil
}

func (w *jobWatch) ended() bool { return w.gone || jobEnded(w.job) }

// late says that the Job should have ended long ago: nothing runs it.
func (w *jobWatch) late() bool {
	return !w.ended() && !w.begun.IsZero() && time.Since(w.begun) > experiment.Deadline(w.job)
}

// lookForReports looks until every router has said what it sent, and what kept the Job from having a pod is known, or for so long that
// neither will come any more.
func (w *jobWatch) lookForReports(ctx context.Context) error {
	for end := time.Now().Add(reportTimeout); ; {
		if err := Persist(ctx, func() error { return w.look(ctx) }); err != nil {
			return err
		}
		// Events are told after what they are of.
		waiting := len(w.pods) == 0 && jobCondition(w.job, batchv1.JobFailed) != nil && w.kept == ""
		for _, p := range w.pods {
			waiting = waiting || hasRouter(&p) && routerEnd(&p) == nil && p.DeletionTimestamp == nil
		}
		if !waiting || w.gone || time.Now().After(end) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(jobInterval):
		}
	}
}

// sent adds up what the routers of all pods said; nil where one said nothing.
func (w *jobWatch) sent() *route.Sent {
	var all route.Sent
	for _, p := range w.pods {
		end := routerEnd(&p)
		if end == nil {
			return nil
		}
		var one route.Sent
		if json.Unmarshal([]byte(end.Message), &one) != nil {
			return nil
		}
		all = all.Add(one)
	}
	if len(w.pods) == 0 {
		return nil
	}
	return &all
}

// end says how the Job ended.
func (w *jobWatch) end() experiment.JobEnd {
	j := experiment.JobEnd{Complete: jobCondition(w.job, batchv1.JobComplete) != nil, Pods: len(w.pods)}
	if d := w.job.Spec.ActiveDeadlineSeconds; d != nil {
		j.Deadline = time.Duration(*d) * time.Second
		j.Starting = w.starting(j.Deadline)
	}
	if c := jobCondition(w.job, batchv1.JobFailed); c != nil {
		j.Failed, j.Reason, j.Message = true, c.Reason, c.Message
	}
	switch {
	case w.gone:
		j.Broken = "the Job was deleted before it ended"
	case w.kept != "":
		j.Broken = "the Job came to no pod: " + w.kept
	}
	for _, p := range w.sorted() {
		if !hasRouter(&p) && p.Labels[sandbox.LabelRole] == sandbox.RoleCheck {
			j.Uninjected = append(j.Uninjected, "pod/"+p.Name)
		}
		if why := broken(&p); why != "" && !j.Complete && j.Broken == "" {
			j.Broken = "pod/" + p.Name + " " + why
		}
		for _, c := range p.Status.ContainerStatuses {
			if t := c.State.Terminated; t != nil && t.ExitCode != 0 && j.Container == "" {
				j.Container, j.Exit = c.Name, t.ExitCode
			}
		}
	}
	return j
}

// starting is how long it took until the first test began; most where none is known to have.
func (w *jobWatch) starting(most time.Duration) time.Duration {
	if w.job.Status.StartTime == nil {
		return most
	}
	for _, p := range w.pods {
		for _, c := range p.Status.ContainerStatuses {
			var began metav1.Time
			switch {
			case c.State.Running != nil:
				began = c.State.Running.StartedAt
			case c.State.Terminated != nil:
				began = c.State.Terminated.StartedAt
			}
			if !began.IsZero() {
				most = min(most, max(0, began.Sub(w.job.Status.StartTime.Time)))
			}
		}
	}
	return most
}

// sorted returns the pods, the oldest first.
func (w *jobWatch) sorted() []corev1.Pod {
	var out []corev1.Pod
	for _, p := range w.pods {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b corev1.Pod) int {
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out
}

// broken says what kept a pod from running its test to an end of the test's own; empty: nothing did.
func broken(p *corev1.Pod) string {
	for _, c := range p.Status.Conditions {
		switch {
		case c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue:
			return "was evicted: " + c.Message
		case c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse:
			return "found no node: " + c.Message
		}
	}
	if p.Status.Reason == "Evicted" || p.Status.Reason == "NodeLost" || p.Status.Reason == "UnexpectedAdmissionError" {
		return "was evicted: " + p.Status.Message
	}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		if s := c.State.Waiting; s != nil && s.Reason != "PodInitializing" && s.Reason != "ContainerCreating" && s.Reason != "" {
			return fmt.Sprintf("could not start container %s: %s", c.Name, strings.TrimSpace(s.Reason+" "+s.Message))
		}
		if t := c.State.Terminated; t != nil && t.Reason == "OOMKilled" {
			return fmt.Sprintf("ran out of memory in container %s", c.Name)
		}
		if t := c.State.Terminated; t != nil && (t.Reason == "StartError" || t.Reason == "ContainerCannotRun") {
			return fmt.Sprintf("could not start container %s: %s", c.Name, t.Message)
		}
	}
	return ""
}

// log returns the end of the log of the test that failed, or of the last that ran.
func (w *jobWatch) log(ctx context.Context) []string {
	pods := w.sorted()
	slices.Reverse(pods)
	for _, p := range pods {
		container := p.Spec.Containers[0].Name
		for _, c := range p.Status.ContainerStatuses {
			if t := c.State.Terminated; t != nil && t.ExitCode != 0 {
				container = c.Name
				break
			}
		}
		tail, limit := int64(20), int64(64<<10)
		body, err := w.client.Kube.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: container, TailLines: &tail, LimitBytes: &limit}).Stream(ctx)
		if err != nil {
			continue // it is gone, or the caller may not: a nicety
		}
		lines := printable(body)
		_ = body.Close()
		for i, line := range lines {
			if r := []rune(line); len(r) > maxLogLine {
				lines[i] = string(r[:maxLogLine]) + "..."
			}
		}
		return lines
	}
	return nil
}

// maxLogLine keeps the reports of many checks within one ConfigMap.
const maxLogLine = 160

func hasRouter(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == sandbox.RouterContainer })
}

func routerStatus(p *corev1.Pod) *corev1.ContainerStatus {
	for i := range p.Status.InitContainerStatuses {
		if s := &p.Status.InitContainerStatuses[i]; s.Name == sandbox.RouterContainer {
			return s
		}
	}
	return nil
}

// routerEnd is how a pod's router ended; nil while it runs, or where there is none. One that was restarted has lost what it counted.
func routerEnd(p *corev1.Pod) *corev1.ContainerStateTerminated {
	if s := routerStatus(p); s != nil && s.RestartCount == 0 {
		return s.State.Terminated
	}
	return nil
}
