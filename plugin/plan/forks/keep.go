package forks

import (
	"maps"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/policies"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Admission holds the mutating webhooks that change pods on creation and select them by their labels.
type Admission struct {
	Webhooks []admissionv1.MutatingWebhook // of all configurations but our own
	// Unread means that the caller may not list them.
	Unread bool
}

// knownToAdmission reports whether well-known webhooks and node agents select pods by the label: Azure Workload
// Identity and its predecessor, Istio, Kuma and Datadog. (Linkerd, Vault and others use annotations, which forks keep
// anyway.)
func knownToAdmission(name string) bool {
	switch name {
	case "azure.workload.identity/use", "aadpodidbinding",
		"sidecar.istio.io/inject", "istio.io/rev", "istio.io/dataplane-mode",
		"kuma.io/sidecar-injection", "kuma.io/mesh",
		"admission.datadoghq.com/enabled":
		return true
	}
	return false
}

// keepLabels returns the labels of the baseline's pods that the fork's pods keep because admission webhooks read
// them, besides those of options. It warns of labels that webhooks read and that the fork can't have, because
// selectors of the namespace would then select its pods.
func (r *request) keepLabels(w *plan.Workload, options *fork.Options) (kept []string, said warnings) {
	template := w.PodLabels()
	pods := labels.Set{
		sandbox.LabelSandbox: r.Sandbox, sandbox.LabelRole: sandbox.RoleFork, sandbox.LabelWorkload: w.Label(),
		"pod-template-hash": unknownValue,
	}
	for _, name := range options.KeepLabels {
		if value, ok := template[name]; ok {
			pods[name] = value
		}
	}
	selected := selectors(r.workloads, r.state)
	for _, name := range slices.Sorted(maps.Keys(template)) {
		_, has := pods[name]
		if has || !fork.Keeps(name) || slices.Contains(options.DropLabels, name) {
			continue
		}
		by := r.state.Admission.reads(name, template, pods, r.state)
		if len(by) == 0 && !knownToAdmission(name) {
			continue
		}
		with := maps.Clone(pods)
		with[name] = template[name]
		if at := slices.IndexFunc(selected, func(s selecting) bool { return s.pods(with) != s.pods(pods) }); at >= 0 {
			reader := "admission"
			if len(by) > 0 {
				reader = strings.Join(by, ", ")
			}
			fix := "--keep-label=" + name + " keeps it anyway"
			if selected[at].refuses {
				fix = "so a fork can't have it"
			}
			said.add("%s: the fork's pods lack the label %s, by which %s chooses the pods that it changes: "+
				"%s selects by it as well; %s",
				w, name, reader, selected[at].object, fix)
			continue
		}
		pods, kept = with, append(kept, name)
	}
	return kept, append(said, r.warnOfUnknownReaders(w, pods, options)...)
}

// warnOfUnknownReaders warns of the labels that admission webhooks may or may not read.
func (r *request) warnOfUnknownReaders(w *plan.Workload, pods labels.Set, options *fork.Options) (said warnings) {
	if !r.state.Admission.Unread {
		return nil
	}
	own, _ := selectorAt(w.Object, "spec", "selector")
	var names []string
	for _, name := range slices.Sorted(maps.Keys(w.PodLabels())) {
		_, has := pods[name]
		domain, _, qualified := strings.Cut(name, "/")
		switch {
		case has, !fork.Keeps(name), knownToAdmission(name), slices.Contains(options.DropLabels, name):
		case !qualified, domain == "app.kubernetes.io", own != nil && mentions(own, name): // by convention, such labels distinguish workloads
		default:
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		said.add("%s: the fork's pods lack the labels %s; whether admission webhooks read them is unknown, "+
			"as you may not list mutatingwebhookconfigurations; --keep-label=%s keeps one",
			w, strings.Join(names, ", "), names[0])
	}
	return said
}

func mentions(s labels.Selector, name string) bool {
	requirements, _ := s.Requirements()
	return slices.ContainsFunc(requirements, func(r labels.Requirement) bool { return r.Key() == name })
}

// reads returns the webhooks that treat the fork's pods differently from the baseline's because a label is missing.
func (a *Admission) reads(name string, baseline, pods labels.Set, state *State) (by []string) {
	for i := range a.Webhooks {
		w := &a.Webhooks[i]
		if !changesPods(w) || !inNamespace(w, state) {
			continue
		}
		quoted := func(c admissionv1.MatchCondition) bool {
			return strings.Contains(c.Expression, `"`+name+`"`) || strings.Contains(c.Expression, `'`+name+`'`)
		}
		s, err := metav1.LabelSelectorAsSelector(w.ObjectSelector)
		objects := w.ObjectSelector != nil && err == nil && mentions(s, name) && s.Matches(baseline) != s.Matches(pods)
		if objects || slices.ContainsFunc(w.MatchConditions, quoted) {
			by = plan.AppendNew(by, w.Name)
		}
	}
	return by
}

// changesPods reports whether a webhook is called when a pod is created.
func changesPods(w *admissionv1.MutatingWebhook) bool {
	has := func(list []string, value string) bool {
		return slices.Contains(list, value) || slices.Contains(list, "*")
	}
	return slices.ContainsFunc(w.Rules, func(r admissionv1.RuleWithOperations) bool {
		return has(r.APIGroups, "") && (has(r.Resources, "pods") || slices.Contains(r.Resources, "*/*")) &&
			(slices.Contains(r.Operations, admissionv1.Create) || slices.Contains(r.Operations, admissionv1.OperationAll))
	})
}

// inNamespace reports whether a webhook is called for the namespace, as far as its labels are known.
func inNamespace(w *admissionv1.MutatingWebhook, state *State) bool {
	s, err := metav1.LabelSelectorAsSelector(w.NamespaceSelector)
	if w.NamespaceSelector == nil || err != nil {
		return true
	}
	requirements, _ := s.Requirements()
	ofName := !slices.ContainsFunc(requirements, func(r labels.Requirement) bool { return r.Key() != corev1.LabelMetadataName })
	if state.Policies.NamespaceLabels == nil || state.Policies.NamespaceUnread && !ofName {
		return true
	}
	return s.Matches(labels.Set(state.Policies.NamespaceLabels))
}

// A selecting object selects pods of the namespace by their labels.
type selecting struct {
	object  string
	refuses bool // a fork whose pods it selects
	pods    func(labels.Set) bool
}

// selectors returns everything that is known to select pods of the namespace.
func selectors(workloads []*plan.Workload, state *State) []selecting {
	var all []selecting
	for _, c := range selectingObjects(workloads, state) {
		all = append(all, selecting{c.object, true, func(pods labels.Set) bool { return c.selector.Matches(pods) }})
	}
	for i := range state.Objects.Monitors {
		m := &state.Objects.Monitors[i]
		if s, ok := monitored(m, state.Namespace); ok {
			all = append(all, selecting{"podmonitor.monitoring.coreos.com/" + m.GetName(), false, func(pods labels.Set) bool { return s.Matches(pods) }})
		}
	}
	for _, w := range distinct(slices.Concat(workloads, state.Objects.Workloads)) {
		all = append(all, selecting{w.String(), false, func(pods labels.Set) bool { return len(placedBy(w, state.Namespace, pods)) > 0 }})
	}
	for _, list := range [][]networkingv1.NetworkPolicy{state.Policies.Policies, state.Policies.Elsewhere} {
		for i := range list {
			n := &list[i]
			own := n.Namespace == state.Namespace || n.Namespace == ""
			if own {
				all = append(all, selecting{"networkpolicy/" + n.Name, false, func(pods labels.Set) bool { return policies.Matches(&n.Spec.PodSelector, pods) }})
			}
			for _, direction := range []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress} {
				for _, r := range policies.RulesOf(n, direction) {
					for _, peer := range r.Peers {
						if peer.PodSelector != nil {
							all = append(all, selecting{"networkpolicy/" + n.Name, false, func(pods labels.Set) bool { return policies.Matches(peer.PodSelector, pods) }})
						}
					}
				}
			}
		}
	}
	return all
}

// droppedLabels applies --keep-label to the labels that were excluded so far.
func droppedLabels(names []string, changes []LabelChange) []string {
	names = slices.Clone(names)
	for _, c := range changes {
		names = slices.DeleteFunc(names, func(n string) bool { return n == c.Name })
		if c.Remove {
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	return names
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
