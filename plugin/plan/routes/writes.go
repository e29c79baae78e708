package routes

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	jsonpatch "gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func servicesResource() schema.GroupVersionResource {
	return corev1.SchemeGroupVersion.WithResource("services")
}

func policiesResource() schema.GroupVersionResource {
	return networkingv1.SchemeGroupVersion.WithResource("networkpolicies")
}

// workloadWrite returns the Write of the patch p to the workload.
func workloadWrite(w *plan.Workload, p *patcher, change string) Write {
	rolls := w
	if !slices.ContainsFunc(p.ops, func(op jsonpatch.Operation) bool {
		return op.Operation != "test" && strings.HasPrefix(op.Path, "/spec/")
	}) {
		rolls = nil
	}
	return Write{
		Before:   w.Object,
		Resource: w.GroupVersionResource(), Namespace: w.Namespace(), Name: w.Name(), Object: w.String(),
		Change: change, Patch: p.ops, After: p.object, Rolls: rolls,
	}
}

// writeNames gives the target's ports the missing names, and records them in the same write.
func (t *target) writeNames() Write {
	p := patch(t.Object)
	var says []string
	for _, added := range t.add {
		container := t.containerPath(p, added.Container)
		ports := append(slices.Clone(container), "ports")
		p.test(append(slices.Clone(container), "name")...)
		if added.Made == sandbox.MadeName {
			i := t.portIndex(p, container, added.Port, "")
			p.test(append(slices.Clone(ports), strconv.Itoa(i), "containerPort")...)
			p.put(added.Name, append(slices.Clone(ports), strconv.Itoa(i), "name")...)
		} else {
			p.push(map[string]any{"name": added.Name, "containerPort": int64(added.Port), "protocol": string(corev1.ProtocolTCP)}, ports...)
		}
		says = append(says, fmt.Sprintf("port %d of container %s gets the name %s", added.Port, added.Container, added.Name))
	}
	record := t.record
	record.Names, record.Leaving = append(t.presentNames(p), t.add...), false
	t.putRecord(p, record)
	return workloadWrite(t.Workload, p, plan.JoinWords(says))
}

// putRecord records what was changed, and the path of the pod template, so that `unroute` and `fork` need no flag.
func (t *target) putRecord(p *patcher, record sandbox.RouteRecord) {
	if path := t.TemplatePath(); path != "" {
		if _, ok := t.Object.GetAnnotations()[sandbox.AnnotationTemplate]; !ok {
			record.Template = true
		}
		p.put(path, "metadata", "annotations", sandbox.AnnotationTemplate)
	}
	if record.String() != t.record.String() {
		record.Since = t.Object.GetGeneration()
	}
	p.put(record.String(), "metadata", "annotations", sandbox.AnnotationRouted)
}

// presentNames returns the recorded names that the template still has: it loses them if somebody restores an earlier
// template.
func (t *target) presentNames(p *patcher) []sandbox.AddedName {
	var names []sandbox.AddedName
	for _, n := range t.record.Names {
		if slices.Contains(t.add, n) || slices.ContainsFunc(t.add, func(m sandbox.AddedName) bool { return m.Name == n.Name }) {
			continue
		}
		if container := t.containerPath(p, n.Container); container != nil && t.portIndex(p, container, n.Port, n.Name) >= 0 {
			names = append(names, n)
		}
	}
	return names
}

// writeMarks makes the target's pods request routers; false if they do already.
func (t *target) writeMarks() (Write, bool) {
	p := patch(t.Object)
	p.put(sandbox.RoleBaseline, t.TemplateFields("metadata", "labels", sandbox.LabelRole)...)
	p.put(t.Label(), t.TemplateFields("metadata", "labels", sandbox.LabelWorkload)...)
	p.put(sandbox.FormatPorts(t.ports), t.TemplateFields("metadata", "annotations", sandbox.AnnotationPorts)...)
	rolls := p.changed()
	record := t.record
	for _, made := range p.made {
		if !slices.Contains(record.Made, made) {
			record.Made = append(slices.Clone(record.Made), made)
		}
	}
	record.Names, record.Ports, record.Leaving = t.presentNames(p), sandbox.FormatPorts(t.ports), false
	t.putRecord(p, record)
	if !p.changed() {
		return Write{}, false
	}
	change := "what was changed is recorded"
	if rolls {
		change = "its pods get a router for " + describePorts(t.ports)
	}
	return workloadWrite(t.Workload, p, change), true
}

func describePorts(ports []sandbox.Port) string {
	words := make([]string, len(ports))
	for i, p := range ports {
		words[i] = fmt.Sprintf("%s (%d)", p.Name, p.Number)
	}
	if len(words) == 1 {
		return "port " + words[0]
	}
	return "ports " + plan.JoinWords(words)
}

