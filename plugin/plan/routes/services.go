package routes

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// UnrouteAll returns a planner that undoes the targets by next, and then gives Services of these names their port numbers back.
func UnrouteAll(next func(*View) (*Step, error), services []string) func(*View) (*Step, error) {
	return func(v *View) (*Step, error) {
		if step, err := next(v); err != nil || !step.Done || len(services) == 0 {
			return step, err
		}
		return UnrouteServices(services...)(v)
	}
}

// Switched returns the names of the Services of a view that `route` switched, in order.
func (v *View) Switched() []string {
	var names []string
	for _, s := range v.Services {
		if switched(s) {
			names = append(names, s.Name)
		}
	}
	slices.Sort(names)
	return names
}

func switched(s *corev1.Service) bool {
	_, marked := s.Annotations[sandbox.AnnotationTargetPorts]
	return marked || s.Labels[sandbox.LabelRole] == sandbox.RoleService
}

// NamedServices returns the Services of a view that a command names. One that does not exist, and, without force, one that leads to a
// workload which is routed and not among the targets, is a *Problem.
func (v *View) NamedServices(names []string, namespace string, force bool) ([]*corev1.Service, error) {
	var out []*corev1.Service
	for _, name := range names {
		i := slices.IndexFunc(v.Services, func(s *corev1.Service) bool { return s.Name == name })
		if i < 0 {
			return nil, &plan.Problem{
				What: fmt.Sprintf("service %q not found in namespace %q", name, namespace), Hint: "list what exists", Fix: plan.Kubectl("get", "services"),
				Code: string(metav1.StatusReasonNotFound), Object: "service/" + name,
			}
		}
		s := v.Services[i]
		for _, w := range v.Others {
			template, err := w.PodTemplate()
			if force || err != nil || !w.Routed() || !switched(s) || !plan.Selects(s, template.Labels) {
				continue
			}
			return nil, v.tested(&plan.Problem{
				What: fmt.Sprintf("service/%s leads to %s, which is routed: its forks would get no more requests (--force does it anyway)", s.Name, w),
				Hint: "remove the routers as well", Fix: plan.Kubectl("sandbox", "unroute", w.Arg()),
			}, plan.MaxHints)
		}
		out = append(out, s)
	}
	return out, nil
}
