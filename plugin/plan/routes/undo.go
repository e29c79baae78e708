package routes

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Unroute returns the next step that restores the targets to their state before Route, or a *Problem. Services are
// switched back to numbers first, so that no endpoint depends on a name. Then one rollout removes routers, labels,
// annotations and added names. After that the policies go, which the last router needed, and finally the record.
func Unroute(v *View) (*Step, error) { return unroute(v, false) }

// UnrouteForced is like Unroute, but also removes routers that forks need.
func UnrouteForced(v *View) (*Step, error) { return unroute(v, true) }

func unroute(v *View, force bool) (*Step, error) {
	a := &analysis{view: v}
	for _, w := range v.Targets {
		t, err := newTarget(w)
		if err != nil {
			return nil, err
		}
		a.targets = append(a.targets, t)
	}
	if !force {
		if p := a.orphans(); p != nil {
			return nil, p
		}
	}

	var step Step
	restores, err := a.writeRestores()
	if err != nil {
		return nil, err
	}
	var rolls []Write
	for _, t := range a.targets {
		write, ok := t.writeUnmark()
		if ok {
			rolls = append(rolls, write)
		}
		if _, done, _ := plan.RolledOut(t.Workload); !v.RolledOut && (ok || !done && t.touched()) {
			if p := gate(t.Workload); p != nil {
				return nil, p
			}
		}
	}
	if len(restores) > 0 {
		return &Step{Title: "switching Services back to port numbers", Writes: restores}, nil
	}
	if len(rolls) > 0 {
		return &Step{Title: "removing routers", Writes: rolls}, nil
	}

	var records []Write
	for _, t := range a.targets {
		for _, p := range v.Policies {
			if ofTarget(p, t.Workload) {
				step.Writes = append(step.Writes, deletePolicy(p))
			}
		}
		if write, ok := t.writeForget(); ok {
			records = append(records, write)
		}
	}
	if len(step.Writes)+len(records) == 0 {
		return &Step{Done: true}, nil
	}
	if waits := append(a.rollouts(), a.markedPods()...); len(waits) > 0 {
		return &Step{Title: "waiting for pods without routers", Waits: waits}, nil
	}
	if len(step.Writes) > 0 {
		step.Title = "deleting NetworkPolicies"
		return &step, nil
	}
	return &Step{Title: "removing the record of the changes", Writes: records}, nil
}

func (t *target) touched() bool { return plan.Touched(t.Workload) }

// orphans returns a Problem if there are forks that receive requests through the targets' routers.
func (a *analysis) orphans() *plan.Problem {
	for _, t := range a.targets {
		var sandboxes []string
		for _, w := range a.view.Others {
			l := w.Object.GetLabels()
			if w.Resource.Group == appsv1.GroupName && l[sandbox.LabelRole] == sandbox.RoleFork && l[sandbox.LabelWorkload] == t.Label() {
				sandboxes = plan.AppendNew(sandboxes, l[sandbox.LabelSandbox])
			}
		}
		if len(sandboxes) == 0 {
			continue
		}
		slices.Sort(sandboxes)
		what := "sandbox " + sandboxes[0] + " has a fork of it that"
		if len(sandboxes) > 1 {
			what = "sandboxes " + plan.JoinWords(sandboxes) + " have forks of it that"
		}
		return &plan.Problem{
			What: fmt.Sprintf("%s is in use: %s would get no more requests (--force removes the routers anyway)", t.Workload, what),
			Hint: "delete first what needs them",
			Fix:  plan.Kubectl(append([]string{"sandbox", "delete"}, sandboxes...)...),
		}
	}
	return nil
}