// writeUnmark removes from the template everything that writeNames and writeMarks added; false if nothing is left of
// it. It also notes that in the record, because admission restores what the record keeps. The record itself stays
// until nothing else is left.
func (t *target) writeUnmark() (Write, bool) {
	p := patch(t.Object)
	labels, annotations := t.TemplateFields("metadata", "labels"), t.TemplateFields("metadata", "annotations")
	if role, _ := p.get(append(slices.Clone(labels), sandbox.LabelRole)...); role == sandbox.RoleBaseline {
		p.drop(append(slices.Clone(labels), sandbox.LabelRole)...)
		p.drop(append(slices.Clone(labels), sandbox.LabelWorkload)...)
	}
	p.drop(append(slices.Clone(annotations), sandbox.AnnotationPorts)...)
	for _, made := range slices.Backward(t.record.Made) {
		p.dropEmpty(unpointer(made)...)
	}
	for _, added := range slices.Backward(t.record.Names) {
		t.dropName(p, added)
	}
	change := "its pods lose their routers, and its ports the names they were given"
	if !p.changed() {
		change = "nothing of it is kept any more"
	}
	if _, recorded := t.Object.GetAnnotations()[sandbox.AnnotationRouted]; recorded && !t.record.Leaving {
		record := t.record
		record.Leaving, record.Since = true, t.Object.GetGeneration()
		p.put(record.String(), "metadata", "annotations", sandbox.AnnotationRouted)
	}
	if !p.changed() {
		return Write{}, false
	}
	return workloadWrite(t.Workload, p, change), true
}

func (t *target) dropName(p *patcher, added sandbox.AddedName) {
	container := t.containerPath(p, added.Container)
	if container == nil {
		return
	}
	i := t.portIndex(p, container, added.Port, added.Name)
	if i < 0 {
		return
	}
	p.test(append(slices.Clone(container), "name")...)
	ports := append(slices.Clone(container), "ports")
	port := append(slices.Clone(ports), strconv.Itoa(i))
	entry, _ := p.get(port...)
	if fields, _ := entry.(map[string]any); added.Made == sandbox.MadeName || len(fields) > 3 {
		p.test(append(slices.Clone(port), "containerPort")...)
		p.drop(append(slices.Clone(port), "name")...)
		return // an entry with more to it than `route` made has become somebody else's
	}
	p.drop(port...)
	if added.Made == sandbox.MadePorts {
		p.dropEmpty(ports...)
	}
}

// writeForget removes the record.
func (t *target) writeForget() (Write, bool) {
	p := patch(t.Object)
	p.drop("metadata", "annotations", sandbox.AnnotationRouted)
	if t.record.Template {
		p.drop("metadata", "annotations", sandbox.AnnotationTemplate)
	}
	p.dropEmpty("metadata", "annotations") // as the API server does
	write := workloadWrite(t.Workload, p, "nothing of it is left to undo")
	write.Forgets = true
	return write, p.changed()
}

// containerPath returns the path of a serving container in the workload; nil if none has that name.
func (t *target) containerPath(p *patcher, name string) []string {
	for _, list := range []string{"containers", "initContainers"} {
		containers, _ := p.get(t.TemplateFields("spec", list)...)
		items, _ := containers.([]any)
		for i, c := range items {
			if c, ok := c.(map[string]any); ok && c["name"] == name {
				return t.TemplateFields("spec", list, strconv.Itoa(i))
			}
		}
	}
	return nil
}

// portIndex returns the index of the container's TCP port with that number and name (empty for no name); -1 if there
// is none.
func (t *target) portIndex(p *patcher, container []string, number uint16, name string) int {
	ports, _ := p.get(append(slices.Clone(container), "ports")...)
	items, _ := ports.([]any)
	return slices.IndexFunc(items, func(item any) bool {
		port, _ := item.(map[string]any)
		portName, _ := port["name"].(string)
		portProtocol, _ := port["protocol"].(string)
		return plan.AsInt(port["containerPort"]) == int64(number) && portName == name && plan.Protocol(corev1.Protocol(portProtocol)) == corev1.ProtocolTCP
	})
}

