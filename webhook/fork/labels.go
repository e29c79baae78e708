package fork

import (
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Kept returns the names of the labels that the pods of a fork have of their baseline's, sorted: Options.KeepLabels of the fork
// there is.
func Kept(fork *unstructured.Unstructured) []string {
	all, _, _ := unstructured.NestedMap(fork.Object, "spec", "template", "metadata", "labels")
	return slices.DeleteFunc(slices.Sorted(maps.Keys(all)), func(name string) bool { return strings.HasPrefix(name, sandbox.Prefix) })
}

// podLabels returns the labels of the fork's pods: the marks, and those of the names in keep that the template has. The marks
// win, and the selector of the fork's Deployment is of them alone: it can't change.
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

// managed says whether Argo CD, Flux or Helm find what they manage by labels and annotations of that domain.
func managed(domain string) bool {
	return slices.ContainsFunc([]string{"argocd.argoproj.io", "fluxcd.io", "helm.sh", "config.kubernetes.io"}, func(d string) bool {
		return domain == d || strings.HasSuffix(domain, "."+d)
	})
}

// Keeps says whether a fork's pods may keep a label of that name: not ours, not those by which Argo CD, Flux and Helm find what
// they manage, and not those by which Kubernetes' controllers and Argo Rollouts tell the revisions of a workload.
func Keeps(name string) bool {
	domain, _, _ := strings.Cut(name, "/")
	switch name {
	case "pod-template-hash", "controller-revision-hash", "rollouts-pod-template-hash":
		return false
	}
	return domain+"/" != sandbox.Prefix && !managed(domain)
}
