package jobs

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

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/apply"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A jobWatch is a Job with the last known state of every pod that it ever had: the Job controller deletes the pods of
// a Job that took too long.
type jobWatch struct {
	client     *Experiments
	job        *batchv1.Job
	gone       bool
	pods       map[types.UID]corev1.Pod
	refused    string                             // why it has no pod, as the API server reports it
	events     map[types.UID]experiment.PodEvents // of pods that do not start
	watch      experiment.JobWatch
	stopped    *experiment.Stop // why this client stopped it
	stoppedAt  time.Time        // when it was
	reportWait func(string)     // receives what the Job waits for
}

// QuotaError means that a quota of the namespace keeps a check's Job from being created or from getting a pod.
// Nothing of the Job is left.
type QuotaError struct{ Message string }

func (e *QuotaError) Error() string {
	return "the namespace's quota has no room for the check: " + e.Message
}

// overQuota reports whether a refusal is due to an exhausted quota, by the message of the API server's admission
// plugin ResourceQuota.
func overQuota(message string) bool { return strings.Contains(message, "exceeded quota:") }

// waitEnd waits until the Job has ended and everything about it is known. It fails with a *QuotaError if a quota
// keeps the Job from having a pod.
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

// run watches the Job and its pods until it has ended, or a quota keeps it from having any. It calls beside
// periodically, and reads again what an interrupted watch may have missed. It stops a Job that can't end with a
// result.
func (w *jobWatch) run(ctx context.Context, beside func() error) error {
	watching, stop := context.WithCancel(ctx)
	defer stop()
	events := make(chan func(*jobWatch) error)
	ns, nothing := w.job.Namespace, func(*jobWatch) {}
	itself := metav1.ListOptions{FieldSelector: "metadata.name=" + w.job.Name}
	watchJobs, watchPods := w.client.Kube.BatchV1().Jobs(ns).Watch, w.client.Kube.CoreV1().Pods(ns).Watch
	go cluster.WatchObjects(watching, itself, watchJobs, events, nothing, (*jobWatch).updateJob)
	go cluster.WatchObjects(watching, w.selectPods(), watchPods, events, nothing, (*jobWatch).updatePod)
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
			if err := event(w); err != nil && !cluster.IsTransient(err) { // otherwise the next tick reads it
				return err
			}
		case <-tick.C:
			if err := cluster.Retry(ctx, func() error { return w.refresh(ctx) }); err != nil {
				return err
			}
			if err := beside(); err != nil {
				return err
			}
		}
	}
}

// step stops the Job if it is to be stopped, and reports whether it is over.
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
		return false, cluster.Retry(ctx, func() error { return w.stop(ctx) })
	}
	w.reportWait(s.Wait)
	return false, nil
}

// stop ends the Job by its deadline, so that the Job stays and its pods end as those of any Job do. A Job that
// another controller may start later is deleted.
func (w *jobWatch) stop(ctx context.Context) error {
	jobs := w.client.Kube.BatchV1().Jobs(w.job.Namespace)
	suspended := w.job.Spec.Suspend != nil && *w.job.Spec.Suspend
	var err error
	if suspended || w.job.Spec.ManagedBy != nil {
		err = jobs.Delete(ctx, w.job.Name, apply.DeleteOptions(w.job.UID, false))
	} else {
		patch := fmt.Sprintf(`{"metadata":{"uid":%q},"spec":{"activeDeadlineSeconds":1}}`, w.job.UID)
		_, err = jobs.Patch(
			ctx,
			w.job.Name,
			types.MergePatchType,
			[]byte(patch),
			metav1.PatchOptions{FieldManager: sandbox.FieldManager},
		)
	}
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it is gone
	}
	return cluster.Explain(err)
}

