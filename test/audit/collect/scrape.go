package collect

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/audit"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// metricsPort returns where a container of the product serves /metrics.
func metricsPort(pod *corev1.Pod, name string) string {
	switch name {
	case "webhook":
		return "8080"
	case "gateway":
		return "8081"
	}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.Name == name {
			at := slices.IndexFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == sandbox.EnvRouterAdmin })
			if at >= 0 {
				_, port, _ := net.SplitHostPort(c.Env[at].Value)
				return port
			}
		}
	}
	return ""
}

// scrape reads the metrics of all ready containers of the product.
func (c *Collector) scrape(ctx context.Context) (map[audit.Source]audit.Series, error) {
	pods, err := c.client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	all := map[audit.Source]audit.Series{}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.DeletionTimestamp != nil || !isReady(pod) {
			continue
		}
		for _, name := range programs(pod) {
			source := audit.Source{Namespace: pod.Namespace, Pod: pod.Name, Container: name}
			body, err := c.client.CoreV1().Pods(pod.Namespace).ProxyGet("http", pod.Name, metricsPort(pod, name), "metrics", nil).DoRaw(ctx)
			if err == nil {
				all[source], err = audit.ParseMetrics(bytes.NewReader(body))
			}
			if err != nil && c.stillRuns(ctx, pod) {
				return nil, fmt.Errorf("metrics of %s: %w", source, err)
			}
		}
	}
	return all, nil
}

func (c *Collector) stillRuns(ctx context.Context, pod *corev1.Pod) bool {
	now, err := c.client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
	return err == nil && now.UID == pod.UID && now.DeletionTimestamp == nil && isReady(now)
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
