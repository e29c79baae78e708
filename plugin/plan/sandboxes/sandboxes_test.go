package sandboxes_test

import (
	"fmt"
	"reflect"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func TestSandboxes(t *testing.T) {
	configMap := func(namespace, name string, data map[string]string) corev1.ConfigMap {
		return corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Labels: map[string]string{sandbox.LabelSandbox: name}}, Data: data}
	}
	fork := func(namespace, name, workload string, ready int32) appsv1.Deployment {
		return appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, Name: workload + "-" + name, Annotations: map[string]string{sandbox.AnnotationKey: "kf"},
				Labels: map[string]string{sandbox.LabelSandbox: name, sandbox.LabelWorkload: workload},
			},
			Status: appsv1.DeploymentStatus{Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: ready},
		}
	}
	got := sandboxes.Group(
		[]corev1.ConfigMap{
			configMap("b", "x", map[string]string{"key": "k1", "expires": "2026-03-01T10:00:00Z", "counts": `{"deployment.api":{"fork":3}}`}),
			configMap("a", "y", map[string]string{"key": "k2", "expires": "soon", "counts": "many"}),
		},
		[]appsv1.Deployment{fork("b", "x", "deployment.web", 0), fork("b", "x", "deployment.api", 1), fork("a", "x", "deployment.api", 1)},
	)
	var lines []string
	for i := range got {
		s := &got[i]
		lines = append(lines, fmt.Sprint(s.Namespace, " ", s.Name, " ", s.Key, " ", s.ConfigMap != nil, " ", s.Ready(), " ", s.Workloads(), " ", !s.Expires.IsZero(), " ", s.Counts["deployment.api"].Fork))
	}
	want := []string{
		"a x kf false 1 [deployment/api] false 0",
		"a y k2 true 0 [] false 0",
		"b x k1 true 1 [deployment/api deployment/web] true 3",
	}
	if !reflect.DeepEqual(lines, want) {
		t.Errorf("got\n%q\nwant\n%q", lines, want)
	}
}

func TestRouterVersions(t *testing.T) {
	pods := []corev1.Pod{{}, {Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: sandbox.RouterContainer, Image: "registry:5000/sandbox-router:v1"}}}}}
	if got, want := sandboxes.RouterVersions(pods), []sandboxes.RouterVersion{{Version: "v1", Pods: 1}}; !reflect.DeepEqual(got, want) {
		t.Errorf("versions %v, want %v", got, want)
	}
}