// view returns what is known of the Job.
func (w *jobWatch) view() *experiment.JobView {
	return &experiment.JobView{
		Job:     w.job,
		Gone:    w.gone,
		Pods:    w.sorted(),
		Refused: w.refused,
		Events:  w.events,
		Now:     time.Now(),
	}
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

// refresh reads the Job and its pods, and the Events of pods that are not created or do not start.
func (w *jobWatch) refresh(ctx context.Context) error {
	job, err := w.client.Kube.BatchV1().Jobs(w.job.Namespace).Get(ctx, w.job.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) || err == nil && job.UID != w.job.UID:
		w.gone = true
	case err != nil:
		return cluster.Explain(err)
	default:
		w.updateJob(job, false)
	}
	pods, err := w.client.Kube.CoreV1().Pods(w.job.Namespace).List(ctx, w.selectPods())
	if err != nil {
		return cluster.Explain(err)
	}
	for i := range pods.Items {
		w.updatePod(&pods.Items[i], false)
	}
	w.refused = ""
	if suspended := w.job.Spec.Suspend != nil && *w.job.Spec.Suspend; len(w.pods) == 0 && !suspended {
		w.refused = cluster.LastWarning(
			ctx,
			w.client.Client,
			w.job.Namespace,
			"reason=FailedCreate,involvedObject.uid="+string(w.job.UID),
		)
	}
	w.events = map[types.UID]experiment.PodEvents{}
	for i := range pods.Items {
		if p := &pods.Items[i]; p.Status.Phase == corev1.PodPending && p.DeletionTimestamp == nil {
			w.events[p.UID] = w.client.podEvents(ctx, p)
		}
	}
	return nil
}

// podEvents returns what Events report of a pod that does not start; nothing if the caller may not read them.
func (c *Experiments) podEvents(ctx context.Context, p *corev1.Pod) (n experiment.PodEvents) {
	list, err := c.Kube.CoreV1().
		Events(p.Namespace).
		List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(p.UID)})
	if err != nil {
		return n
	}
	var last time.Time
	for _, e := range list.Items {
		// These are the reasons of the cluster autoscaler and of Karpenter.
		n.ScalesUp = n.ScalesUp || e.Reason == "TriggeredScaleUp" || e.Reason == "Nominated"
		if at := cluster.EventTime(e); e.Type == corev1.EventTypeWarning && !at.Before(last) {
			if lines := cluster.PrintableLines(strings.NewReader(e.Message)); len(lines) > 0 {
				n.Warning, last = lines[0], at
			}
		}
	}
	return n
}

// deleteRefused deletes the Job, so that it gets no pod after this client has stopped watching it.
func (w *jobWatch) deleteRefused(ctx context.Context) error {
	err := w.client.Kube.BatchV1().Jobs(w.job.Namespace).Delete(ctx, w.job.Name, apply.DeleteOptions(w.job.UID, false))
	if err != nil && !apierrors.IsNotFound(err) {
		return cluster.Explain(err)
	}
	return &QuotaError{w.refused}
}

// waitReports waits until every router has reported what it sent, and until it is known why the Job has no pod. It
// gives up after reportTimeout.
func (w *jobWatch) waitReports(ctx context.Context) error {
	for end := time.Now().Add(reportTimeout); ; {
		if err := cluster.Retry(ctx, func() error { return w.refresh(ctx) }); err != nil {
			return err
		}
		// Events are written after what they report.
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

// sent adds up the reports of all pods' routers; nil if one is missing.
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

// wantsPods reports whether the Job is to have any pod.
func (w *jobWatch) wantsPods() bool {
	n := w.job.Spec.Parallelism
	return n == nil || *n > 0
}

// end returns how the Job ended.
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

// log returns the end of the log of the failed test, or of the last one that ran.
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
		body, err := w.client.Kube.CoreV1().
			Pods(p.Namespace).
			GetLogs(p.Name, &corev1.PodLogOptions{Container: container, TailLines: &tail, LimitBytes: &limit}).
			Stream(ctx)
		if err != nil {
			continue // it is deleted, or the caller may not read it: the log is optional
		}
		lines := cluster.PrintableLines(body)
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

// maxLogLine keeps the reports of many checks within the size of one ConfigMap.
const maxLogLine = 160

func routerStatus(p *corev1.Pod) *corev1.ContainerStatus {
	for i := range p.Status.InitContainerStatuses {
		if s := &p.Status.InitContainerStatuses[i]; s.Name == sandbox.RouterContainer {
			return s
		}
	}
	return nil
}

// routerEnd returns how a pod's router ended; nil while it runs, or if there is none. A router that was restarted has
// lost its counts, and counts as none.
func routerEnd(p *corev1.Pod) *corev1.ContainerStateTerminated {
	if s := routerStatus(p); s != nil && s.RestartCount == 0 {
		return s.State.Terminated
	}
	return nil
}