// writeSwitch switches the Service from numbers to names; false if it uses them already.
func (s *service) writeSwitch() (Write, bool) {
	if len(s.switches) == 0 {
		return Write{}, false
	}
	p := patch(plan.ToUnstructured(s.Service, "Service"))
	marks := sandbox.TargetPorts{}
	var says []string
	for _, sw := range s.switches {
		port := &s.Spec.Ports[sw.index]
		marks[sandbox.PortKey(string(port.Protocol), port.Port)] = sandbox.TargetPort{Number: sw.number, Name: sw.name}
		if port.TargetPort == intstr.FromString(sw.name) {
			continue
		}
		index := strconv.Itoa(sw.index)
		p.test("spec", "ports", index, "port")
		p.test("spec", "ports", index, "protocol")
		p.put(sw.name, "spec", "ports", index, "targetPort")
		says = append(says, fmt.Sprintf("port %d goes to the name %s instead of the number %d", port.Port, sw.name, sw.number))
	}
	p.put(sandbox.RoleService, "metadata", "labels", sandbox.LabelRole)
	p.put(sandbox.FormatTargetPorts(marks), "metadata", "annotations", sandbox.AnnotationTargetPorts)
	p.put(sandbox.FormatWorkloads(s.routed()), "metadata", "annotations", sandbox.AnnotationWorkloads)
	p.drop("metadata", "annotations", sandbox.AnnotationRestored)
	if len(says) == 0 {
		says = append(says, "what was changed is recorded")
	}
	return serviceWrite(s.Service, p, plan.JoinWords(says)), p.changed()
}

// routed returns the workloads that the Service is switched for: those that are routed now, and those recorded
// earlier.
func (s *service) routed() []string {
	names := sandbox.ParseWorkloads(s.Annotations[sandbox.AnnotationWorkloads])
	for _, m := range s.members {
		if m.workload != nil && (m.target != nil || m.workload.Routed()) {
			names = append(names, sandbox.WorkloadName(m.workload.Kind(), m.workload.Name()))
		}
	}
	return names
}

// writeRestore undoes the port changes of writeSwitch and empties the record, so that admission and the guard keep
// nothing of it. A further write removes the marks. It returns false if nothing is left to undo. A port that no
// longer has the name it was given is not changed.
func (s *service) writeRestore() (Write, bool) {
	p := patch(plan.ToUnstructured(s.Service, "Service"))
	if len(s.marks) == 0 {
		p.drop("metadata", "annotations", sandbox.AnnotationTargetPorts)
		if s.Labels[sandbox.LabelRole] == sandbox.RoleService {
			p.drop("metadata", "labels", sandbox.LabelRole)
			p.dropEmpty("metadata", "labels")
		}
		p.drop("metadata", "annotations", sandbox.AnnotationRestored)
		p.drop("metadata", "annotations", sandbox.AnnotationWorkloads)
		p.dropEmpty("metadata", "annotations") // as the API server does
		write := serviceWrite(s.Service, p, "its marks are removed")
		write.Forgets = true
		return write, p.changed()
	}
	var says []string
	for i := range s.Spec.Ports {
		port := &s.Spec.Ports[i]
		mark, ok := s.marks[sandbox.PortKey(string(port.Protocol), port.Port)]
		if !ok || port.TargetPort != intstr.FromString(mark.Name) {
			continue
		}
		index := strconv.Itoa(i)
		p.test("spec", "ports", index, "port")
		p.test("spec", "ports", index, "protocol")
		p.put(int64(mark.Number), "spec", "ports", index, "targetPort")
		says = append(says, fmt.Sprintf("port %d goes to the number %d again", port.Port, mark.Number))
	}
	p.put(sandbox.FormatTargetPorts(sandbox.TargetPorts{}), "metadata", "annotations", sandbox.AnnotationTargetPorts)
	if len(says) == 0 {
		says = append(says, "its ports are not kept any more")
	}
	return serviceWrite(s.Service, p, plan.JoinWords(says)), true
}

// writeLeave removes workloads from the list of those that the Service is switched for; false if none of them is on
// it.
func (s *service) writeLeave(targets []*target) (Write, bool) {
	names := sandbox.ParseWorkloads(s.Annotations[sandbox.AnnotationWorkloads])
	stay := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return slices.ContainsFunc(targets, func(t *target) bool { return sandbox.WorkloadName(t.Kind(), t.Name()) == name })
	})
	if len(stay) == len(names) {
		return Write{}, false
	}
	p := patch(plan.ToUnstructured(s.Service, "Service"))
	p.put(sandbox.FormatWorkloads(stay), "metadata", "annotations", sandbox.AnnotationWorkloads)
	return serviceWrite(s.Service, p, "it stays on names for "+plan.JoinWords(stay)), true
}

func serviceWrite(s *corev1.Service, p *patcher, change string) Write {
	return Write{
		Before:   plan.ToUnstructured(s, "Service"),
		Resource: servicesResource(), Namespace: s.Namespace, Name: s.Name, Object: "service/" + s.Name,
		Change: change, Patch: p.ops, After: p.object,
	}
}

// IsWorkload reports whether the write changes a target, and not another object.
func (w *Write) IsWorkload() bool {
	return w.Resource != servicesResource() && w.Resource != policiesResource()
}
