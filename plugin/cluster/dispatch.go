package cluster

import (
	"context"
	"fmt"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// PluginImage is the image of the plugin that the cluster's chart names. Where there is none, that is a *plan.Problem.
func (c *Client) PluginImage(ctx context.Context) (string, error) {
	told, err := c.told(ctx, sandbox.AnnotationPluginImage, "--wait=false: the cluster's chart names no image of the plugin")
	return told[sandbox.AnnotationPluginImage], err
}

// Dispatch makes what runs an experiment in the cluster. What there is already of it runs it already; a Job that has ended, without the
// experiment having done so, is made anew.
func (c *Client) Dispatch(ctx context.Context, suites *corev1.ConfigMap, job *batchv1.Job) error {
	options := metav1.CreateOptions{FieldManager: sandbox.FieldManager}
	if _, err := c.Kube.CoreV1().ServiceAccounts(c.Namespace).Get(ctx, job.Spec.Template.Spec.ServiceAccountName, metav1.GetOptions{}); apierrors.IsNotFound(err) {
		return &plan.Problem{
			What: fmt.Sprintf("--service-account: serviceaccount %q not found in namespace %q", job.Spec.Template.Spec.ServiceAccountName, c.Namespace),
			Say:  "those there are", Fix: plan.Kubectl("get", "serviceaccounts"),
		}
	} // whoever may not read them learns it from the Job
	if _, err := c.Kube.CoreV1().ConfigMaps(c.Namespace).Create(ctx, suites, options); err != nil && !apierrors.IsAlreadyExists(err) {
		return Explain(err)
	}
	_, err := c.Kube.BatchV1().Jobs(c.Namespace).Create(ctx, job, options)
	if !apierrors.IsAlreadyExists(err) {
		return Explain(err)
	}
	there, err := c.Kube.BatchV1().Jobs(c.Namespace).Get(ctx, job.Name, metav1.GetOptions{})
	if err == nil && jobEnded(there) {
		_, err = c.makeJob(ctx, job)
	}
	return Explain(err)
}

// AwaitExperiment reads an experiment again and again until it has ended. It fails where nobody runs it any more: nothing was heard for
// some time of a client that does, and no Job is to.
func (c *Client) AwaitExperiment(ctx context.Context, id string) (*Experiment, error) {
	heard, since := "", time.Now()
	for {
		var job *batchv1.Job
		err := persist(ctx, func() (err error) {
			job, err = c.Kube.BatchV1().Jobs(c.Namespace).Get(ctx, sandbox.RunJobName(id), metav1.GetOptions{})
			return err
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, Explain(err)
		}
		alone := err != nil
		var e *Experiment // read after the Job: what that wrote last is in it
		err = persist(ctx, func() (err error) { e, err = c.Experiment(ctx, id); return err })
		if err != nil || !e.Report.Window.Ended.IsZero() {
			return e, err
		}
		if now := e.ConfigMap.Data[dataHeard]; now != heard {
			heard, since = now, time.Now()
		}
		silent := time.Since(since) > silentTime
		switch {
		case silent && !alone && jobEnded(job):
			return nil, &plan.Problem{
				What: fmt.Sprintf("experiment %s was not done: the Job that was to run it has ended", id),
				Say:  "its log", Fix: plan.Kubectl("logs", "job/"+job.Name),
			}
		case silent && alone:
			return nil, &plan.Problem{
				What: fmt.Sprintf("experiment %s has not ended, and nobody runs it; the command that began it goes on with it, with --id=%s", id, id),
				Say:  "what it found so far", Fix: plan.Kubectl("sandbox", "report", id),
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(2 * time.Second):
		}
	}
}

func jobEnded(job *batchv1.Job) bool {
	return slices.ContainsFunc(job.Status.Conditions, func(c batchv1.JobCondition) bool {
		return (c.Type == batchv1.JobFailed || c.Type == batchv1.JobComplete) && c.Status == corev1.ConditionTrue
	})
}
