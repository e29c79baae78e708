package suite

import (
	"math"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A Run is one experiment.
type Run struct {
	ID, Namespace string
	UID           types.UID     // of its ConfigMap
	Timeout       time.Duration // of a check that says none
	Objects       []Object      // that the suite brings
}

// owner returns the owner reference of all objects of the experiment.
func (r *Run) owner() metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: sandbox.RunName(r.ID), UID: r.UID}
}

// A Variant is a sandbox that is checked.
type Variant struct {
	Name    string // as people call it
	Sandbox string
	Key     string
}

// Job returns the Job that runs check c on variant v, whose requests go to services. It is the author's Job with
// these changes: names and labels; no retry that would hide a failure, unless the author requests it; a deadline; and
// no early deletion of its results. Suspension, queues, security and the Job's own deadline stay as the author set
// them.
func Job(run *Run, v *Variant, c *Check, services []sandbox.Service) *batchv1.Job {
	job := frame(run, c)
	job.Name = sandbox.CheckName(c.Name, v.Sandbox, run.ID)
	pod := &job.Spec.Template
	for _, m := range []*metav1.ObjectMeta{&job.ObjectMeta, &pod.ObjectMeta} {
		for k, value := range map[string]string{
			sandbox.LabelRun: run.ID, sandbox.LabelCheck: c.Name,
			sandbox.LabelSandbox: v.Sandbox, sandbox.LabelRole: sandbox.RoleCheck,
		} {
			metav1.SetMetaDataLabel(m, k, value)
		}
	}
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, sandbox.AnnotationKey, v.Key)
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, sandbox.AnnotationServices, sandbox.FormatServices(services))
	if off, ok := c.Job.Annotations[sandbox.AnnotationOutgoing]; ok {
		metav1.SetMetaDataAnnotation(&pod.ObjectMeta, sandbox.AnnotationOutgoing, off)
	}
	if job.Spec.BackoffLimit == nil && job.Spec.BackoffLimitPerIndex == nil {
		job.Spec.BackoffLimit = ptr.To[int32](0)
	}
	return job
}

// frame returns the common form of a check's Job: the author's, owned by the run, with a deadline, and without
// settings that would hide its result.
func frame(run *Run, c *Check) *batchv1.Job {
	job := &batchv1.Job{
		TypeMeta: metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: run.Namespace, Labels: clone(c.Job.Labels), Annotations: clone(c.Job.Annotations),
			OwnerReferences: []metav1.OwnerReference{run.owner()},
		},
		Spec: *c.Job.Spec.DeepCopy(),
	}
	if job.Spec.ActiveDeadlineSeconds == nil {
		// This deadline is for a client that does not survive. A running client stops the Job earlier.
		job.Spec.ActiveDeadlineSeconds = ptr.To(int64(math.Ceil((startTime + c.Limits(run).Test + Overtime).Seconds())))
	}
	job.Spec.TTLSecondsAfterFinished = nil
	// If the kubelet restarted a container, the log and state of the first run would be lost. The Job's own retries
	// keep them.
	job.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	placedNames(run).pod(&job.Spec.Template.Spec)
	return job
}

// startTime is how long the pods of a check may take to start: to be created and scheduled, and to get their volumes
// and images.
const startTime = 5 * time.Minute

// Overtime is how long to wait for the end of a Job after its limit.
const Overtime = 30 * time.Second

// Limits are the time limits of a Job. Own is its own deadline, which Kubernetes enforces.
type Limits struct {
	Test      time.Duration // from the start of the first test's container; 0: Own alone limits it
	By        string        // where Test is from, for people
	Own       time.Duration // the Job's own activeDeadlineSeconds, from the Job's start; 0: it has none
	Start     time.Duration // until the first test's container starts
	Admission time.Duration // while another controller keeps the Job from beginning
	// Longer means that Own exceeds the experiment's --timeout.
	Longer bool
}

// Limits returns the time limits of a check's Job.
func (c *Check) Limits(run *Run) Limits {
	l := Limits{Start: startTime, Admission: run.Timeout}
	if d := c.Job.Spec.ActiveDeadlineSeconds; d != nil {
		l.Own = time.Duration(*d) * time.Second
		l.Longer = l.Own > run.Timeout
	}
	switch {
	case c.Timeout > 0:
		l.Test, l.Admission, l.By = c.Timeout, c.Timeout, "annotation "+sandbox.AnnotationTimeout
	case l.Own == 0:
		l.Test, l.By = run.Timeout, "--timeout"
	}
	return l
}

// QuotaWait returns how long a check waits for room in the namespace's quota.
func (l Limits) QuotaWait() time.Duration { return max(l.Test, l.Admission) + Overtime }

func clone(m map[string]string) map[string]string {
	out := make(map[string]string, len(m)+4)
	for k, v := range m {
		out[k] = v
	}
	return out
}
