// Package jobs stores experiments, runs the Jobs of their checks, and observes what they did.
package jobs

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/apply"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Experiments are the experiments of the namespace of a client.
type Experiments struct {
	*cluster.Client
	read  *read.Reader
	write *apply.Writer
}

// New returns the experiments of the client's cluster and namespace.
func New(c *cluster.Client) *Experiments { return &Experiments{c, read.New(c), apply.New(c)} }

// Keys of the data of an experiment's ConfigMap, besides sandbox.DataExpires.
const (
	dataReport = "report" // JSON, an experiment.Report
	dataSpec   = "asked"  // identifies the specification: an experiment with another one is a different experiment
)

// maxReport bounds the size of the report in the ConfigMap, in bytes: the rest of a megabyte is for observations.
const maxReport = 400 << 10

// CronJob reads a CronJob to take a check from.
func (c *Experiments) CronJob(ctx context.Context, name string) (*batchv1.CronJob, error) {
	job, err := c.Kube.BatchV1().CronJobs(c.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, &plan.Problem{
			What: fmt.Sprintf("cronjob %q not found in namespace %q (--from)", name, c.Namespace),
			Hint: "list what exists", Fix: plan.Kubectl("get", "cronjobs"),
		}
	}
	return job, cluster.Explain(err)
}

// CheckService finds the host and port of the Service that a check refers to.
func (c *Experiments) CheckService(ctx context.Context, ref plan.ServiceRef) (sandbox.Service, error) {
	s, err := c.Kube.CoreV1().Services(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return sandbox.Service{}, &plan.Problem{
			What: fmt.Sprintf("service %q not found in namespace %q", ref.Name, ref.Namespace),
			Hint: "list what exists", Fix: plan.Kubectl("get", "services", "--namespace="+ref.Namespace),
		}
	}
	if err != nil {
		return sandbox.Service{}, cluster.Explain(err)
	}
	port, err := plan.ServicePort(s, ref.Port)
	if err != nil {
		return sandbox.Service{}, err
	}
	host := ref.Name
	if ref.Namespace != c.Namespace {
		host += "." + ref.Namespace
	}
	return sandbox.Service{Host: host, Port: uint16(port.Port)}, nil //nolint:gosec // the API server admits 1 to 65535
}

// Probes reads the cluster's settings for built-in checks, except the key carriers. If the chart names no image for
// them, the error is a *plan.Problem.
func (c *Experiments) Probes(ctx context.Context) (suite.Probes, error) {
	annotations, err := c.chartAnnotations(
		ctx,
		sandbox.AnnotationProbeImage,
		"the suite has built-in checks (image: "+suite.ProbeImage+"), and the cluster's chart names no image of theirs",
	)
	if err != nil {
		return suite.Probes{}, err
	}
	p := suite.Probes{Image: annotations[sandbox.AnnotationProbeImage]}
	if rate, err := strconv.ParseFloat(annotations[sandbox.AnnotationMaxRate], 64); err == nil && rate > 0 {
		p.MaxRate = rate
	}
	return p, nil
}

// chartAnnotations returns the annotations of the chart's MutatingWebhookConfiguration. If the needed one is missing,
// the error is a *plan.Problem.
func (c *Experiments) chartAnnotations(ctx context.Context, needed, without string) (map[string]string, error) {
	config, err := c.Kube.AdmissionregistrationV1().
		MutatingWebhookConfigurations().
		Get(ctx, cluster.WebhookConfiguration, metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, cluster.Explain(err)
	}
	if err != nil || config.Annotations[needed] == "" {
		return nil, &plan.Problem{
			What: without + ": it is not installed, or of an older version",
			Hint: "see what is installed", Fix: plan.Kubectl("sandbox", "version"),
		}
	}
	return config.Annotations, nil
}

// An Experiment is the stored state of an experiment.
type Experiment struct {
	ConfigMap *corev1.ConfigMap
	Report    *experiment.Report
	Began     bool // by this client, and not by one before it

	holder string // this client, where it runs the experiment

	mu      sync.Mutex // held while keys come to be observed, and while counts are waited for
	observe []string   // keys that are observed, as they came; nil: those of ConfigMap
}

// StartExperiment creates the ConfigMap of an experiment. If one of the same ID and specification exists and has not
// ended, it returns that, to be resumed. With hold, this client becomes the holder, and no other may run the
// experiment.
func (c *Experiments) StartExperiment(
	ctx context.Context,
	r *experiment.Report,
	requested string,
	expires time.Time,
	hold bool,
) (*Experiment, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	cm := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name: sandbox.RunName(r.ID), Namespace: c.Namespace,
			Labels: map[string]string{sandbox.LabelRole: sandbox.RoleRun, sandbox.LabelRun: r.ID},
		},
		Data: map[string]string{dataReport: string(data), dataSpec: requested},
	}
	holder := ""
	if hold {
		holder = rand.Text()
	}
	cm.Data[dataHolder], cm.Data[dataHeartbeat] = holder, rand.Text()
	if !expires.IsZero() {
		cm.Data[sandbox.DataExpires] = expires.UTC().Format(time.RFC3339)
	}
	made, err := c.Kube.CoreV1().
		ConfigMaps(c.Namespace).
		Create(ctx, cm, metav1.CreateOptions{FieldManager: sandbox.FieldManager})
	if err == nil {
		return &Experiment{ConfigMap: made, Report: r, Began: true, holder: holder}, nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return nil, cluster.Explain(err)
	}
	there, err := c.Experiment(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	switch {
	case there.ConfigMap.Data[dataSpec] != requested:
		return nil, &plan.Problem{
			What: fmt.Sprintf(
				"experiment %q is there already, of another suite or of other variants; choose another --id",
				r.ID,
			),
			Hint: "see its report",
			Fix:  plan.Kubectl("sandbox", "report", r.ID),
		}
	case !there.Report.Window.Ended.IsZero():
		return nil, hasEnded(there.Report)
	}
	if hold {
		err = c.takeOver(ctx, there)
	}
	return there, err
}

