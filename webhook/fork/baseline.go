package fork

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// DefaultTemplatePath is where the pod template of Kubernetes' own kinds stands, and of most custom ones.
const DefaultTemplatePath = "spec.template"

// maxTemplatePath bounds a template path, in bytes: it becomes part of error messages.
const maxTemplatePath = 256

// ParseTemplatePath reads the path of a pod template in an object: names of fields with dots between, such as
// "spec.workload.template", with or without the dot at the beginning that `kubectl explain` and JSONPath put there. An empty path
// is DefaultTemplatePath.
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

// FormatTemplatePath writes what ParseTemplatePath reads; empty for the default, which goes without saying.
func FormatTemplatePath(fields []string) string {
	if path := strings.Join(fields, "."); path != DefaultTemplatePath {
		return path
	}
	return ""
}

// PodTemplate returns a copy of the pod template of baseline that stands at path, as ParseTemplatePath reads it.
func PodTemplate(baseline *unstructured.Unstructured, path string) (map[string]any, error) {
	fields, err := ParseTemplatePath(path)
	if err != nil {
		return nil, fmt.Errorf("template path %q %w", path, err)
	}
	template, ok, err := unstructured.NestedMap(baseline.Object, fields...)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s %q has no pod template at %s", baseline.GetKind(), baseline.GetName(), strings.Join(fields, "."))
	}
	return template, nil
}

// BuiltIn reports whether the label of a workload says enough to find it: its kind is one of Kubernetes' own. The fork of any
// other has the version of its API in an annotation.
func BuiltIn(gvk schema.GroupVersionKind) bool {
	switch gvk.Kind {
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet":
		return gvk.Group == "apps"
	case "ReplicationController":
		return gvk.Group == ""
	}
	return false
}
