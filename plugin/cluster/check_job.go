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
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A jobWatch is a Job, with every pod of it that was ever seen, as it was seen last: the Job controller deletes those of a Job that took
// too long.
type jobWatch struct {
	client     *Client
	job        *batchv1.Job
	gone       bool
	pods       map[types.UID]corev1.Pod
	refused    string                             // what keeps it from having any pod, as the API server says it
	events     map[types.UID]experiment.PodEvents // of pods that do not start
	watch      experiment.JobWatch
	stopped    *experiment.Stop // why it was ended from here
	stoppedAt  time.Time        // when it was
	reportWait func(string)     // is told what the Job waits for
}

// QuotaError is that a quota of the namespace keeps a check's Job from having its pod, or from being made: nothing of it is left.
type QuotaError struct{ Message string }

func (e *QuotaError) Error() string {
	return "the namespace's quota has no room for the check: " + e.Message
}

// overQuota says whether a refusal is that of a quota that is used up, in the words of the API server's admission plugin ResourceQuota.
func overQuota(message string) bool { return strings.Contains(message, "exceeded quota:") }

// waitEnd runs until the Job has ended and all of it is known that will be. It fails with a *QuotaError where a quota keeps the Job from
// having a pod.
func (w *jobWatch) waitEnd(ctx context.Context, beside func() error) error {
	for over := false; !over; {
		err := w.run(ctx, beside)
		if err == nil {
			err = w.waitReports(ctx)
		}
		if err != nil {
			return err
		}
		if overQuota(w.refused) { // else there was room after all
			return w.deleteRefused(ctx)
		}
		if over, err = w.step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// run watches the Job and its pods until it has ended, or a quota keeps it from having any, and calls beside every now and then. What a
// watch that was cut off did not see, it looks for then too. What can't come to an end that tells anything is ended.
func (w *jobWatch) run(ctx context.Context, beside func() error) error {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	events := make(chan func(*jobWatch) error)
	ns, nothing := w.job.Namespace, func(*jobWatch) {}
	go watchObjects(watching, metav1.ListOptions{FieldSelector: "metadata.name=" + w.job.Name}, w.client.Kube.BatchV1().Jobs(ns).Watch, events, nothing, (*jobWatch).updateJob)
	go watchObjects(watching, w.selectPods(), w.client.Kube.CoreV1().Pods(ns).Watch, events, nothing, (*jobWatch).updatePod)
	tick := time.NewTicker(stateInterval)
	defer tick.Stop()
	for {
		if over, err := w.step(ctx); over || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event := <-events:
			if err := event(w); err != nil && !IsTransient(err) { // else it is looked at all the same
				return err
			}
		case <-tick.C:
			if err := Retry(ctx, func() error { return w.refresh(ctx) }); err != nil {
				return err
			}
			if err := beside(); err != nil {
				return err
			}
		}
	}
}

// step ends the Job where it is to be ended, and says whether it is over.
func (w *jobWatch) step(ctx context.Context) (over bool, err error) {
	if overQuota(w.refused) {
		return true, nil
	}
	s := w.watch.Next(w.view())
	switch {
	case s.Over, w.stopped != nil && time.Since(w.stoppedAt) > stopTimeout:
		return true, nil
	case w.stopped != nil:
		return false, nil
	case s.Stop != nil:
		w.stopped, w.stoppedAt = s.Stop, time.Now()
		return false, Retry(ctx, func() error { return w.stop(ctx) })
	}
	w.reportWait(s.Wait)
	return false, nil
}

// stop has the Job end: by its deadline, so that it stays, and its pods end as those of any Job do. One that another controller may begin
// later is deleted.
func (w *jobWatch) stop(ctx context.Context) error {
	jobs := w.client.Kube.BatchV1().Jobs(w.job.Namespace)
	suspended := w.job.Spec.Suspend != nil && *w.job.Spec.Suspend
	var err error
	if suspended || w.job.Spec.ManagedBy != nil {
		err = jobs.Delete(ctx, w.job.Name, deleteOptions(w.job.UID, false))
	} else {
		patch := fmt.Sprintf(`{"metadata":{"uid":%q},"spec":{"activeDeadlineSeconds":1}}`, w.job.UID)
		_, err = jobs.Patch(ctx, w.job.Name, types.MergePatchType, []byte(patch), metav1.PatchOptions{FieldManager: sandbox.FieldManager})
	}
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it is gone
	}
	return Explain(err)
}

