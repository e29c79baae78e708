package suite

import (
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// suitePath is where a Runner finds the suites.
const suitePath = "/suite"

// A Runner runs an experiment in the cluster, without a waiting client.
type Runner struct {
	Image          string
	ServiceAccount string   // whose rights it has
	Args           []string // of `kubectl sandbox`, without the suites
	Suite          string   // as Suite.Text writes it
}

// Objects returns what runs the experiment: a Job of the plugin, and a ConfigMap of its suite, both owned by the run.
// If the Job's node fails, the Job is retried and resumes from the saved state. No verdict causes a retry.
func (r *Runner) Objects(run *Run) (*corev1.ConfigMap, *batchv1.Job) {
	meta := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{
			Name: name, Namespace: run.Namespace, Labels: map[string]string{sandbox.LabelRun: run.ID},
			OwnerReferences: []metav1.OwnerReference{run.owner()},
		}
	}
	const name = "suite.yaml"
	suites := &corev1.ConfigMap{ObjectMeta: meta(sandbox.RunSuitesName(run.ID)), Data: map[string]string{name: r.Suite}}
	args := append(slices.Clone(r.Args), "--filename="+suitePath+"/"+name)
	job := &batchv1.Job{ObjectMeta: meta(sandbox.RunJobName(run.ID))}
	job.Spec = batchv1.JobSpec{
		BackoffLimit: ptr.To[int32](3),
		PodFailurePolicy: &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
			{Action: batchv1.PodFailurePolicyActionIgnore, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{
				{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue},
			}},
			{Action: batchv1.PodFailurePolicyActionFailJob, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
				Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{ExitNonePassed, ExitInconclusive, ExitNotRun},
			}},
		}},
		Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{sandbox.LabelRun: run.ID}},
			Spec: corev1.PodSpec{
				ServiceAccountName: r.ServiceAccount, RestartPolicy: corev1.RestartPolicyNever,
				Containers: []corev1.Container{{
					Name: "test", Image: r.Image, Args: args,
					VolumeMounts: []corev1.VolumeMount{{Name: "suite", MountPath: suitePath, ReadOnly: true}},
				}},
				Volumes: []corev1.Volume{{Name: "suite", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
					LocalObjectReference: corev1.LocalObjectReference{Name: suites.Name},
				}}}},
			},
		},
	}
	harden(&job.Spec.Template.Spec, &job.Spec.Template.Spec.Containers[0])
	job.Spec.Template.Spec.AutomountServiceAccountToken = ptr.To(true)
	return suites, job
}

// Exit statuses of `kubectl sandbox test` and `report`, besides 0.
const (
	ExitNonePassed   = 1 // no variant passed, or with --require=all, not all
	ExitInconclusive = 2
	ExitNotRun       = 3 // the experiment could not run
)
