package fork

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Kept returns the sorted names of the labels that a fork's pods have from their baseline: Options.KeepLabels of an
// existing fork.
func Kept(fork *unstructured.Unstructured) []string {
	all, _, _ := unstructured.NestedMap(fork.Object, "spec", "template", "metadata", "labels")
	return slices.DeleteFunc(slices.Sorted(maps.Keys(all)), func(name string) bool { return strings.HasPrefix(name, sandbox.Prefix) })
}

// podLabels returns the labels of the fork's pods: the marks, and the template's labels with names in keep. The marks
// win. The selector of the fork's Deployment contains only marks: it is immutable.
func podLabels(template, marks map[string]any, keep []string) map[string]any {
	all, _, _ := unstructured.NestedMap(template, "metadata", "labels")
	labels := map[string]any{}
	for _, name := range keep {
		if value, ok := all[name]; ok {
			labels[name] = value
		}
	}
	maps.Copy(labels, marks)
	return labels
}

// managed reports whether Argo CD, Flux or Helm track objects by labels and annotations of that domain.
func managed(domain string) bool {
	return slices.ContainsFunc([]string{"argocd.argoproj.io", "fluxcd.io", "helm.sh", "config.kubernetes.io"}, func(d string) bool {
		return domain == d || strings.HasSuffix(domain, "."+d)
	})
}

// Keeps reports whether a fork's pods may keep a label of that name. It excludes ours, those by which Argo CD, Flux and
// Helm track objects, and those by which Kubernetes' controllers and Argo Rollouts distinguish revisions.
func Keeps(name string) bool {
	domain, _, _ := strings.Cut(name, "/")
	switch name {
	case "pod-template-hash", "controller-revision-hash", "rollouts-pod-template-hash":
		return false
	}
	return domain+"/" != sandbox.Prefix && !managed(domain)
}
