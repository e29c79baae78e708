package routes

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
)

// Choose returns the candidates that `route --all` routes, and why it skips the others. It skips workloads that
// are not healthy, since every step waits for all targets; workloads that can't receive keys; and workloads that
// can't be routed, or not without a skipped one.
func Choose(v *View, candidates []*plan.Workload) (chosen []*plan.Workload, left []string) {
	var fit []*plan.Workload
	for _, w := range candidates {
		if why := v.unfit(w); why != "" {
			left = append(left, fmt.Sprintf("%s: %s", w, why))
			continue
		}
		fit = append(fit, w)
	}
	for _, group := range v.groups(fit) {
		routable, why := v.routable(group)
		chosen, left = append(chosen, routable...), append(left, why...)
	}
	slices.SortStableFunc(chosen, func(a, b *plan.Workload) int { return slices.Index(candidates, a) - slices.Index(candidates, b) })
	return chosen, left
}

// unfit returns why a workload is skipped, whatever else is routed; empty if it is not.
func (v *View) unfit(w *plan.Workload) string {
	message, done, err := plan.RolledOut(w)
	switch {
	case err != nil:
		return "it is not healthy: " + v.because(w, err.Error())
	case !done && !plan.Touched(w): // else the rollout may be that of a command which was interrupted, and goes on
		return "it is not healthy: " + v.because(w, message)
	case w.Routed():
		return ""
	}
	template, err := w.PodTemplate()
	if err != nil {
		return err.Error()
	}
	return plan.UnroutableProtocol(v.Services, templatePod(template), template.Labels)
}

func (v *View) because(w *plan.Workload, message string) string {
	if why := v.stuck(w); why != "" {
		message += "; " + why
	}
	return strings.TrimSpace(message)
}

// groups groups the workloads that share a Service: these are routed together or not at all.
func (v *View) groups(workloads []*plan.Workload) [][]*plan.Workload {
	var groups [][]*plan.Workload
	for _, w := range workloads {
		joined := []*plan.Workload{w}
		groups = slices.DeleteFunc(groups, func(g []*plan.Workload) bool {
			if !slices.ContainsFunc(g, func(o *plan.Workload) bool { return v.share(w, o) }) {
				return false
			}
			joined = append(joined, g...)
			return true
		})
		groups = append(groups, joined)
	}
	return groups
}

// share reports whether a Service selects pods of both workloads.
func (v *View) share(a, b *plan.Workload) bool {
	one, err := a.PodTemplate()
	other, failed := b.PodTemplate()
	if err != nil || failed != nil {
		return false
	}
	for _, s := range v.Services {
		if plan.Selects(s, one.Labels) && plan.Selects(s, other.Labels) {
			return true
		}
	}
	return false
}

// routable returns as many workloads of a group as can be routed together, and why not the others. It first removes a
// workload that can't be routed even together with all others.
func (v *View) routable(group []*plan.Workload) (routable []*plan.Workload, left []string) {
	for len(group) > 0 {
		refused := v.refusal(group)
		if refused == nil {
			return group, left
		}
		out := slices.IndexFunc(group, func(w *plan.Workload) bool {
			without := slices.DeleteFunc(slices.Clone(group), func(o *plan.Workload) bool { return o == w })
			return len(without) > 0 && v.refusal(without) == nil
		})
		if out < 0 {
			out = 0 // no single one is to blame
		}
		left = append(left, leftOut(group[out], refused))
		group = slices.Delete(slices.Clone(group), out, out+1)
	}
	return nil, left
}

// leftOut returns why a workload is skipped, with its name in front if the refusal is about another object.
func leftOut(w *plan.Workload, p *plan.Problem) string {
	if strings.Contains(p.What, w.String()) || strings.Contains(p.What, w.Arg()) {
		return p.What
	}
	return fmt.Sprintf("%s: %s", w, p.What)
}

// refusal returns why the workloads can't be routed together, or nil.
func (v *View) refusal(workloads []*plan.Workload) *plan.Problem {
	named := *v
	named.Targets, named.Others = workloads, nil
	for _, w := range slices.Concat(v.Targets, v.Others) {
		if !slices.Contains(workloads, w) {
			named.Others = append(named.Others, w)
		}
	}
	_, _, err := planRoute(&named, Route)
	var p *plan.Problem
	if err != nil && !errors.As(err, &p) {
		p = &plan.Problem{What: err.Error(), Err: err}
	}
	return p
}
