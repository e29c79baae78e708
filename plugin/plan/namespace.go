package plan

import (
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// NamespaceObjects are the objects of the namespace, except forks, that a fork's pods could disturb or that could
// select them.
//
// ServiceMonitors are not among them: they select Services, and scrape only the pods that these Services select.
type NamespaceObjects struct {
	Workloads   []*Workload // Deployments, StatefulSets, DaemonSets, and ReplicaSets that are no Deployment's
	Autoscalers []autoscalingv2.HorizontalPodAutoscaler
	// Scaled holds the pod selectors of those targets of Autoscalers whose kinds are not among Workloads, by
	// ScaledKey.
	Scaled   map[string]string
	Budgets  []policyv1.PodDisruptionBudget
	Monitors []unstructured.Unstructured // PodMonitors, of this namespace and, as far as they may be read, of others
	Leases   []coordinationv1.Lease
	Claims   []corev1.PersistentVolumeClaim
	// Unread names what the caller may not read, as kubectl names resources.
	Unread []string
}

// Scales returns what an autoscaler scales, and whether that is of a kind that is not among Workloads.
func Scales(h *autoscalingv2.HorizontalPodAutoscaler) (target autoscalingv2.CrossVersionObjectReference, other bool) {
	target = h.Spec.ScaleTargetRef
	group, _, _ := strings.Cut(target.APIVersion, "/")
	return target, group != "apps"
}

// ScaledKey returns the key in NamespaceObjects.Scaled of an autoscaler's target.
func ScaledKey(target autoscalingv2.CrossVersionObjectReference) string {
	group, _, ok := strings.Cut(target.APIVersion, "/")
	if kind := strings.ToLower(target.Kind); ok {
		return kind + "." + group + "/" + target.Name
	}
	return strings.ToLower(target.Kind) + "/" + target.Name
}
