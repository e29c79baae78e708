package plan

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/kubectl/pkg/polymorphichelpers"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// RolledOut reports whether all pods of a workload are available and of its current template, by the rules of
// `kubectl rollout status`; or else what is missing. An error means that the rollout can't complete. For kinds that
// kubectl does not know it reads the status fields that custom kinds share with Deployments, if present.
func RolledOut(w *Workload) (message string, done bool, err error) {
	if viewer, err := polymorphichelpers.StatusViewerFor(w.Object.GroupVersionKind().GroupKind()); err == nil {
		message, done, err := viewer.Status(w.Object, 0)
		message = strings.TrimPrefix(strings.TrimSuffix(strings.TrimSpace(message), "..."), "Waiting for ")
		return message, done && err == nil, err
	}
	get := func(path ...string) (int64, bool) {
		v, ok, _ := unstructured.NestedFieldNoCopy(w.Object.Object, path...)
		switch v := v.(type) {
		case string: // Argo Rollouts write observedGeneration so
			n, err := strconv.ParseInt(v, 10, 64)
			return n, err == nil
		case int64, float64:
			return AsInt(v), ok
		}
		return 0, false
	}
	if observed, ok := get("status", "observedGeneration"); ok && observed < w.Object.GetGeneration() {
		return "its controller has not seen the change", false, nil
	}
	if IsRollout(w) {
		if phase, _, _ := unstructured.NestedString(w.Object.Object, "status", "phase"); phase != "Healthy" {
			message, _, _ := unstructured.NestedString(w.Object.Object, "status", "message")
			message = strings.TrimSpace(fmt.Sprintf("its phase is %s %s", phase, message))
			if phase == "Degraded" {
				return "", false, errors.New(message)
			}
			return message, false, nil
		}
	}
	want, ok := get("spec", "replicas")
	if !ok {
		want = 1
	}
	for _, field := range []string{"updatedReplicas", "availableReplicas"} {
		if n, ok := get("status", field); ok && n < want {
			return fmt.Sprintf("%d of %d replicas: status.%s", n, want, field), false, nil
		}
	}
	return "", true, nil
}

// IsRollout reports whether a workload is a Rollout of Argo.
func IsRollout(w *Workload) bool {
	return w.Resource.Group == "argoproj.io" && w.Kind() == "Rollout"
}

// Touched reports whether a workload carries changes of `route`: it is routed, or `route` or `unroute` was
// interrupted.
func Touched(w *Workload) bool {
	_, recorded := w.Object.GetAnnotations()[sandbox.AnnotationRouted]
	return recorded || w.Routed()
}

// AsInt returns a number of unstructured JSON; 0 for anything else.
func AsInt(v any) int64 {
	switch v := v.(type) {
	case int64:
		return v
	case float64:
		return int64(v)
	}
	return 0
}
