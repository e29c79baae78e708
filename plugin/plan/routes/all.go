package routes

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// All returns the workloads that receive TCP connections through Services, for a view without targets. unread
// names those that were not read and are known only from their pods; left tells why some can't be routed.
func All(v *View) (workloads []*plan.Workload, unread, left []string) {
	for _, w := range v.Others {
		template, err := w.PodTemplate()
		if err != nil || w.Object.GetLabels()[sandbox.LabelRole] == sandbox.RoleFork || !reached(v, templatePod(template), template.Labels) {
			continue
		}
		p := checkKind(w)
		if p == nil && !w.Routed() {
			p = gate(w)
		}
		if p != nil {
			left = append(left, p.What)
			continue
		}
		workloads = append(workloads, w)
	}
	for _, pod := range v.Pods {
		owner := v.owner(pod)
		if plan.Live(pod) && owner.Kind != "" && owner.Kind != "Job" && v.workload(owner.UID) == nil && reached(v, pod, pod.Labels) {
			unread = plan.AppendNew(unread, ownerArg(owner))
		}
	}
	return workloads, unread, left
}

// reached reports whether a Service with an address sends TCP connections to the pod.
func reached(v *View, pod *corev1.Pod, labels map[string]string) bool {
	return slices.ContainsFunc(v.Services, func(s *corev1.Service) bool {
		return s.Spec.ClusterIP != corev1.ClusterIPNone && plan.Selects(s, labels) && slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
			if plan.Protocol(p.Protocol) != corev1.ProtocolTCP || p.TargetPort.Type == intstr.Int {
				return plan.Protocol(p.Protocol) == corev1.ProtocolTCP
			}
			_, ok := plan.FindPort(pod, p.TargetPort.StrVal)
			return ok
		})
	})
}

// TrialPod returns a pod of the workload's template, to test what admission does to it.
func TrialPod(w *plan.Workload) *unstructured.Unstructured {
	template := w.Template()
	pod := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Pod", "spec": template["spec"], "metadata": template["metadata"]}}
	if pod.Object["metadata"] == nil {
		pod.Object["metadata"] = map[string]any{}
	}
	pod.SetGenerateName(w.Name() + "-")
	pod.SetNamespace(w.Namespace())
	// A StatefulSet's claims become volumes of its pods that its template does not have.
	claims, _, _ := unstructured.NestedSlice(w.Object.Object, "spec", "volumeClaimTemplates")
	volumes, _, _ := unstructured.NestedSlice(pod.Object, "spec", "volumes")
	for _, c := range claims {
		claim, _ := c.(map[string]any)
		name, _, _ := unstructured.NestedString(claim, "metadata", "name")
		volumes = append(volumes, map[string]any{"name": name, "emptyDir": map[string]any{}})
	}
	if len(volumes) > 0 {
		_ = unstructured.SetNestedSlice(pod.Object, volumes, "spec", "volumes") // spec is a map: the API server stored it
	}
	return pod
}

// CheckTrial returns a Problem if a TrialPod, as the API server would have created it, has no router.
func CheckTrial(w *plan.Workload, u *unstructured.Unstructured, controlNamespace string) *plan.Problem {
	pod := new(corev1.Pod)
	if err := decode(u, pod); err != nil {
		return &plan.Problem{What: fmt.Sprintf("%s: what admission makes of its pods can't be read: %v", w, err), Err: err}
	}
	if router(pod) != nil {
		return nil
	}
	if _, answered := pod.Annotations[sandbox.AnnotationInjected]; answered {
		return &plan.Problem{
			What: fmt.Sprintf("%s: admission would leave its pods without a router: %s", w, declined(pod.Annotations)),
			Hint: "its pod template",
			Fix:  plan.Kubectl("edit", w.Arg()),
		}
	}
	p := &plan.Problem{What: fmt.Sprintf("%s: its pods would get no router, since the webhook does not answer", w)}
	if controlNamespace != "" {
		p.Hint, p.Fix = "see how it is", plan.Kubectl("get", "pods", "--namespace="+controlNamespace)
	}
	return p
}
