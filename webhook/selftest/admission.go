package selftest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// admission creates a pod of a baseline and a pod of a fork in a dry run, until each comes back with what the webhook
// adds.
func (t *test) admission(ctx context.Context) error {
	for _, pod := range []*corev1.Pod{baselineProbe(), forkProbe()} {
		role := pod.Labels[sandbox.LabelRole]
		err := until(ctx, func(ctx context.Context) error {
			admitted, err := t.client.CoreV1().Pods(t.Namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if err != nil {
				return err
			}
			return admittedAs(role, admitted)
		})
		if err != nil {
			return fmt.Errorf("pod of a %s in namespace %s is not admitted with a router: %w", role, t.Namespace, err)
		}
		t.say("a pod of a %s is admitted with a router", role)
	}
	return nil
}

// admittedAs returns an error that names what a dry-run pod lacks of what admission adds.
func admittedAs(role string, pod *corev1.Pod) error {
	injected := pod.Annotations[sandbox.AnnotationInjected]
	switch {
	case injected == "":
		return errors.New("the API server did not get an answer from the webhook, or did not ask it: see its log on failed calls, " +
			"and whether a network policy keeps it from port 9443 of the webhook's pods")
	case strings.HasPrefix(injected, "declined"):
		return fmt.Errorf("the webhook %s", injected)
	case !slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == sandbox.RouterContainer }):
		return fmt.Errorf("it has no container %s", sandbox.RouterContainer)
	}
	gate := corev1.PodReadinessGate{ConditionType: sandbox.ConditionRouted}
	if role == sandbox.RoleFork && !slices.Contains(pod.Spec.ReadinessGates, gate) {
		return fmt.Errorf("it has no readiness gate %s", sandbox.ConditionRouted)
	}
	return nil
}

func baselineProbe() *corev1.Pod {
	return probe(map[string]string{sandbox.LabelRole: sandbox.RoleBaseline}, map[string]string{})
}

func forkProbe() *corev1.Pod {
	return probe(map[string]string{sandbox.LabelRole: sandbox.RoleFork, sandbox.LabelSandbox: "selftest"},
		map[string]string{sandbox.AnnotationKey: "selftest"})
}

// probe is a pod that passes Pod Security "restricted" and requests next to nothing of a quota.
func probe(labels, annotations map[string]string) *corev1.Pod {
	yes, no, user := true, false, int64(65532)
	port := sandbox.Port{Name: "http", Number: 8080}
	labels[sandbox.LabelWorkload] = sandbox.WorkloadLabel("Deployment", "selftest")
	annotations[sandbox.AnnotationPorts] = sandbox.FormatPorts([]sandbox.Port{port})
	little := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1m"), corev1.ResourceMemory: resource.MustParse("1Mi")}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "sandbox-selftest-", Labels: labels, Annotations: annotations},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: &no,
			SecurityContext: &corev1.PodSecurityContext{RunAsNonRoot: &yes, RunAsUser: &user,
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{
				Name:      "app",
				Image:     "example.test/never-pulled:1",
				Ports:     []corev1.ContainerPort{{Name: port.Name, ContainerPort: int32(port.Number)}},
				Resources: corev1.ResourceRequirements{Requests: little, Limits: little},
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: &no,
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
			}},
		},
	}
}