// Experiment reads the stored state of an experiment. If it does not exist, the error is a *plan.Problem.
func (c *Experiments) Experiment(ctx context.Context, id string) (*Experiment, error) {
	cm, err := c.Kube.CoreV1().ConfigMaps(c.Namespace).Get(ctx, sandbox.RunName(id), metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && cm.Labels[sandbox.LabelRole] != sandbox.RoleRun {
		return nil, &plan.Problem{
			What: fmt.Sprintf("experiment %q not found in namespace %q", id, c.Namespace),
			Hint: "list what exists",
			Fix:  plan.Kubectl("get", "configmaps", "--selector="+sandbox.LabelRole+"="+sandbox.RoleRun),
		}
	}
	if err != nil {
		return nil, cluster.Explain(err)
	}
	r := &experiment.Report{}
	if err := json.Unmarshal([]byte(cm.Data[dataReport]), r); err != nil || r.Kind != experiment.ReportKind {
		return nil, fmt.Errorf("configmap/%s: data.%s is no report of an experiment", cm.Name, dataReport)
	}
	if err := r.Validate(); err != nil {
		return nil, &plan.Problem{
			What: fmt.Sprintf("configmap/%s: data.%s is no report that this version wrote: %v", cm.Name, dataReport, err),
			Hint: "somebody may have changed it, or another version of the plugin made it; it says",
			Fix:  plan.Kubectl("get", "configmap", cm.Name, "--output=yaml"),
		}
	}
	return &Experiment{ConfigMap: cm, Report: r}, nil
}

// ExperimentIDs returns the IDs of the experiments of the client's namespace.
func (c *Experiments) ExperimentIDs(ctx context.Context) ([]string, error) {
	list, err := c.Kube.CoreV1().
		ConfigMaps(c.Namespace).
		List(ctx, metav1.ListOptions{LabelSelector: sandbox.LabelRole + "=" + sandbox.RoleRun})
	if err != nil {
		return nil, cluster.Explain(err)
	}
	var ids []string
	for i := range list.Items {
		ids = append(ids, list.Items[i].Labels[sandbox.LabelRun])
	}
	return ids, nil
}

// SaveReport stores the results so far. It fails if the experiment was deleted meanwhile, or another client runs it
// now.
func (c *Experiments) SaveReport(ctx context.Context, e *Experiment) error {
	data, err := e.Report.Encode(maxReport)
	if err != nil {
		return err
	}
	return c.patchAsHolder(ctx, e, map[string]string{dataReport: string(data), dataHeartbeat: rand.Text()})
}

// AbandonExperiment deletes an experiment with its Jobs, and the named sandboxes, and returns what is left. It has
// its own timeout, because ctx may have ended. If another client runs the experiment now, it deletes nothing and
// returns ErrNotHolder.
func (c *Experiments) AbandonExperiment(
	ctx context.Context,
	e *Experiment,
	sandboxes []string,
) (left []string, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), apply.CleanUpTime)
	defer cancel()
	if e.holder != "" {
		if err := c.patchAsHolder(ctx, e, map[string]string{dataHeartbeat: rand.Text()}); errors.Is(err, ErrNotHolder) {
			return nil, err
		}
	}
	if err := c.write.DeleteSandbox(ctx, e.ConfigMap, false); err != nil {
		left = append(left, "configmap/"+e.ConfigMap.Name)
	}
	return append(left, c.DeleteCreated(ctx, e.Report.ID, sandboxes)...), nil
}

// DeleteCreated deletes those of the sandboxes that experiment id created, and returns which are left.
func (c *Experiments) DeleteCreated(ctx context.Context, id string, sandboxes []string) (left []string) {
	for _, name := range sandboxes {
		cm, err := c.read.SandboxConfigMap(ctx, name)
		if err == nil && (!read.IsSandbox(cm, name) || cm.Labels[sandbox.LabelRun] != id) {
			continue
		}
		if err == nil {
			err = c.write.DeleteSandbox(ctx, cm, false)
		}
		if err != nil {
			left = append(left, "configmap/"+sandbox.ConfigMapName(name))
		}
	}
	return left
}

// createJob creates a check's Job. An existing Job is of a client that ended earlier. Nobody observed it, so it is
// deleted and created again.
func (c *Experiments) createJob(ctx context.Context, job *batchv1.Job) (*batchv1.Job, error) {
	api := c.Kube.BatchV1().Jobs(c.Namespace)
	for {
		var made *batchv1.Job
		err := cluster.Retry(ctx, func() (err error) {
			made, err = api.Create(ctx, job, metav1.CreateOptions{FieldManager: sandbox.FieldManager})
			return err
		})
		if !apierrors.IsAlreadyExists(err) {
			return made, cluster.Explain(err)
		}
		var old *batchv1.Job
		err = cluster.Retry(ctx, func() (err error) { old, err = api.Get(ctx, job.Name, metav1.GetOptions{}); return err })
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, cluster.Explain(err)
		}
		if old.Labels[sandbox.LabelRun] != job.Labels[sandbox.LabelRun] {
			return nil, &plan.Problem{
				What: fmt.Sprintf("job/%s is there already, and not of experiment %s", job.Name, job.Labels[sandbox.LabelRun]),
			}
		}
		err = cluster.Retry(ctx, func() error { return api.Delete(ctx, old.Name, apply.DeleteOptions(old.UID, false)) })
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return nil, cluster.Explain(err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(200 * time.Millisecond): // until its pods are gone and it with them
		}
	}
}
