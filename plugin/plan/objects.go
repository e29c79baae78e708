package plan

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
)

// ToUnstructured converts a typed object. It sets the kind, which objects in lists lack.
func ToUnstructured(obj runtime.Object, kind string) *unstructured.Unstructured {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		panic(err) // API types always convert
	}
	u := &unstructured.Unstructured{Object: content}
	version := schema.GroupVersion{Version: "v1"}
	if kind == "NetworkPolicy" {
		version = networkingv1.SchemeGroupVersion
	}
	u.SetGroupVersionKind(version.WithKind(kind))
	return u
}

// Manifest returns the object without the fields that only an API server writes, as for a file in Git.
func Manifest(u *unstructured.Unstructured) *unstructured.Unstructured {
	u = u.DeepCopy()
	delete(u.Object, "status")
	for _, field := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink"} {
		unstructured.RemoveNestedField(u.Object, "metadata", field)
	}
	for _, annotation := range []string{health.AnnotationRevision, corev1.LastAppliedConfigAnnotation} {
		unstructured.RemoveNestedField(u.Object, "metadata", "annotations", annotation)
	}
	if len(u.GetAnnotations()) == 0 {
		unstructured.RemoveNestedField(u.Object, "metadata", "annotations")
	}
	if u.GetKind() == "NetworkPolicy" {
		u.SetOwnerReferences(nil) // a uid can't be known in Git
	}
	return u
}
