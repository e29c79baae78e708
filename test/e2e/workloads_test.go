package e2e

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
)

// Ports that podinfo is told to listen on.
const (
	httpPort = 9898
	grpcPort = 9999
)

// baselineMessage is what the first release of podinfo answers.
var baselineMessage = apps.Release(0)

// podinfo returns an app that drains: on SIGTERM it serves on for 3 s, then finishes what is in flight.
func podinfo(name string, replicas int32, change ...func(*appsv1.Deployment)) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": "shop"}, Annotations: map[string]string{"owner": "shop@example.test"}},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: podinfoPod()},
		},
	}
	for _, c := range change {
		c(d)
	}
	return d
}

func podinfoPod() corev1.PodSpec {
	return corev1.PodSpec{
		EnableServiceLinks:            ptr(false),
		TerminationGracePeriodSeconds: ptr(int64(20)),
		Containers: []corev1.Container{{
			Name:  "app",
			Image: apps.Podinfo(0),
			Args: []string{fmt.Sprintf("--port=%d", httpPort), fmt.Sprintf("--grpc-port=%d", grpcPort), "--h2c", "--level=error",
				"--server-shutdown-timeout=10s"},
			Ports: []corev1.ContainerPort{{ContainerPort: httpPort}, {ContainerPort: grpcPort}},
			ReadinessProbe: &corev1.Probe{
				ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/readyz", Port: intstr.FromInt32(httpPort)}},
				PeriodSeconds: 1,
			},
			Resources: requests(),
		}},
	}
}

// podinfoService returns a Service with both of podinfo's ports, by number.
func podinfoService(name string) *corev1.Service {
	return service(name, map[string]string{"app": name}, port("http", 80, httpPort), port("grpc", 81, grpcPort))
}

// httpbin returns an app that does not drain: on SIGTERM it refuses new connections at once, while the Service may still
// send it some.
func httpbin(name string, replicas int32) *appsv1.Deployment {
	return simple(name, replicas, corev1.Container{
		Name:  "app",
		Image: apps.Httpbin,
		Args:  []string{"-port=8080", "-use-real-hostname", "-log-level=OFF"},
		Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
		ReadinessProbe: &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/status/200", Port: intstr.FromInt32(8080)}},
			PeriodSeconds: 1,
		},
		Resources: requests(),
	})
}

// simple returns a Deployment of one container.
func simple(name string, replicas int32, c corev1.Container) *appsv1.Deployment {
	return podinfo(name, replicas, func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Containers = []corev1.Container{c}
	})
}

func service(name string, selector map[string]string, ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Selector: selector, Ports: ports}}
}

func port(name string, number, target int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: number, TargetPort: intstr.FromInt32(target)}
}

func namedPort(name string, number int32, target string) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: number, TargetPort: intstr.FromString(target)}
}

func requests() corev1.ResourceRequirements {
	return corev1.ResourceRequirements{Requests: corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse("10m"),
		corev1.ResourceMemory: resource.MustParse("32Mi"),
	}}
}

func intstrFrom(n int32) intstr.IntOrString { return intstr.FromInt32(n) }

func ptr[T any](v T) *T { return &v }

// settle is how long a Service's rules may take to follow its endpoints on every node.
const settle = 2 * time.Second
