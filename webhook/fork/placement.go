package fork

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// aim retargets terms of a fork's pod spec about the baseline's own pods to the fork's, whose labels are marks:
// topology spread, and affinity and anti-affinity to pods. Unchanged, the fork's pods would count the baseline's as
// their own. And a required anti-affinity of a running fork pod would keep pods of the baseline off its node. Terms
// about other pods stay. The spec is changed in place.
func aim(spec map[string]any, namespace string, marks map[string]any, baseline ...labels.Set) {
	own := func(selector any) bool {
		m, ok := selector.(map[string]any)
		if !ok {
			return false // without a selector, a term matches no pod
		}
		var decoded metav1.LabelSelector
		if runtime.DefaultUnstructuredConverter.FromUnstructured(m, &decoded) != nil {
			return false
		}
		s, err := metav1.LabelSelectorAsSelector(&decoded)
		return err == nil && slices.ContainsFunc(baseline, func(l labels.Set) bool { return s.Matches(l) })
	}
	set := func(term map[string]any) {
		if own(term["labelSelector"]) {
			term["labelSelector"] = map[string]any{"matchLabels": runtime.DeepCopyJSON(marks)}
		}
	}
	for _, constraint := range objects(spec["topologySpreadConstraints"]) {
		set(constraint)
	}
	for _, field := range []string{"podAffinity", "podAntiAffinity"} {
		affinity, _ := spec["affinity"].(map[string]any)
		toPods, _ := affinity[field].(map[string]any)
		terms := objects(toPods["requiredDuringSchedulingIgnoredDuringExecution"])
		for _, preferred := range objects(toPods["preferredDuringSchedulingIgnoredDuringExecution"]) {
			if term, ok := preferred["podAffinityTerm"].(map[string]any); ok {
				terms = append(terms, term)
			}
		}
		for _, term := range terms {
			names, _, _ := unstructured.NestedStringSlice(term, "namespaces")
			_, byLabel := term["namespaceSelector"].(map[string]any)
			if len(names) == 0 || byLabel || slices.Contains(names, namespace) {
				set(term)
			}
		}
	}
}

// objects returns the objects of a list, not copies.
func objects(list any) []map[string]any {
	all, _ := list.([]any)
	var out []map[string]any
	for _, e := range all {
		if m, ok := e.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}
