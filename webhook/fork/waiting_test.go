package fork_test

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// made returns a fork, as a Deployment.
func made(name string, change ...func(*appsv1.Deployment)) *appsv1.Deployment {
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{sandbox.LabelWorkload: "deployment." + name}}}
	d.Spec.Template.Annotations = map[string]string{sandbox.AnnotationPorts: "http=8080"}
	for _, c := range change {
		c(d)
	}
	return d
}

// aPod returns a pod of the fork that serves, unless it is changed.
func aPod(of *appsv1.Deployment, name string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: of.Labels}}
	p.Status.Conditions = []corev1.PodCondition{
		{Type: corev1.ContainersReady, Status: corev1.ConditionTrue}, {Type: sandbox.ConditionRouted, Status: corev1.ConditionTrue}}
	for _, c := range change {
		c(p)
	}
	return p
}

func unready(reason, message string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Conditions[1] = corev1.PodCondition{Type: sandbox.ConditionRouted, Status: corev1.ConditionFalse, Reason: reason, Message: message}
	}
}

func crashed(p *corev1.Pod) {
	p.Status.Conditions = nil
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "api",
		State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
		LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3}}}}
}

func TestWaiting(t *testing.T) {
	api := made("api-pr-1")
	zero := int32(0)
	for name, test := range map[string]struct {
		fork    *appsv1.Deployment
		pods    []corev1.Pod
		want    string
		crashed bool
	}{
		"serves":   {api, []corev1.Pod{*aPod(api, "a"), *aPod(api, "b", crashed)}, "", false},
		"no ports": {made("worker", func(d *appsv1.Deployment) { d.Spec.Template.Annotations = nil }), nil, "", false},
		"falls back": {made("api", func(d *appsv1.Deployment) {
			d.Spec.Template.Annotations[sandbox.AnnotationWhenUnready] = sandbox.WhenUnreadyBaseline
		}), nil, "", false},
		"no pod":           {api, nil, "its first pod", false},
		"another's pod":    {api, []corev1.Pod{*aPod(made("db"), "a")}, "its first pod", false},
		"scaled to zero":   {made("api", func(d *appsv1.Deployment) { d.Spec.Replicas = &zero }), nil, "it is scaled to zero", true},
		"newest pod tells": {api, []corev1.Pod{*aPod(api, "a", unready("", "old")), *aPod(api, "b", crashed)}, "container api ends again and again (exit code 3)", true},
		"not acknowledged": {api, []corev1.Pod{*aPod(api, "a", unready("", "waiting: x"))}, "waiting: x", false},
		"pods are not admitted": {made("api", func(d *appsv1.Deployment) {
			d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: "quota"}}
		}), nil, "its pods can't be created: quota", true},
	} {
		t.Run(name, func(t *testing.T) {
			got := fork.Waiting([]appsv1.Deployment{*test.fork}, test.pods)
			if (got == nil) != (test.want == "") || got != nil && (got.Reason != test.want || got.Crashed != test.crashed) {
				t.Errorf("got %+v", got)
			}
		})
	}
}
