package forks

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// warnOfWatchers warns of objects that would observe a fork's pods without harm to the baseline's traffic:
// PodMonitors, and other workloads whose placement rules depend on where the fork's pods run.
func (r *request) warnOfWatchers(f *Fork) (said warnings) {
	pods := forkLabels(f.Deployment)
	for i := range r.state.Objects.Monitors {
		m := &r.state.Objects.Monitors[i]
		s, ok := monitored(m, r.state.Namespace)
		if !ok || !s.Matches(pods) {
			continue
		}
		name := "podmonitor.monitoring.coreos.com/" + m.GetName()
		if m.GetNamespace() != r.state.Namespace {
			name += " of namespace " + m.GetNamespace()
		}
		said.add("%s selects the pods of %s as well: their metrics appear among the baseline's and "+
			"differ only in the pod's name", name, plan.DeploymentName(f.Name()))
	}
	for _, w := range distinct(slices.Concat(r.workloads, r.state.Objects.Workloads)) {
		if how := placedBy(w, r.state.Namespace, pods); len(how) > 0 {
			said.add("%s places its pods by its %s, which counts those of %s as well",
				w, strings.Join(how, " and "), plan.DeploymentName(f.Name()))
		}
	}
	return said
}

// monitored returns how a PodMonitor selects pods of the namespace. It is not ok if it selects none.
func monitored(m *unstructured.Unstructured, namespace string) (labels.Selector, bool) {
	everywhere, _, _ := unstructured.NestedBool(m.Object, "spec", "namespaceSelector", "any")
	names, _, _ := unstructured.NestedStringSlice(m.Object, "spec", "namespaceSelector", "matchNames")
	if !everywhere && !slices.Contains(names, namespace) && (len(names) > 0 || m.GetNamespace() != namespace) {
		return nil, false
	}
	if s, _, _ := unstructured.NestedMap(m.Object, "spec", "selector"); len(s) == 0 {
		return labels.Everything(), true
	}
	return selectorAt(m, "spec", "selector")
}

// placedBy returns the mandatory placement rules of a workload that depend on where pods with those labels run.
func placedBy(w *plan.Workload, namespace string, pod labels.Set) (how []string) {
	template, err := w.PodTemplate()
	if err != nil {
		return nil // of a kind whose template this program does not understand
	}
	add := func(rule string, s *metav1.LabelSelector) {
		selector, err := metav1.LabelSelectorAsSelector(s)
		if err == nil && selector.Matches(pod) && !slices.Contains(how, rule) {
			how = append(how, rule)
		}
	}
	terms := func(rule string, all []corev1.PodAffinityTerm) {
		for _, t := range all {
			if len(t.Namespaces) == 0 || slices.Contains(t.Namespaces, namespace) || t.NamespaceSelector != nil {
				add(rule, t.LabelSelector)
			}
		}
	}
	if a := template.Spec.Affinity; a != nil {
		if a.PodAntiAffinity != nil {
			terms("anti-affinity", a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
		}
		if a.PodAffinity != nil {
			terms("affinity", a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution)
		}
	}
	for _, t := range template.Spec.TopologySpreadConstraints {
		if t.WhenUnsatisfiable == corev1.DoNotSchedule {
			add("topology spread", t.LabelSelector)
		}
	}
	return how
}

// warnOfUnread warns of resources that could not be read, and of what is unknown as a result.
func (r *request) warnOfUnread() (said warnings) {
	if resources := r.state.Objects.Unread; len(resources) > 0 {
		said.add("could not read %s: whether they select the forks' pods is not known", strings.Join(resources, ", "))
	}
	return said
}

// warnOfRebase warns if a command other than `rebase` rebases the fork.
func (r *request) warnOfRebase(b *beginning) (said warnings) {
	if b.old != nil && b.old.GetAnnotations()[sandbox.AnnotationBaseline] != "" && !r.Rebase && b.behind() {
		said.add("%s was behind %s and is rebased on it", plan.DeploymentName(b.options.Name), b.workload)
	}
	return said
}
