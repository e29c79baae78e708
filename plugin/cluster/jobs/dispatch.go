package jobs

import (
	"context"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/apply"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// PluginImage returns the plugin's image that the cluster's chart names. If it names none, the error is a
// *plan.Problem.
func (c *Experiments) PluginImage(ctx context.Context) (string, error) {
	annotations, err := c.chartAnnotations(
		ctx,
		sandbox.AnnotationPluginImage,
		"--wait=false: the cluster's chart names no image of the plugin",
	)
	return annotations[sandbox.AnnotationPluginImage], err
}

// Dispatch creates the Job that runs an experiment in the cluster, unless a Job or a client already runs it.
func (c *Experiments) Dispatch(ctx context.Context, e *Experiment, suites *corev1.ConfigMap, job *batchv1.Job) error {
	options := metav1.CreateOptions{FieldManager: sandbox.FieldManager}
	account := job.Spec.Template.Spec.ServiceAccountName
	_, err := c.Kube.CoreV1().ServiceAccounts(c.Namespace).Get(ctx, account, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return &plan.Problem{
			What: fmt.Sprintf("--service-account: serviceaccount %q not found in namespace %q", account, c.Namespace),
			Hint: "list what exists", Fix: plan.Kubectl("get", "serviceaccounts"),
		}
	} // whoever may not read them learns it from the Job
	there, err := c.Kube.BatchV1().Jobs(c.Namespace).Get(ctx, job.Name, metav1.GetOptions{})
	switch {
	case err != nil && !apierrors.IsNotFound(err):
		return cluster.Explain(err)
	case err == nil && !experiment.Ended(there) && apply.OwnedBy(there.OwnerReferences, e.ConfigMap.UID):
		return nil
	}
	if !e.Began {
		if err := c.waitReleased(ctx, e); err != nil {
			return err
		}
	}
	configMaps := c.Kube.CoreV1().ConfigMaps(c.Namespace)
	_, err = configMaps.Create(ctx, suites, options)
	if apierrors.IsAlreadyExists(err) {
		var old *corev1.ConfigMap
		old, err = configMaps.Get(ctx, suites.Name, metav1.GetOptions{})
		if err == nil && old.Labels[sandbox.LabelRun] != suites.Labels[sandbox.LabelRun] {
			return &plan.Problem{
				What: fmt.Sprintf("configmap/%s is there already, and not of experiment %s", suites.Name, e.Report.ID),
			}
		}
		if err == nil {
			_, err = configMaps.Update(ctx, suites, metav1.UpdateOptions{FieldManager: sandbox.FieldManager})
		}
	}
	if err != nil {
		return cluster.Explain(err)
	}
	_, err = c.createJob(ctx, job)
	return cluster.Explain(err)
}

// WaitExperiment polls an experiment until it has ended. It fails if nobody runs it any more: there is no Job for it,
// and its client's heartbeat has stopped.
func (c *Experiments) WaitExperiment(ctx context.Context, id string) (*Experiment, error) {
	lastHeartbeat, since := "", time.Now()
	for {
		began := time.Now()
		var job *batchv1.Job
		err := cluster.Retry(ctx, func() (err error) {
			job, err = c.Kube.BatchV1().Jobs(c.Namespace).Get(ctx, sandbox.RunJobName(id), metav1.GetOptions{})
			return err
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, cluster.Explain(err)
		}
		alone := err != nil
		var e *Experiment // read after the Job: what that wrote last is in it
		err = cluster.Retry(ctx, func() (err error) { e, err = c.Experiment(ctx, id); return err })
		if err != nil || !e.Report.Window.Ended.IsZero() {
			return e, err
		}
		outage := time.Since(began) > 2*cluster.RetryInterval // during which nobody could write
		if now := e.ConfigMap.Data[dataHeartbeat]; now != lastHeartbeat || outage {
			lastHeartbeat, since = now, time.Now()
		}
		silent := time.Since(since) > holderTimeout
		switch {
		case silent && !alone && experiment.Ended(job):
			return nil, &plan.Problem{
				What: fmt.Sprintf("experiment %s was not done: the Job that was to run it has ended", id),
				Hint: "its log", Fix: plan.Kubectl("logs", "job/"+job.Name),
			}
		case silent && alone:
			return nil, &plan.Problem{
				What: fmt.Sprintf(
					"experiment %s has not ended, and nobody runs it; the command that began it goes on with it, with --id=%s",
					id,
					id,
				),
				Hint: "what it found so far",
				Fix:  plan.Kubectl("sandbox", "report", id),
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(2 * time.Second):
		}
	}
}
