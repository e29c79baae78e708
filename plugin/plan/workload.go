package plan

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// PodLabels returns the labels of the workload's pod template.
func (w *Workload) PodLabels() labels.Set {
	l, _, _ := unstructured.NestedStringMap(w.Template(), "metadata", "labels")
	return l
}

// Claims reports whether the workload's pods use a PersistentVolumeClaim that exists before them.
func (w *Workload) Claims() bool {
	t, err := w.PodTemplate()
	return err == nil && slices.ContainsFunc(t.Spec.Volumes, func(v corev1.Volume) bool { return v.PersistentVolumeClaim != nil })
}

// ForkOf returns the fork of w in the sandbox, found by its labels.
func ForkOf(w *Workload, name string, forks []unstructured.Unstructured) *unstructured.Unstructured {
	for i := range forks {
		l := forks[i].GetLabels()
		if l[sandbox.LabelSandbox] == name && l[sandbox.LabelRole] == sandbox.RoleFork && l[sandbox.LabelWorkload] == w.Label() {
			return &forks[i]
		}
	}
	return nil
}

// GroupVersionResource returns the API resource of the object, in the version in which it was read.
func (w *Workload) GroupVersionResource() schema.GroupVersionResource {
	return w.Resource.WithVersion(w.Object.GroupVersionKind().Version)
}

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
	if old := ForkOf(w, name, forks); old != nil && w.TemplateAt == "" {
		w.TemplateAt = old.GetAnnotations()[sandbox.AnnotationTemplate]
	}
}

// TemplateFields returns the path of the pod template, with further fields below it.
func (w *Workload) TemplateFields(below ...string) []string {
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

// TemplatePath returns the path of the pod template, empty for the default.
func (w *Workload) TemplatePath() string { return fork.FormatTemplatePath(w.TemplateFields()) }

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
	t, _, _ := unstructured.NestedMap(w.Object.Object, w.TemplateFields()...)
	return t
}

// PodTemplate returns the pod template decoded, for reading: what it does not know of is lost.
func (w *Workload) PodTemplate() (*corev1.PodTemplateSpec, error) {
	var t corev1.PodTemplateSpec
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(w.Template(), &t); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", w, strings.Join(w.TemplateFields(), "."), err)
	}
	return &t, nil
}

// Routed reports whether the workload's pod template asks for routers.
func (w *Workload) Routed() bool {
	labels, _, _ := unstructured.NestedStringMap(w.Object.Object, w.TemplateFields("metadata", "labels")...)
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
		p.What = fmt.Sprintf("%s has no pod template at %s, so it is no workload", w, strings.Join(w.TemplateFields(), "."))
		if !fork.BuiltIn(w.Object.GroupVersionKind()) && w.Resource.Group != "" {
			p.What = fmt.Sprintf("%s has no pod template at %s (--template-path says where its kind has it)", w, strings.Join(w.TemplateFields(), "."))
			p.Hint, p.Fix = "see where", Kubectl("get", w.Arg(), "-o", "yaml")
		}
	}
	return p
}
