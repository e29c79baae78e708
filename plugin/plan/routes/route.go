// Package routes decides what `route` and `unroute` write. It derives the next step from a view of the namespace alone,
// so that an interrupted command is resumed, or undone, by reading again.
package routes

import (
	"fmt"
	"slices"
	"strings"

	jsonpatch "gomodules.xyz/jsonpatch/v2"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A View is a snapshot of everything that `route` and `unroute` look at in one namespace. Route and Unroute
// derive the next step from it alone, since there is no other state. So an interrupted command is resumed, or undone,
// by reading again.
type View struct {
	// Targets are the workloads that the command names, in its order.
	Targets []*plan.Workload
	// Others are the other workloads of the namespace, including forks.
	Others   []*plan.Workload
	Services []*corev1.Service
	Pods     []*corev1.Pod
	// Owners maps a ReplicaSet's uid to its controller, to find the workload of a pod.
	Owners map[types.UID]metav1.OwnerReference
	// Policies are the namespace's NetworkPolicies, and PoliciesElsewhere those of other namespaces that the caller
	// may read.
	Policies          []*networkingv1.NetworkPolicy
	PoliciesElsewhere []*networkingv1.NetworkPolicy
	// Unreadable names the kinds of policy that are in force here and that this program can't read.
	Unreadable []string
	// NamespaceLabels are the labels of the namespace.
	NamespaceLabels map[string]string
	// ControlNamespace is where the webhook runs; empty if the caller may not read that.
	ControlNamespace string
	// RolledOut makes every rollout count as complete, and all pods of the targets as pods of their templates: for
	// dry runs.
	RolledOut bool
}

// A Step is the next thing to do: make the writes, in any order; or else wait until all waits are over, and plan
// again. If Done, nothing is left to do.
type Step struct {
	// Title says in a few words what the step does.
	Title  string
	Writes []Write
	Waits  []Wait
	// Last means that only waiting is left.
	Last bool
	Done bool
}

// A Write changes one object. Exactly one of Patch, Create and Delete is set.
type Write struct {
	Resource  schema.GroupVersionResource
	Namespace string
	Name      string
	// Object is the object's name as kubectl prints it.
	Object string
	// Change is what changes, as the end of a sentence about the object.
	Change string
	// Before is the object as it was read; nil for a new one.
	Before *unstructured.Unstructured
	// Patch is an RFC 6902 patch that tests everything it relies on. After is the object with the patch applied.
	Patch []jsonpatch.Operation
	After *unstructured.Unstructured
	// Create is a new object.
	Create *unstructured.Unstructured
	// Delete is the uid of the object to delete.
	Delete types.UID
	// Rolls is the workload that this write rolls out, if any.
	Rolls *plan.Workload
	// Forgets means that the write removes a record which an earlier write released. Admission would not accept both
	// in one write.
	Forgets bool
}

// A Wait is a condition for the next step.
type Wait struct {
	Workload *plan.Workload // nil: pods of no workload that was read
	Message  string
	Failed   bool // it waits in vain
}

// Route returns the next step towards routers in front of all targets, or a *Problem. A step without work is skipped.
// The steps are: name the ports that Services refer to by number (a rollout); switch the Services to the names; admit
// the router in NetworkPolicies; request routers (a rollout). After every write, all Services have the endpoints that
// they had, and every target is unchanged or serves.
func Route(v *View) (*Step, error) {
	a, err := analyse(v)
	if err != nil {
		return nil, err
	}
	var step Step
	for _, t := range a.targets {
		if len(t.add) > 0 {
			step.Writes = append(step.Writes, t.writeNames())
		}
	}
	if len(step.Writes) > 0 {
		step.Title = "naming ports"
		return &step, nil
	}

	var switches []Write
	for _, s := range a.services {
		if w, ok := s.writeSwitch(); ok {
			switches = append(switches, w)
			step.Waits = append(step.Waits, a.unnamedPods(s)...)
		}
	}
	if len(switches) > 0 {
		// Wait for all targets, including those whose Services need no switch: there is one rollout at a time.
		step.Waits = append(a.rollouts(), step.Waits...)
		if len(step.Waits) > 0 {
			step.Title = "waiting for pods whose ports have names"
			return &step, nil
		}
		return &Step{Title: "switching Services from port numbers to names", Writes: switches}, nil
	}

	writes, err := a.writePolicies()
	if err != nil {
		return nil, err
	}
	if len(writes) > 0 {
		return &Step{Title: "admitting the router in NetworkPolicies", Writes: writes}, nil
	}

	for _, t := range a.targets {
		if w, ok := t.writeMarks(); ok {
			step.Writes = append(step.Writes, w)
		}
	}
	if len(step.Writes) > 0 {
		step.Title = "adding routers"
		return &step, nil
	}
	step.Waits = append(a.rollouts(), a.unmarkedPods()...)
	if len(step.Waits) > 0 {
		step.Title, step.Last = "waiting for pods with routers", true
		return &step, nil
	}
	return &Step{Done: true}, nil
}

// steps returns all the steps that next (Route or Unroute) would take from v on if every rollout succeeded.
func steps(v *View, next func(*View) (*Step, error)) ([]*Step, *View, error) {
	v = v.clone()
	v.RolledOut = true
	var steps []*Step
	// Every step makes progress. The bound turns a bug in this package into an error.
	for range 20 {
		step, err := next(v)
		if err != nil {
			return nil, nil, err
		}
		if step.Done {
			return steps, v, nil
		}
		if len(step.Writes) == 0 {
			return nil, nil, fmt.Errorf("planning is stuck at step %q", step.Title)
		}
		for i := range step.Writes {
			if err := v.apply(&step.Writes[i]); err != nil {
				return nil, nil, err
			}
		}
		steps = append(steps, step)
	}
	return nil, nil, fmt.Errorf("planning does not terminate")
}

// MergeSteps returns one write per object, which combines all writes of the steps to it. If a write Forgets, its
// patch is not merged, and the released record stays.
func MergeSteps(steps []*Step) []Write {
	var merged []Write
	for _, step := range steps {
		for _, w := range step.Writes {
			i := slices.IndexFunc(merged, func(m Write) bool { return m.Resource == w.Resource && m.Name == w.Name })
			if i < 0 {
				merged = append(merged, w)
				continue
			}
			m := &merged[i]
			m.After, m.Forgets = w.After, w.Forgets
			if !w.Forgets {
				m.Patch = append(slices.Clone(m.Patch), w.Patch...)
			}
			m.Change += "; " + w.Change
			if w.Rolls != nil {
				m.Rolls = w.Rolls
			}
		}
	}
	return merged
}

// RouterGaps returns the ready pods of the targets that request a router and have none, each with the reason that
// admission gave, if any.
func RouterGaps(v *View) []Wait {
	var gaps []Wait
	for _, t := range v.Targets {
		for _, pod := range v.podsOf(t) {
			if pod.Labels[sandbox.LabelRole] != sandbox.RoleBaseline || !podReady(pod) || router(pod) != nil {
				continue
			}
			gaps = append(gaps, Wait{Workload: t, Message: "pod/" + pod.Name + " has no router: " + declined(pod.Annotations)})
		}
	}
	return gaps
}

// declined returns why admission did not change a pod.
func declined(annotations map[string]string) string {
	if reason, ok := strings.CutPrefix(annotations[sandbox.AnnotationInjected], "declined: "); ok {
		return reason
	}
	return "admission did not answer when it was created"
}

func (v *View) clone() *View {
	c := *v
	c.Targets = slices.Clone(v.Targets)
	c.Services = slices.Clone(v.Services)
	c.Policies = slices.Clone(v.Policies)
	return &c
}

// apply updates v to the state after w.
func (v *View) apply(w *Write) error {
	switch w.Resource {
	case servicesResource():
		i := slices.IndexFunc(v.Services, func(s *corev1.Service) bool { return s.Name == w.Name })
		s := new(corev1.Service)
		if err := decode(w.After, s); err != nil {
			return err
		}
		v.Services[i] = s
	case policiesResource():
		i := slices.IndexFunc(v.Policies, func(p *networkingv1.NetworkPolicy) bool { return p.Name == w.Name })
		if w.Delete != "" {
			v.Policies = slices.Delete(v.Policies, i, i+1)
			return nil
		}
		p := new(networkingv1.NetworkPolicy)
		obj := w.After
		if w.Create != nil {
			obj = w.Create
		}
		if err := decode(obj, p); err != nil {
			return err
		}
		if i < 0 {
			v.Policies = append(v.Policies, p)
		} else {
			v.Policies[i] = p
		}
	default:
		i := slices.IndexFunc(v.Targets, func(t *plan.Workload) bool { return t.Name() == w.Name && t.Resource == w.Resource.GroupResource() })
		v.Targets[i] = &plan.Workload{Object: w.After, Resource: v.Targets[i].Resource}
	}
	return nil
}

// podsOf returns the pods of w that are or will be endpoints: neither finished nor being deleted.
func (v *View) podsOf(w *plan.Workload) []*corev1.Pod {
	var pods []*corev1.Pod
	for _, pod := range v.Pods {
		if plan.Live(pod) && v.owner(pod).UID == w.Object.GetUID() {
			pods = append(pods, pod)
		}
	}
	return pods
}

// owner returns the reference to a pod's workload, which may be behind its ReplicaSet; the zero value for a pod
// without one.
func (v *View) owner(pod *corev1.Pod) metav1.OwnerReference {
	ref := metav1.GetControllerOf(pod)
	if ref == nil {
		return metav1.OwnerReference{}
	}
	if above, ok := v.Owners[ref.UID]; ok {
		return above
	}
	return *ref
}

// workload returns the target or other workload with that uid; nil if there is none.
func (v *View) workload(uid types.UID) *plan.Workload {
	for _, list := range [][]*plan.Workload{v.Targets, v.Others} {
		for _, w := range list {
			if w.Object.GetUID() == uid {
				return w
			}
		}
	}
	return nil
}

// rollouts returns a wait for each target that has pods which are unavailable or not of its current template.
func (a *analysis) rollouts() []Wait {
	if a.view.RolledOut {
		return nil
	}
	var waits []Wait
	for _, t := range a.targets {
		message, done, err := plan.RolledOut(t.Workload)
		switch {
		case err != nil:
			waits = append(waits, Wait{Workload: t.Workload, Message: err.Error(), Failed: true})
		case !done:
			if why := a.view.stuck(t.Workload); why != "" {
				message += "; " + why
			}
			waits = append(waits, Wait{Workload: t.Workload, Message: message})
		}
	}
	return waits
}

// unmarkedPods returns a wait for each target that has a pod of an earlier template. A workload whose status
// plan.RolledOut understands has none by then; for other kinds, only the pods show it.
func (a *analysis) unmarkedPods() []Wait {
	if a.view.RolledOut {
		return nil
	}
	var waits []Wait
	for _, t := range a.targets {
		for _, pod := range a.view.podsOf(t.Workload) {
			if pod.Labels[sandbox.LabelRole] != sandbox.RoleBaseline || pod.Annotations[sandbox.AnnotationPorts] != sandbox.FormatPorts(t.ports) {
				waits = append(waits, Wait{Workload: t.Workload, Message: "pod/" + pod.Name + " still has the old pod template"})
				break
			}
		}
	}
	return waits
}

// unnamedPods returns a wait for each workload with a pod that the Service would lose if it switched to names now.
func (a *analysis) unnamedPods(s *service) []Wait {
	var waits []Wait
	seen := map[types.UID]bool{}
	for _, pod := range a.view.Pods {
		owner := a.view.owner(pod)
		if !plan.Live(pod) || !plan.Selects(s.Service, pod.Labels) || seen[owner.UID] {
			continue
		}
		w := a.view.workload(owner.UID)
		if a.view.RolledOut && slices.Contains(a.view.Targets, w) {
			continue
		}
		view := appView(pod)
		for _, sw := range s.switches {
			if n, ok := plan.FindPort(view, sw.name); !ok || n != sw.number {
				seen[owner.UID] = owner.UID != ""
				waits = append(waits, Wait{Workload: w, Message: fmt.Sprintf("pod/%s has no name %s for port %d yet", pod.Name, sw.name, sw.number)})
				break
			}
		}
	}
	return waits
}

// stuck returns what keeps a pod of the workload from becoming ready, or from being created; empty if nothing does.
func (v *View) stuck(w *plan.Workload) string {
	conditions, _, _ := unstructured.NestedSlice(w.Object.Object, "status", "conditions")
	for _, c := range conditions {
		c, _ := c.(map[string]any)
		if message, _ := c["message"].(string); c["type"] == string(appsv1.DeploymentReplicaFailure) && c["status"] == "True" {
			return plan.FirstLine(message)
		}
	}
	for _, pod := range v.podsOf(w) {
		if podReady(pod) {
			continue
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
				return "pod/" + pod.Name + ": " + c.Message
			}
		}
		for _, s := range append(slices.Clone(pod.Status.InitContainerStatuses), pod.Status.ContainerStatuses...) {
			if w := s.State.Waiting; w != nil && w.Reason != "ContainerCreating" && w.Reason != "PodInitializing" {
				return strings.TrimSuffix(fmt.Sprintf("container %s of pod/%s: %s: %s", s.Name, pod.Name, w.Reason, plan.FirstLine(w.Message)), ": ")
			}
		}
	}
	return ""
}
