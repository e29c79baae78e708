package experiment

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
}

// A Variant is a sandbox that is checked.
type Variant struct {
	Name    string // as people call it
	Sandbox string
	Key     string
}

// Job returns the Job that runs check c on variant v, whose requests go to services. It is the author's but for what the experiment
// stands on: names and marks, no second try that would hide the first unless the author asks for it, an end, and its results
// staying until they are read. What the author's Job says of suspension, of queues and of security stays as it is.
func Job(run *Run, v *Variant, c *Check, services []sandbox.Service) *batchv1.Job {
	job := frame(run, c)
	job.Name = sandbox.CheckName(c.Name, v.Sandbox, run.ID)
	pod := &job.Spec.Template
	for _, m := range []*metav1.ObjectMeta{&job.ObjectMeta, &pod.ObjectMeta} {
		for k, value := range map[string]string{
			sandbox.LabelRun: run.ID, sandbox.LabelCheck: c.Name, sandbox.LabelSandbox: v.Sandbox, sandbox.LabelRole: sandbox.RoleCheck,
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

// frame returns what the Job of any check is made in: the author's, owned by the run, with an end and without what would hide it.
func frame(run *Run, c *Check) *batchv1.Job {
	job := &batchv1.Job{
		TypeMeta: metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: run.Namespace, Labels: clone(c.Job.Labels), Annotations: clone(c.Job.Annotations),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: sandbox.RunName(run.ID), UID: run.UID}},
		},
		Spec: *c.Job.Spec.DeepCopy(),
	}
	timeout := int64(math.Ceil(c.timeout(run).Seconds()))
	if d := job.Spec.ActiveDeadlineSeconds; c.Timeout > 0 || d == nil || *d > timeout {
		job.Spec.ActiveDeadlineSeconds = &timeout
	}
	job.Spec.TTLSecondsAfterFinished = nil
	job.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	return job
}

// timeout is how long the check may take.
func (c *Check) timeout(run *Run) time.Duration {
	if c.Timeout > 0 {
		return c.Timeout
	}
	return run.Timeout
}

// Deadline is how long to wait for a Job: longer than it may run, since what can't be scheduled does not begin to.
func Deadline(job *batchv1.Job) time.Duration {
	const slack = 30 * time.Second
	if job.Spec.ActiveDeadlineSeconds == nil {
		return slack
	}
	return time.Duration(*job.Spec.ActiveDeadlineSeconds)*time.Second + slack
}

func clone(m map[string]string) map[string]string {
	out := make(map[string]string, len(m)+4)
	for k, v := range m {
		out[k] = v
	}
	return out
}
