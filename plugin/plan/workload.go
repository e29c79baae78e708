package plan

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A Workload is an object with a pod template at spec.template, as the API server returned it: a Deployment, StatefulSet,
// DaemonSet or ReplicaSet, or one of a custom kind. It is kept as unstructured JSON, so that fields this program does not
// know survive.
type Workload struct {
	Object   *unstructured.Unstructured
	Resource schema.GroupResource
}

// Kind returns the object's kind, e.g. "Deployment".
func (w *Workload) Kind() string { return w.Object.GetKind() }

// Name returns the object's name.
func (w *Workload) Name() string { return w.Object.GetName() }

// Namespace returns the object's namespace.
func (w *Workload) Namespace() string { return w.Object.GetNamespace() }

// String returns what kubectl prints for the object: "deployment.apps/api".
func (w *Workload) String() string {
	kind := strings.ToLower(w.Kind())
	if w.Resource.Group != "" {
		kind += "." + w.Resource.Group
	}
	return kind + "/" + w.Name()
}

// Arg returns what one types for the object: "deployment/api", and with the group where the kind is not Kubernetes' own.
func (w *Workload) Arg() string {
	if w.Resource.Group == "apps" || w.Resource.Group == "" {
		return strings.ToLower(w.Kind()) + "/" + w.Name()
	}
	return w.String()
}

// Label returns the value of sandbox.LabelWorkload for this workload.
func (w *Workload) Label() string { return sandbox.WorkloadLabel(w.Kind(), w.Name()) }

// Template returns a copy of the pod template as unstructured JSON; nil when there is none.
func (w *Workload) Template() map[string]any {
	t, _, _ := unstructured.NestedMap(w.Object.Object, "spec", "template")
	return t
}

// PodTemplate returns the pod template decoded, for reading: what it does not know of is lost.
func (w *Workload) PodTemplate() (*corev1.PodTemplateSpec, error) {
	var t corev1.PodTemplateSpec
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(w.Template(), &t); err != nil {
		return nil, fmt.Errorf("%s: spec.template: %w", w, err)
	}
	return &t, nil
}

// Routed reports whether the workload's pod template asks for routers.
func (w *Workload) Routed() bool {
	labels, _, _ := unstructured.NestedStringMap(w.Object.Object, "spec", "template", "metadata", "labels")
	return labels[sandbox.LabelRole] == sandbox.RoleBaseline && labels[sandbox.LabelWorkload] == w.Label()
}

// CheckWorkload says why an object is not a workload that serves requests. Every error is a *Problem.
func CheckWorkload(w *Workload) error {
	why := ""
	switch {
	case w.Resource.Group == "batch":
		why = "runs to completion and serves no requests, so it has no baseline to fork"
	case w.Template() == nil:
		why = "has no pod template at spec.template, so it is no workload"
	default:
		return nil
	}
	return &Problem{
		What: fmt.Sprintf("%s %s", w, why),
		Say:  "workloads of this namespace", Fix: Kubectl("get", "deployments,statefulsets,daemonsets"),
	}
}
