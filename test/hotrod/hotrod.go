// Package hotrod runs HotROD, Jaeger's demo of four services that call each other, and tells which of its pods had a part in
// answering a request.
package hotrod

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Frontend, Customer, Driver and Route are the services, in the order in which a request to Frontend calls them.
const (
	Frontend = "frontend"
	Customer = "customer"
	Driver   = "driver" // gRPC; the others are HTTP/1.1
	Route    = "route"
)

// Services returns the names of all four.
func Services() []string { return []string{Frontend, Customer, Driver, Route} }

// Port returns the port of a service, of its pods and of its Service alike.
func Port(service string) int32 {
	return map[string]int32{Frontend: 8080, Customer: 8081, Driver: 8082, Route: 8083}[service]
}

// Objects returns the four Deployments, of one pod each, and their Services.
func Objects() ([]*appsv1.Deployment, []*corev1.Service) {
	var deployments []*appsv1.Deployment
	var services []*corev1.Service
	for _, name := range Services() {
		deployments = append(deployments, deployment(name))
		port := corev1.ServicePort{Name: "http", Port: Port(name), TargetPort: intstr.FromInt32(Port(name))}
		if name == Driver {
			port.Name = "grpc"
		}
		services = append(services, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{port}},
		})
	}
	return deployments, services
}

func deployment(name string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	// Spans go to standard output: there is no collector. Each service is told the names of those it calls, not its own,
	// which is where it listens.
	args := []string{name, "--otel-exporter=stdout"}
	for _, other := range Services() {
		if other != name {
			args = append(args, "--"+other+"-service-hostname="+other)
		}
	}
	one := int32(1)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: &one,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					TerminationGracePeriodSeconds: new(int64(3)),
					Containers: []corev1.Container{{
						Name:  "hotrod",
						Image: apps.Hotrod,
						Args:  args,
						Ports: []corev1.ContainerPort{{ContainerPort: Port(name)}},
						ReadinessProbe: &corev1.Probe{
							ProbeHandler:  corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(Port(name))}},
							PeriodSeconds: 1,
						},
						Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
							corev1.ResourceCPU:    resource.MustParse("10m"),
							corev1.ResourceMemory: resource.MustParse("32Mi"),
						}},
					}},
				},
			},
		},
	}
}

// A Hop is a pod that had a part in answering a request.
type Hop struct {
	Service string // which of Services it is, or is a fork of
	Pod     string
	Sandbox string // empty: the baseline
	Image   string
}

// Hops returns, for each of the traces, the pods whose own log has a line of it, in the order of Services. HotROD logs the
// trace ID with every step, and takes it over from the request's traceparent header: so this is each pod's own word that it
// took part. It waits, bounded by ctx, until every service has one for every trace.
func Hops(ctx context.Context, client kubernetes.Interface, namespace string, traces ...string) (map[string][]Hop, error) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		hops, err := HopsLogged(ctx, client, namespace, traces...)
		missing := ""
		for _, trace := range traces {
			if !complete(hops[trace]) {
				missing = trace
			}
		}
		if err == nil && missing == "" {
			return hops, nil
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("trace %s is not in the log of a pod of each service, only in those of %v", missing, hops[missing])
			}
			return hops, err
		case <-tick.C:
		}
	}
}

func complete(hops []Hop) bool {
	for _, s := range Services() {
		if !slices.ContainsFunc(hops, func(h Hop) bool { return h.Service == s }) {
			return false
		}
	}
	return true
}

// HopsLogged is Hops of what is in the logs by now, whichever services that is of.
func HopsLogged(ctx context.Context, client kubernetes.Interface, namespace string, traces ...string) (map[string][]Hop, error) {
	pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	hops := map[string][]Hop{}
	for _, service := range Services() {
		for _, pod := range pods.Items {
			if serviceOf(&pod) != service || pod.Status.Phase != corev1.PodRunning {
				continue
			}
			seen, err := tracesIn(ctx, client, &pod)
			if err != nil {
				return nil, err
			}
			for _, trace := range traces {
				if seen[trace] {
					hops[trace] = append(hops[trace], Hop{service, pod.Name, pod.Labels[sandbox.LabelSandbox], pod.Spec.Containers[0].Image})
				}
			}
		}
	}
	return hops, nil
}

// serviceOf says which service a pod is of: its app label, or the workload that it is forked from.
func serviceOf(pod *corev1.Pod) string {
	if app := pod.Labels["app"]; app != "" {
		return app
	}
	for _, s := range Services() {
		if pod.Labels[sandbox.LabelWorkload] == sandbox.WorkloadLabel("Deployment", s) {
			return s
		}
	}
	return ""
}

// tracesIn returns the trace IDs that a pod logged in the last minute.
func tracesIn(ctx context.Context, client kubernetes.Interface, pod *corev1.Pod) (map[string]bool, error) {
	log, err := client.CoreV1().Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{Container: "hotrod", SinceSeconds: new(int64(60))}).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	seen := map[string]bool{}
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		const field = `"trace_id": "`
		if _, rest, ok := strings.Cut(lines.Text(), field); ok {
			id, _, _ := strings.Cut(rest, `"`)
			seen[id] = true
		}
	}
	return seen, lines.Err()
}
