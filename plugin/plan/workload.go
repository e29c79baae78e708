package plan

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A Workload is an object with a pod template, as the API server returned it: a Deployment, StatefulSet, DaemonSet or ReplicaSet, or
// one of a custom kind. It is kept as unstructured JSON, so that fields this program does not know survive.
type Workload struct {
	Object   *unstructured.Unstructured
	Resource schema.GroupResource
	// TemplateAt is where the pod template stands, as fork.ParseTemplatePath reads it; empty: where sandbox.AnnotationTemplate of the
	// object says, else at fork.DefaultTemplatePath.
	TemplateAt string
}

// NewWorkload returns the object as a workload. Where it is of a custom kind, its pod template is at templatePath, unless that is empty.
func NewWorkload(object *unstructured.Unstructured, resource schema.GroupResource, templatePath string) *Workload {
	w := &Workload{Object: object, Resource: resource}
	if !fork.BuiltIn(object.GroupVersionKind()) {
		w.TemplateAt = templatePath
	}
	return w
}

// CheckTemplatePath checks the value of --template-path.
func CheckTemplatePath(path string) error {
	if _, err := fork.ParseTemplatePath(path); err != nil {
		return fmt.Errorf("--template-path %q %w", path, err)
	}
	return nil
}

// RememberTemplate sets the path of the pod template to that of the existing fork in the sandbox, unless it was
// given.
func (w *Workload) RememberTemplate(name string, forks []unstructured.Unstructured) {
	if old := existingFork(w, name, forks); old != nil && w.TemplateAt == "" {
		w.TemplateAt = old.GetAnnotations()[sandbox.AnnotationTemplate]
	}
}

// templateFields returns the path of the pod template, with further fields below it.
func (w *Workload) templateFields(below ...string) []string {
	path := w.TemplateAt
	if path == "" {
		path = w.Object.GetAnnotations()[sandbox.AnnotationTemplate]
	}
	fields, err := fork.ParseTemplatePath(path)
	if err != nil { // then there is none; CheckWorkload says so
		fields = []string{path}
	}
	return append(fields, below...)
}

// templatePath returns the path of the pod template, empty for the default.
func (w *Workload) templatePath() string { return fork.FormatTemplatePath(w.templateFields()) }

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
	t, _, _ := unstructured.NestedMap(w.Object.Object, w.templateFields()...)
	return t
}

// PodTemplate returns the pod template decoded, for reading: what it does not know of is lost.
func (w *Workload) PodTemplate() (*corev1.PodTemplateSpec, error) {
	var t corev1.PodTemplateSpec
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(w.Template(), &t); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", w, strings.Join(w.templateFields(), "."), err)
	}
	return &t, nil
}

// Routed reports whether the workload's pod template asks for routers.
func (w *Workload) Routed() bool {
	labels, _, _ := unstructured.NestedStringMap(w.Object.Object, w.templateFields("metadata", "labels")...)
	return labels[sandbox.LabelRole] == sandbox.RoleBaseline && labels[sandbox.LabelWorkload] == w.Label()
}

// CheckWorkload returns why an object is not a workload that serves requests. Every error is a *Problem.
func CheckWorkload(w *Workload) error {
	p := &Problem{Hint: "workloads of this namespace", Fix: Kubectl("get", "deployments,statefulsets,daemonsets")}
	refers, _, _ := unstructured.NestedStringMap(w.Object.Object, "spec", "workloadRef")
	owner := metav1.GetControllerOf(w.Object)
	switch {
	case w.Resource.Group == "batch":
		p.What = fmt.Sprintf("%s runs to completion and serves no requests, so it has no baseline to fork", w)
	case w.Template() != nil:
		return nil
	case w.Kind() == "Pod" && w.Resource.Group == "" && owner != nil:
		p.What = fmt.Sprintf("%s is one pod of %s %q, not a workload with a pod template", w, strings.ToLower(owner.Kind), owner.Name)
		p.Hint, p.Fix = "see what keeps it", Kubectl("get", strings.ToLower(owner.Kind)+"/"+owner.Name)
	case refers["kind"] != "" && refers["name"] != "": // an Argo Rollout beside the Deployment it took over
		arg := strings.ToLower(refers["kind"]) + "/" + refers["name"]
		p.What = fmt.Sprintf("%s has no pod template of its own: its spec.workloadRef takes that of %s", w, arg)
		p.Hint, p.Fix = "name that", Kubectl("get", arg)
	default:
		p.What = fmt.Sprintf("%s has no pod template at %s, so it is no workload", w, strings.Join(w.templateFields(), "."))
		if !fork.BuiltIn(w.Object.GroupVersionKind()) && w.Resource.Group != "" {
			p.What = fmt.Sprintf("%s has no pod template at %s (--template-path says where its kind has it)", w, strings.Join(w.templateFields(), "."))
			p.Hint, p.Fix = "see where", Kubectl("get", w.Arg(), "-o", "yaml")
		}
	}
	return p
}
