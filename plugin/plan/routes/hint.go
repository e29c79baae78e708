package routes

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Steps returns the steps that next (Route or Unroute) would take from v on if every rollout succeeded, and the
// resulting view. If next refuses, Steps also plans the command that the *Problem proposes, so that it does not
// propose one that would be refused too.
func Steps(v *View, next func(*View) (*Step, error)) ([]*Step, *View, error) {
	steps, final, err := planRoute(v, next)
	var p *plan.Problem
	if errors.As(err, &p) {
		return nil, nil, v.tested(p, plan.MaxHints)
	}
	return steps, final, err
}

func planRoute(v *View, next func(*View) (*Step, error)) ([]*Step, *View, error) {
	if _, err := next(v); err != nil { // with what is rolled out, and what is not, as it is now
		return nil, nil, err
	}
	return steps(v, next)
}

// tested returns p with a command that is not refused. If p's command is, p adds that refusal and takes over its
// command.
func (v *View) tested(p *plan.Problem, depth int) *plan.Problem {
	verb, args := routeWords(p.Fix)
	if verb == nil {
		return p
	}
	narrowed := v.naming(args)
	if narrowed == nil {
		return p // it names a workload that was not read, so it can't be planned here
	}
	_, _, err := planRoute(narrowed, verb)
	var refused *plan.Problem
	if !errors.As(err, &refused) {
		known := *p
		known.Fix = append(slices.Clone(p.Fix), narrowed.TemplateFlag()...)
		return &known
	}
	if depth == 0 || refused.What == p.What {
		return &plan.Problem{What: p.What, Err: p.Err, Code: p.Code, Object: p.Object}
	}
	refused = narrowed.tested(refused, depth-1)
	return &plan.Problem{
		What: p.What + "; and " + refused.What, Lines: refused.Lines, Hint: refused.Hint, Fix: refused.Fix, Admin: refused.Admin,
		Err: p.Err, Code: p.Code, Object: p.Object,
	}
}

// routeWords parses `kubectl sandbox route|unroute TYPE/NAME...`; nil for any other command.
func routeWords(words []string) (next func(*View) (*Step, error), args []string) {
	if len(words) < 4 || words[0] != "kubectl" || words[1] != "sandbox" {
		return nil, nil
	}
	for _, w := range words[3:] {
		if strings.HasPrefix(w, "-") || !strings.Contains(w, "/") {
			return nil, nil
		}
	}
	switch words[2] {
	case "route":
		return Route, words[3:]
	case "unroute":
		return Unroute, words[3:]
	}
	return nil, nil
}

// naming returns the view with the workloads of these arguments as its targets; nil if one was not read.
func (v *View) naming(args []string) *View {
	named := *v
	named.Targets, named.Others = nil, nil
	all := slices.Concat(v.Targets, v.Others)
	for _, arg := range args {
		i := slices.IndexFunc(all, func(w *plan.Workload) bool { return w.Arg() == arg })
		if i < 0 {
			return nil
		}
		named.Targets = append(named.Targets, all[i])
	}
	named.Owners = maps.Clone(v.Owners)
	for _, w := range all {
		switch {
		case slices.Contains(named.Targets, w):
		case slices.ContainsFunc(named.Targets, func(t *plan.Workload) bool { return metav1.IsControlledBy(w.Object, t.Object) }):
			// This is a ReplicaSet whose pods belong to the named Deployment.
			if named.Owners == nil {
				named.Owners = map[types.UID]metav1.OwnerReference{}
			}
			named.Owners[w.Object.GetUID()] = *metav1.GetControllerOf(w.Object)
		default:
			named.Others = append(named.Others, w)
		}
	}
	return &named
}

// TemplateFlag returns --template-path if the targets' pod templates are elsewhere than their kind or annotation
// states.
func (v *View) TemplateFlag() []string {
	for _, t := range v.Targets {
		if t.TemplateAt != "" && t.Object.GetAnnotations()[sandbox.AnnotationTemplate] == "" {
			return []string{"--template-path=" + t.TemplateAt}
		}
	}
	return nil
}

// exposable reports whether `kubectl expose` can create a Service with the workload's selector: one that consists of
// labels only.
func (t *target) exposable() bool {
	matchLabels, _, _ := unstructured.NestedMap(t.Object.Object, "spec", "selector", "matchLabels")
	expressions, _, _ := unstructured.NestedSlice(t.Object.Object, "spec", "selector", "matchExpressions")
	return len(matchLabels) > 0 && len(expressions) == 0
}

// serviceName returns a name for a Service in front of a workload: the workload's name, if it is valid for a Service
// and free.
func (v *View) serviceName(workload string) string {
	name := strings.ReplaceAll(workload, ".", "-")
	if name[0] >= '0' && name[0] <= '9' {
		name = "svc-" + name
	}
	const longest = 63 - len("-99")
	name = strings.TrimRight(name[:min(len(name), longest)], "-")
	free := name
	for n := 2; slices.ContainsFunc(v.Services, func(s *corev1.Service) bool { return s.Name == free }); n++ {
		free = fmt.Sprintf("%s-%d", name, n)
	}
	return free
}
