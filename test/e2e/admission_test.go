package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// harden makes a pod pass Pod Security "restricted".
func harden(p *corev1.PodSpec) {
	p.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: ptr(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
	for i := range p.Containers {
		p.Containers[i].SecurityContext = &corev1.SecurityContext{
			AllowPrivilegeEscalation: ptr(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}, ReadOnlyRootFilesystem: ptr(true),
		}
	}
}

// worksRouted routes the baseline api, and sees it serve the keyed and the unkeyed, over a router in each pod.
func (s *space) worksRouted(replicas int) {
	s.t.Helper()
	s.sandbox("route", "deploy/api")
	s.available("api")
	for _, p := range s.pods("app=api") {
		if len(p.Spec.InitContainers) == 0 || p.Spec.InitContainers[len(p.Spec.InitContainers)-1].Name != sandbox.RouterContainer {
			s.t.Errorf("pod %s has no router", p.Name)
		}
	}
	if n := len(s.pods("app=api")); n != replicas {
		s.t.Errorf("%d pods, want %d", n, replicas)
	}
	s.sandbox("fork", "deploy/api", "--name=pr-1", "--key=key-1", "--image="+apps.Podinfo(1))
	for _, c := range []caller{newH1(s.address("api", "http")), newH2C(s.address("api", "http")), newGRPC(s.address("api", "grpc"))} {
		defer c.close()
		if a, err := c.call(s.t.Context(), carrier{}); err != nil || a.Message != baselineMessage {
			s.t.Errorf("unkeyed: %+v, %v", a, err)
		}
		if a, err := c.call(s.t.Context(), carriers("key-1")[0]); err != nil || a.Message != apps.Release(1) {
			s.t.Errorf("keyed: %+v, %v", a, err)
		}
	}
}

func TestANamespaceThatEnforcesPodSecurityRestrictedTakesRoutersAndForks(t *testing.T) {
	t.Parallel()
	s := newSpace(t, "pod-security.kubernetes.io/enforce=restricted")
	d := podinfo("api", 2)
	harden(&d.Spec.Template.Spec)
	s.create(d, podinfoService("api"))
	s.available("api")
	s.worksRouted(2)
}

func TestANamespaceWithAQuotaOnRequestsAndLimitsAndAnAutoscalerTakesRoutersAndForks(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	_, err := s.client.CoreV1().ResourceQuotas(s.name).Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "quota"},
		Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{
			corev1.ResourceRequestsCPU: resource.MustParse("2"), corev1.ResourceRequestsMemory: resource.MustParse("2Gi"),
			corev1.ResourceLimitsCPU: resource.MustParse("8"), corev1.ResourceLimitsMemory: resource.MustParse("4Gi"),
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d := podinfo("api", 2)
	res := &d.Spec.Template.Spec.Containers[0].Resources
	res.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("500m"), corev1.ResourceMemory: resource.MustParse("128Mi")}
	s.create(d, podinfoService("api"))
	s.available("api")
	_, err = s.client.AutoscalingV2().HorizontalPodAutoscalers(s.name).Create(t.Context(), &autoscalingv2.HorizontalPodAutoscaler{
		ObjectMeta: metav1.ObjectMeta{Name: "api"},
		Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
			ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "api"},
			MinReplicas:    ptr(int32(2)), MaxReplicas: 4,
			Metrics: []autoscalingv2.MetricSpec{{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{
				Name:   corev1.ResourceCPU,
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: ptr(int32(80))},
			}}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.worksRouted(2)

	// An HPA on utilization refuses to work where a container of a pod it counts has no request.
	pods := append(s.pods("app=api"), s.pods(sandbox.LabelSandbox+"=pr-1")...)
	for _, p := range pods {
		for _, c := range append(p.Spec.InitContainers, p.Spec.Containers...) {
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				if c.Resources.Requests[name] == (resource.Quantity{}) || c.Resources.Limits[name] == (resource.Quantity{}) {
					t.Errorf("pod %s: container %s: no request or no limit of %s: %v", p.Name, c.Name, name, c.Resources)
				}
			}
		}
	}
	eventually(t, 60*time.Second, "the autoscaler has judged the baseline's own pods", func(ctx context.Context) error {
		h, err := s.client.AutoscalingV2().HorizontalPodAutoscalers(s.name).Get(ctx, "api", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range h.Status.Conditions {
			if strings.Contains(c.Message, "missing request") || strings.Contains(c.Message, "ambiguous") {
				t.Fatalf("the autoscaler: %s: %s", c.Reason, c.Message)
			}
			if c.Type == autoscalingv2.AbleToScale && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("conditions: %+v", h.Status.Conditions)
	})
}
