package plan_test

import (
	"fmt"
	"reflect"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
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
	got := plan.Sandboxes(
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

func TestBaselines(t *testing.T) {
	pod := func(name, workload string, router bool, change func(*corev1.Pod)) corev1.Pod {
		p := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{sandbox.LabelWorkload: workload, "app": workload}}}
		if router {
			p.Spec.InitContainers = []corev1.Container{{Name: sandbox.RouterContainer, Image: "registry:5000/sandbox-router:v1"}}
		}
		if change != nil {
			change(&p)
		}
		return p
	}
	pods := []corev1.Pod{
		pod("p3", "deployment.api", false, nil),
		pod("p1", "deployment.api", true, nil),
		pod("p2", "deployment.api", false, nil),
		pod("ends", "deployment.api", false, func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }),
		pod("failed", "deployment.api", false, func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }),
		pod("other", "deployment.other", false, nil),
	}
	s := plan.Sandbox{Forks: []appsv1.Deployment{{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{sandbox.LabelWorkload: "deployment.api"}}}}}
	want := []plan.BaselineStatus{{Workload: "deployment/api", WithoutRouter: []string{"p2", "p3"}, Pods: 3}}
	if got := s.Baselines(pods); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := plan.RouterVersions(pods), []plan.RouterVersion{{Version: "v1", Pods: 1}}; !reflect.DeepEqual(got, want) {
		t.Errorf("versions %v, want %v", got, want)
	}

	service := func(name, app, said string) corev1.Service {
		return corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{sandbox.AnnotationPutBack: said}},
			Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": app}},
		}
	}
	services := []corev1.Service{
		service("api", "deployment.api", sandbox.FormatPutBack(sandbox.PutBack{Time: "2026-03-01T10:00:00Z", Reason: "pod p2 lacks the name"})),
		service("garbled", "deployment.api", "garbled"),
		service("elsewhere", "nothing", "x"),
	}
	back := []plan.PutBack{{"api", "pod p2 lacks the name", "2026-03-01T10:00:00Z"}, {"garbled", "garbled", ""}}
	if got := plan.PutBacks(services, pods); !reflect.DeepEqual(got, back) {
		t.Errorf("put back %v, want %v", got, back)
	}
}
