package forks

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
)

// watchers warns of objects that would observe a fork's pods without harm to the baseline's traffic: PodMonitors, and
// other workloads whose placement rules depend on where the fork's pods run.
func (p *Plan) watchers(f *Fork, workloads []*plan.Workload, objects *plan.NamespaceObjects) {
	pods := forkLabels(f.Deployment)
	for i := range objects.Monitors {
		m := &objects.Monitors[i]
		s, ok := monitored(m, p.Namespace)
		if !ok || !s.Matches(pods) {
			continue
		}
		name := "podmonitor.monitoring.coreos.com/" + m.GetName()
		if m.GetNamespace() != p.Namespace {
			name += " of namespace " + m.GetNamespace()
		}
		p.warn("%s selects the pods of %s as well: their metrics appear among the baseline's and differ only in the pod's name", name, plan.DeploymentName(f.Name()))
	}
	for _, w := range distinct(slices.Concat(workloads, objects.Workloads)) {
		if how := placedBy(w, p.Namespace, pods); len(how) > 0 {
			p.warn("%s places its pods by its %s, which counts those of %s as well", w, strings.Join(how, " and "), plan.DeploymentName(f.Name()))
		}
	}
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
		if selector, err := metav1.LabelSelectorAsSelector(s); err == nil && selector.Matches(pod) && !slices.Contains(how, rule) {
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

// unread warns of resources that could not be read, and of what is unknown as a result.
func (p *Plan) unread(resources []string) {
	if len(resources) > 0 {
		p.warn("could not read %s: whether they select the forks' pods is not known", strings.Join(resources, ", "))
	}
}

// kept applies --keep-label to the labels that the fork has kept so far.
func kept(names []string, changes []LabelChange) []string {
	names = slices.Clone(names)
	for _, c := range changes {
		names = slices.DeleteFunc(names, func(n string) bool { return n == c.Name })
		if !c.Remove {
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	return names
}

// keepable returns a *Problem if a label to keep is on no workload, or a label to drop was kept by no fork.
func (o *Options) keepable(workloads []*plan.Workload) error {
	for i, c := range o.KeepLabels {
		if c.Remove || slices.ContainsFunc(workloads, func(w *plan.Workload) bool { _, ok := w.PodLabels()[c.Name]; return ok }) {
			continue
		}
		var names, have []string
		for _, w := range workloads {
			names = append(names, w.String())
			for name := range w.PodLabels() {
				if fork.Keeps(name) && !slices.Contains(have, name) {
					have = append(have, name)
				}
			}
		}
		slices.Sort(have)
		again := *o
		again.KeepLabels = slices.Delete(slices.Clone(o.KeepLabels), i, i+1)
		what := fmt.Sprintf("--keep-label %s: the pods of %s have no such label", c.Name, strings.Join(names, ", "))
		if len(have) > 0 {
			what += "; there is " + strings.Join(have, ", ")
		}
		return propose(&plan.Problem{What: what}, "fork without it", &again, workloads...)
	}
	return nil
}