// writeRestores switches Services of the targets back to their numbers, except Services that other routed workloads
// need and that work without the targets' added names.
func (a *analysis) writeRestores() ([]Write, error) {
	var writes []Write
	for _, svc := range a.view.Services {
		if _, marked := svc.Annotations[sandbox.AnnotationTargetPorts]; !marked && svc.Labels[sandbox.LabelRole] != sandbox.RoleService {
			continue
		}
		s, err := markedService(svc)
		if err != nil {
			return nil, err
		}
		var losing *target
		ours := false
		for _, t := range a.targets {
			if !plan.Selects(svc, t.labels) && !slices.Contains(sandbox.ParseWorkloads(svc.Annotations[sandbox.AnnotationWorkloads]), sandbox.WorkloadName(t.Kind(), t.Name())) {
				continue
			}
			ours = true
			if slices.ContainsFunc(t.record.Names, func(n sandbox.AddedName) bool { return s.uses(n.Name) }) {
				losing = t
			}
		}
		if !ours {
			continue
		}
		keepers, err := a.keepers(s)
		if err != nil {
			return nil, err
		}
		switch {
		case len(keepers) == 0:
			if write, ok := s.writeRestore(); ok {
				writes = append(writes, write)
			}
		case losing != nil:
			command := plan.Kubectl("sandbox", "unroute")
			for _, t := range a.targets {
				command = append(command, t.Arg())
			}
			return nil, &plan.Problem{
				What: fmt.Sprintf("service/%s sends to port names that %s was given, and sends to routers of %s too", svc.Name, losing.Workload, plan.JoinWords(keepers)),
				Hint: "unroute all of them at once",
				Fix:  append(command, keepers...),
			}
		default:
			if write, ok := s.writeLeave(a.targets); ok {
				writes = append(writes, write)
			}
		}
	}
	return writes, nil
}

// markedService returns a Service with its parsed record.
func markedService(svc *corev1.Service) (*service, error) {
	s := &service{Service: svc}
	text, marked := svc.Annotations[sandbox.AnnotationTargetPorts]
	if !marked {
		return s, nil
	}
	marks, err := sandbox.ParseTargetPorts(text)
	if err != nil {
		return nil, &plan.Problem{What: fmt.Sprintf("service/%s: %s", svc.Name, err), Hint: "edit it", Fix: plan.Kubectl("edit", "service/"+svc.Name)}
	}
	s.marks = marks
	return s, nil
}

// UnrouteServices returns a planner for the named Services of View.Services, whatever the state of their
// workloads: each is switched back to its port numbers, and then loses its marks.
func UnrouteServices(names ...string) func(*View) (*Step, error) {
	return func(v *View) (*Step, error) {
		step := &Step{Title: "switching Services back to port numbers"}
		for _, svc := range v.Services {
			if !slices.Contains(names, svc.Name) {
				continue
			}
			s, err := markedService(svc)
			if err != nil {
				return nil, err
			}
			if write, ok := s.writeRestore(); ok {
				step.Writes = append(step.Writes, write)
			}
		}
		step.Done = len(step.Writes) == 0
		return step, nil
	}
}

// uses reports whether a port of the Service goes to a name that `route` set.
func (s *service) uses(name string) bool {
	for _, p := range s.Spec.Ports {
		if mark, ok := s.marks[sandbox.PortKey(string(p.Protocol), p.Port)]; ok && mark.Name == name && p.TargetPort.StrVal == name {
			return true
		}
	}
	return false
}

// keepers returns the routed workloads, other than the targets, that the Service has pods of.
func (a *analysis) keepers(s *service) ([]string, error) {
	var keepers []string
	for _, w := range a.view.Others {
		if !w.Routed() {
			continue
		}
		template, err := w.PodTemplate()
		if err != nil {
			return nil, err
		}
		if plan.Selects(s.Service, template.Labels) {
			keepers = append(keepers, w.Arg())
		}
	}
	for _, pod := range a.view.Pods {
		owner := a.view.owner(pod)
		if plan.Live(pod) && a.view.workload(owner.UID) == nil && owner.Kind != "" && pod.Labels[sandbox.LabelRole] == sandbox.RoleBaseline && plan.Selects(s.Service, pod.Labels) {
			keepers = plan.AppendNew(keepers, ownerArg(owner))
		}
	}
	return keepers, nil
}

// markedPods returns a wait for each target that still has a pod with a router.
func (a *analysis) markedPods() []Wait {
	if a.view.RolledOut {
		return nil
	}
	var waits []Wait
	for _, t := range a.targets {
		for _, pod := range a.view.podsOf(t.Workload) {
			if pod.Labels[sandbox.LabelRole] == sandbox.RoleBaseline {
				waits = append(waits, Wait{Workload: t.Workload, Message: "pod/" + pod.Name + " still has a router"})
				break
			}
		}
	}
	return waits
}