// view is what is seen of the Job.
func (w *jobWatch) view() *experiment.JobView {
	return &experiment.JobView{Job: w.job, Gone: w.gone, Pods: w.sorted(), Refused: w.refused, Events: w.events, Now: time.Now()}
}

func (w *jobWatch) selectPods() metav1.ListOptions {
	return metav1.ListOptions{LabelSelector: batchv1.ControllerUidLabel + "=" + string(w.job.UID)}
}

func (w *jobWatch) updateJob(job *batchv1.Job, gone bool) {
	if job.UID == w.job.UID {
		w.job, w.gone = job, gone
	}
}

func (w *jobWatch) updatePod(p *corev1.Pod, _ bool) { w.pods[p.UID] = *p }

// refresh reads the Job and its pods as they are, and what Events say of those that do not come or do not start.
func (w *jobWatch) refresh(ctx context.Context) error {
	job, err := w.client.Kube.BatchV1().Jobs(w.job.Namespace).Get(ctx, w.job.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) || err == nil && job.UID != w.job.UID:
		w.gone = true
	case err != nil:
		return Explain(err)
	default:
		w.updateJob(job, false)
	}
	pods, err := w.client.Kube.CoreV1().Pods(w.job.Namespace).List(ctx, w.selectPods())
	if err != nil {
		return Explain(err)
	}
	for i := range pods.Items {
		w.updatePod(&pods.Items[i], false)
	}
	w.refused = ""
	if suspended := w.job.Spec.Suspend != nil && *w.job.Spec.Suspend; len(w.pods) == 0 && !suspended {
		w.refused = w.client.lastWarning(ctx, w.job.Namespace, "reason=FailedCreate,involvedObject.uid="+string(w.job.UID))
	}
	w.events = map[types.UID]experiment.PodEvents{}
	for i := range pods.Items {
		if p := &pods.Items[i]; p.Status.Phase == corev1.PodPending && p.DeletionTimestamp == nil {
			w.events[p.UID] = w.client.podEvents(ctx, p)
		}
	}
	return nil
}

// podEvents returns what Events say of a pod that does not start; nothing where the caller may not see them.
func (c *Client) podEvents(ctx context.Context, p *corev1.Pod) (n experiment.PodEvents) {
	list, err := c.Kube.CoreV1().Events(p.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(p.UID)})
	if err != nil {
		return n
	}
	var last time.Time
	for _, e := range list.Items {
		// The cluster autoscaler and Karpenter say so.
		n.ScalesUp = n.ScalesUp || e.Reason == "TriggeredScaleUp" || e.Reason == "Nominated"
		if at := eventTime(e); e.Type == corev1.EventTypeWarning && !at.Before(last) {
			if lines := printable(strings.NewReader(e.Message)); len(lines) > 0 {
				n.Warning, last = lines[0], at
			}
		}
	}
	return n
}

// deleteRefused deletes the Job, so that it comes to no pod when nobody looks at it any more.
func (w *jobWatch) deleteRefused(ctx context.Context) error {
	err := w.client.Kube.BatchV1().Jobs(w.job.Namespace).Delete(ctx, w.job.Name, deleteOptions(w.job.UID, false))
	if err != nil && !apierrors.IsNotFound(err) {
		return Explain(err)
	}
	return &QuotaError{w.refused}
}

// waitReports looks until every router has said what it sent, and what kept the Job from having a pod is known, or for so long that
// neither will come any more.
func (w *jobWatch) waitReports(ctx context.Context) error {
	for end := time.Now().Add(reportTimeout); ; {
		if err := Retry(ctx, func() error { return w.refresh(ctx) }); err != nil {
			return err
		}
		// Events are told after what they are of.
		waiting := len(w.pods) == 0 && experiment.Ended(w.job) && w.refused == "" && w.stopped == nil && w.wantsPods()
		for _, p := range w.pods {
			waiting = waiting || health.HasRouter(&p) && routerEnd(&p) == nil && p.DeletionTimestamp == nil
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

// wantsPods says whether the Job is to have any pod.
func (w *jobWatch) wantsPods() bool {
	n := w.job.Spec.Parallelism
	return n == nil || *n > 0
}

// end says how the Job ended.
func (w *jobWatch) end() experiment.JobEnd { return w.view().End(w.watch.Limits, w.stopped) }

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
