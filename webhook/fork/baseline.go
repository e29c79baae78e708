package fork

import (
	"errors"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// DefaultTemplatePath is the path of the pod template of Kubernetes' own kinds, and of most custom ones.
const DefaultTemplatePath = "spec.template"

// maxTemplatePath bounds a template path, in bytes: it becomes part of error messages.
const maxTemplatePath = 256

// ParseTemplatePath parses the path of a pod template in an object: names of fields separated by dots, such as
// "spec.workload.template". It accepts the leading dot of `kubectl explain` and JSONPath. An empty path is
// DefaultTemplatePath.
func ParseTemplatePath(path string) ([]string, error) {
	if path == "" {
		path = DefaultTemplatePath
	}
	if len(path) > maxTemplatePath {
		return nil, fmt.Errorf("is %d characters long, more than %d", len(path), maxTemplatePath)
	}
	fields := strings.Split(strings.TrimPrefix(path, "."), ".")
	for _, f := range fields {
		if f == "" {
			return nil, errors.New("holds a field without a name")
		}
		if i := strings.IndexFunc(f, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}); i >= 0 {
			return nil, fmt.Errorf("consists of names of fields with dots between, such as %s, and lists have none", DefaultTemplatePath)
		}
	}
	return fields, nil
}

// FormatTemplatePath formats a path for ParseTemplatePath; empty for the default.
func FormatTemplatePath(fields []string) string {
	if path := strings.Join(fields, "."); path != DefaultTemplatePath {
		return path
	}
	return ""
}

// PodTemplate returns a copy of the baseline's pod template at path, which ParseTemplatePath parses. If its lists
// contain a key twice, the copy has one element with that key, and the same meaning.
func PodTemplate(baseline *unstructured.Unstructured, path string) (map[string]any, error) {
	fields, err := ParseTemplatePath(path)
	if err != nil {
		return nil, fmt.Errorf("template path %q %w", path, err)
	}
	template, ok, err := unstructured.NestedMap(baseline.Object, fields...)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s %q has no pod template at %s", baseline.GetKind(), baseline.GetName(), strings.Join(fields, "."))
	}
	normalize(template)
	return template, nil
}

// Inherits reports whether a fork's pods keep the pod template annotation of that name.
func Inherits(annotation string) bool { return inherits(annotation) }

// A Ref identifies a fork's baseline, in the namespace of the fork.
type Ref struct {
	APIVersion string
	Kind       string // in lower case
	Name       string
}

// String returns "KIND.GROUP/NAME", and "KIND/NAME" without a group, as kubectl does.
func (r Ref) String() string {
	if group, _, ok := strings.Cut(r.APIVersion, "/"); ok {
		return r.Kind + "." + group + "/" + r.Name
	}
	return r.Kind + "/" + r.Name
}

// Resource returns the baseline's resource in the form that a RESTMapper's ResourceFor accepts: with the kind as the
// resource's name.
func (r Ref) Resource() (schema.GroupVersionResource, error) {
	gv, err := schema.ParseGroupVersion(r.APIVersion)
	return gv.WithResource(r.Kind), err
}

// BaselineOf returns the baseline of a fork's Deployment.
func BaselineOf(fork metav1.Object) (Ref, error) {
	name, ok := fork.GetAnnotations()[sandbox.AnnotationWorkload]
	if !ok {
		name = fork.GetLabels()[sandbox.LabelWorkload]
	}
	r := Ref{APIVersion: fork.GetAnnotations()[sandbox.AnnotationAPIVersion]}
	if r.Kind, r.Name, ok = strings.Cut(name, "."); !ok || r.Kind == "" || r.Name == "" {
		return Ref{}, fmt.Errorf("deployment.apps/%s does not say what it is a fork of: its label %s is %q", fork.GetName(), sandbox.LabelWorkload, name)
	}
	switch {
	case r.APIVersion != "":
	case r.Kind == "replicationcontroller":
		r.APIVersion = "v1"
	default:
		r.APIVersion = "apps/v1"
	}
	return r, nil
}

// nameBaseline adds annotations to a fork's Deployment that identify the baseline where the label does not.
func nameBaseline(annotations map[string]any, baseline *unstructured.Unstructured) {
	kind, name := baseline.GetKind(), baseline.GetName()
	if whole := sandbox.WorkloadName(kind, name); whole != sandbox.WorkloadLabel(kind, name) {
		annotations[sandbox.AnnotationWorkload] = whole
	}
	if !BuiltIn(baseline.GroupVersionKind()) {
		annotations[sandbox.AnnotationAPIVersion] = baseline.GetAPIVersion()
	}
}

// BuiltIn reports whether a kind with a pod template is one of Kubernetes' own.
func BuiltIn(gvk schema.GroupVersionKind) bool {
	switch gvk.Kind {
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet":
		return gvk.Group == "apps"
	case "ReplicationController":
		return gvk.Group == ""
	}
	return false
}
