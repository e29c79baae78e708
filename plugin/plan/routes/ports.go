package routes

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// analysis holds what follows from a view: which ports of which Services reach the targets, by what names, and what
// is missing.
type analysis struct {
	view     *View
	targets  []*target
	members  []*member
	services []*service
	notices  []string
}

// A target is a target with the results of its analysis.
type target struct {
	*plan.Workload
	*member
	record sandbox.RouteRecord
	add    []sandbox.AddedName // names that its ports still lack
	ports  []sandbox.Port      // what its routers capture, once the names are there
}

// A member is anything that has pods behind a Service: a workload's template, or a pod whose workload was not
// read.
type member struct {
	workload *plan.Workload // nil for a pod of something unknown
	pod      *corev1.Pod
	labels   labels.Set
	arg      string // as one types it
	movable  bool   // `route` can change it if it is named
	target   *target
}

// A service is a Service with a port that routers capture.
type service struct {
	*corev1.Service
	marks    sandbox.TargetPorts
	members  []*member
	switches []portSwitch // ports known by number, in the Service's order
}

// A portSwitch is one port of a Service to switch from a number to a name.
type portSwitch struct {
	index  int
	number uint16
	name   string
}

func analyse(v *View) (*analysis, error) {
	a := &analysis{view: v}
	for _, w := range v.Targets {
		t, err := newTarget(w)
		if err != nil {
			return nil, err
		}
		a.targets = append(a.targets, t)
		a.members = append(a.members, t.member)
	}
	for _, w := range v.Others {
		template, err := w.PodTemplate()
		if err != nil {
			return nil, err
		}
		a.members = append(a.members, &member{workload: w, pod: templatePod(template), labels: template.Labels, arg: w.Arg(), movable: true})
	}
	for _, pod := range v.Pods {
		owner := v.owner(pod)
		if !plan.Live(pod) || v.workload(owner.UID) != nil {
			continue
		}
		m := &member{pod: appView(pod), labels: pod.Labels, arg: "pod/" + pod.Name}
		if owner.Kind != "" {
			m.arg, m.movable = ownerArg(owner), owner.Kind != "Job"
		}
		a.members = append(a.members, m)
	}
	for _, t := range a.targets {
		if p := checkKind(t.Workload); p != nil {
			return nil, p
		}
	}
	if err := a.findServices(); err != nil {
		return nil, err
	}
	if err := a.nameNumbers(); err != nil {
		return nil, err
	}
	for _, t := range a.targets {
		if err := a.findPorts(t); err != nil {
			return nil, err
		}
		if !v.RolledOut {
			if p := t.checkRollout(); p != nil {
				return nil, p
			}
		}
	}
	return a, nil
}

func newTarget(w *plan.Workload) (*target, error) {
	template, err := w.PodTemplate()
	if err != nil {
		return nil, err
	}
	record, err := sandbox.ParseRouteRecord(w.Object.GetAnnotations()[sandbox.AnnotationRouted])
	if err != nil {
		return nil, &plan.Problem{What: w.String() + ": " + err.Error(), Hint: "edit it", Fix: plan.Kubectl("edit", w.Arg())}
	}
	m := &member{workload: w, pod: templatePod(template), labels: template.Labels, arg: w.Arg(), movable: true}
	m.target = &target{Workload: w, member: m, record: record}
	return m.target, nil
}

// ownerArg returns the command-line argument for a workload that is known only by a reference.
func ownerArg(ref metav1.OwnerReference) string {
	group, _, found := strings.Cut(ref.APIVersion, "/")
	if !found || group == "apps" {
		return strings.ToLower(ref.Kind) + "/" + ref.Name
	}
	return strings.ToLower(ref.Kind) + "." + group + "/" + ref.Name
}

// findServices collects the Services whose TCP connections a router can capture: those that have a cluster address
// and select pods of a target.
func (a *analysis) findServices() error {
	services := slices.SortedFunc(slices.Values(a.view.Services), func(s, t *corev1.Service) int { return cmp.Compare(s.Name, t.Name) })
	for _, svc := range services {
		s := &service{Service: svc}
		ours := false
		for _, m := range a.members {
			if plan.Selects(svc, m.labels) {
				s.members = append(s.members, m)
				ours = ours || m.target != nil
			}
		}
		if !ours {
			continue
		}
		if svc.Spec.ClusterIP == corev1.ClusterIPNone {
			a.notices = append(a.notices, fmt.Sprintf("service/%s is headless: clients that dial its pods' own addresses get the app itself, never a fork", svc.Name))
			continue
		}
		if text := svc.Annotations[sandbox.AnnotationTargetPorts]; text != "" {
			marks, err := sandbox.ParseTargetPorts(text)
			if err != nil {
				return &plan.Problem{What: fmt.Sprintf("service/%s: %s", svc.Name, err), Hint: "edit it", Fix: plan.Kubectl("edit", "service/"+svc.Name)}
			}
			s.marks = marks
		}
		for i := range svc.Spec.Ports {
			if number, ok := numberOf(&svc.Spec.Ports[i], s.marks); ok {
				s.switches = append(s.switches, portSwitch{index: i, number: number})
			}
		}
		a.services = append(a.services, s)
	}
	return nil
}

// numberOf returns the number that a TCP port of a Service sends to, or sent to before `route` switched it to a name;
// false for a port that its author named.
func numberOf(p *corev1.ServicePort, marks sandbox.TargetPorts) (uint16, bool) {
	if plan.Protocol(p.Protocol) != corev1.ProtocolTCP {
		return 0, false
	}
	if p.TargetPort.Type == intstr.String {
		mark, ok := marks[sandbox.PortKey(string(p.Protocol), p.Port)]
		return mark.Number, ok && mark.Name == p.TargetPort.StrVal
	}
	return plan.PortNumber(cmp.Or(p.TargetPort.IntVal, p.Port)), true
}

// nameNumbers finds one name for each number that a Service sends to. The name is the same in everything that the
// Service has pods of, and so in all Services that share such a workload. An existing name of a port is kept, because
// others may refer to it.
func (a *analysis) nameNumbers() error {
	for _, s := range a.services {
		for i := range s.switches {
			if s.switches[i].name != "" {
				continue
			}
			number := s.switches[i].number
			services, members := a.sharing(s, number)
			name, err := a.nameFor(s, number, members)
			if err != nil {
				return err
			}
			for _, s := range services {
				for i := range s.switches {
					if s.switches[i].number == number {
						s.switches[i].name = name
					}
				}
			}
		}
	}
	return nil
}

// sharing returns the Services that send to number and share a member with s, directly or through other such
// Services; and all their members.
func (a *analysis) sharing(s *service, number uint16) ([]*service, []*member) {
	services := []*service{s}
	var members []*member
	for i := 0; i < len(services); i++ {
		for _, m := range services[i].members {
			if slices.Contains(members, m) {
				continue
			}
			members = append(members, m)
			for _, other := range a.services {
				sends := slices.ContainsFunc(other.switches, func(sw portSwitch) bool { return sw.number == number })
				if sends && slices.Contains(other.members, m) && !slices.Contains(services, other) {
					services = append(services, other)
				}
			}
		}
	}
	return services, members
}

// nameFor chooses the name by which Services reach number in all members, and records which targets lack it.
func (a *analysis) nameFor(s *service, number uint16, members []*member) (string, error) {
	// Targets come first: their order is the caller's, so the choice does not depend on other objects.
	slices.SortStableFunc(members, func(m, n *member) int { return cmp.Compare(rank(m), rank(n)) })
	var candidates []string
	var named *member
	var lacking []*member
	for _, m := range members {
		names := namesOf(m.pod, number)
		usable := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return len(containersNaming(m.pod, name)) > 1 })
		switch {
		case len(names) == 0:
			lacking = append(lacking, m)
		case len(usable) == 0:
			return "", sharedName(m, names[0])
		case named == nil:
			named, candidates = m, usable
		default:
			common := slices.DeleteFunc(slices.Clone(candidates), func(name string) bool { return !slices.Contains(usable, name) })
			if len(common) == 0 {
				return "", &plan.Problem{
					What: fmt.Sprintf("service/%s sends to port %d, which %s names %s and %s names %s: routing needs one name for both", s.Name, number, named.arg, candidates[0], m.arg, usable[0]),
					Hint: "give the port the same name in both",
					Fix:  plan.Kubectl("edit", m.arg),
				}
			}
			candidates = common
		}
	}
	if err := a.unchangeable(s, number, lacking); err != nil {
		return "", err
	}
	name := ""
	if len(candidates) > 0 {
		name = candidates[0]
		for _, m := range lacking {
			but := ""
			if nameTaken(m.pod, name) {
				but = "another port has that name"
			} else if other := a.knowing(m, name); other != nil {
				but = fmt.Sprintf("the name would make it an endpoint of service/%s, which it is not now", other.Name)
			}
			if but != "" {
				return "", &plan.Problem{
					What: fmt.Sprintf("service/%s sends to port %d, which %s names %s, but in %s %s: routing needs one name for both", s.Name, number, named.arg, name, m.arg, but),
					Hint: "name the ports alike in both",
					Fix:  plan.Kubectl("edit", m.arg),
				}
			}
		}
	} else {
		name = a.newName(number, members)
	}
	for _, m := range lacking {
		m.target.addName(number, name, &a.notices)
	}
	return name, nil
}

func rank(m *member) int {
	switch {
	case m.target != nil:
		return 0
	case m.workload != nil:
		return 1
	}
	return 2
}

// unchangeable returns a Problem if some members that lack a name are not targets.
func (a *analysis) unchangeable(s *service, number uint16, lacking []*member) error {
	var args []string
	for _, m := range lacking {
		if m.target != nil || slices.Contains(args, m.arg) {
			continue
		}
		if !m.movable {
			return &plan.Problem{
				What: fmt.Sprintf("service/%s also selects %s, which has no name for port %d and can't be given one", s.Name, m.arg, number),
				Hint: "take it out of the way",
				Fix:  plan.Kubectl("delete", m.arg),
			}
		}
		args = append(args, m.arg)
	}
	if len(args) == 0 {
		return nil
	}
	command := plan.Kubectl("sandbox", "route")
	for _, t := range a.targets {
		command = append(command, t.Arg())
	}
	return &plan.Problem{
		What: fmt.Sprintf("service/%s also selects pods of %s, where port %d has no name", s.Name, plan.JoinWords(args), number),
		Hint: "route all of them at once",
		Fix:  append(command, args...),
	}
}

// knowing returns a Service of m that its author made send to the name; nil if there is none.
func (a *analysis) knowing(m *member, name string) *corev1.Service {
	for _, s := range a.view.Services {
		if plan.Selects(s, m.labels) && slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool {
			_, ours := numberOf(&p, marksOf(s))
			return p.TargetPort.StrVal == name && !ours
		}) {
			return s
		}
	}
	return nil
}

// newName returns a name for number that is unused in members, and that none of their Services refers to.
func (a *analysis) newName(number uint16, members []*member) string {
	taken := func(name string) bool {
		return slices.ContainsFunc(members, func(m *member) bool { return nameTaken(m.pod, name) || a.knowing(m, name) != nil })
	}
	name := "sbx-" + strconv.Itoa(int(number))
	for n := 2; taken(name); n++ {
		name = "sbx-" + strconv.Itoa(int(number)) + "-" + strconv.Itoa(n)
	}
	return name
}

func marksOf(s *corev1.Service) sandbox.TargetPorts {
	marks, err := sandbox.ParseTargetPorts(s.Annotations[sandbox.AnnotationTargetPorts])
	if err != nil {
		return nil
	}
	return marks
}

// addName makes the target name a port number: where the port is declared, or else as a port of the first container.
func (t *target) addName(number uint16, name string, notices *[]string) {
	added := sandbox.AddedName{Port: number, Name: name}
	for _, c := range plan.ServingContainers(t.pod) {
		for i := range c.Ports {
			if added.Container == "" && plan.Protocol(c.Ports[i].Protocol) == corev1.ProtocolTCP && c.Ports[i].ContainerPort == int32(number) && c.Ports[i].Name == "" {
				added.Container, added.Made = c.Name, sandbox.MadeName
				c.Ports[i].Name = name
			}
		}
	}
	if added.Container == "" {
		c := &t.pod.Spec.Containers[0]
		added.Container, added.Made = c.Name, sandbox.MadePort
		if len(c.Ports) == 0 {
			added.Made = sandbox.MadePorts
		}
		c.Ports = append(c.Ports, corev1.ContainerPort{Name: name, ContainerPort: int32(number), Protocol: corev1.ProtocolTCP})
		if len(t.pod.Spec.Containers) > 1 {
			*notices = append(*notices, fmt.Sprintf("%s: no container declares port %d; it is declared on container %s (whichever listens, the router reaches it)", t.Workload, number, c.Name))
		}
	}
	t.add = append(t.add, added)
}

// findPorts lists the names that routers of the target capture: those that a Service sends TCP connections to.
func (a *analysis) findPorts(t *target) error {
	for _, s := range a.services {
		if !slices.Contains(s.members, t.member) {
			continue
		}
		names := map[int]string{}
		for _, sw := range s.switches {
			names[sw.index] = sw.name
		}
		for i, p := range s.Spec.Ports {
			name, switched := names[i]
			if !switched {
				if p.TargetPort.Type != intstr.String || plan.Protocol(p.Protocol) != corev1.ProtocolTCP {
					continue
				}
				name = p.TargetPort.StrVal
			}
			number, ok := plan.FindPort(t.pod, name)
			if !ok {
				a.notices = append(a.notices, fmt.Sprintf("service/%s sends port %d to the name %s, which no container of %s has: it is left alone", s.Name, p.Port, name, t.Workload))
				continue
			}
			if len(containersNaming(t.pod, name)) > 1 {
				return sharedName(t.member, name)
			}
			port := sandbox.Port{Name: name, Number: number}
			if !slices.Contains(t.ports, port) {
				t.ports = append(t.ports, port)
			}
		}
	}
	slices.SortFunc(t.ports, func(p, q sandbox.Port) int { return strings.Compare(p.Name, q.Name) })
	if len(t.ports) == 0 {
		return a.nothingToRoute(t)
	}
	return nil
}

func (a *analysis) nothingToRoute(t *target) error {
	var headless []string
	for _, s := range a.view.Services {
		if plan.Selects(s, t.labels) && s.Spec.ClusterIP == corev1.ClusterIPNone {
			headless = append(headless, "service/"+s.Name)
		}
	}
	if len(headless) > 0 {
		return &plan.Problem{
			What: fmt.Sprintf("%s is reached by the headless %s alone: its clients dial the pods' own addresses, where no router can stand in; it needs a Service with an address too", t.Workload, plan.JoinWords(headless)),
			Hint: "Services of this namespace, and what they select",
			Fix:  plan.Kubectl("get", "services", "-o", "wide"),
		}
	}
	p := &plan.Problem{
		What: fmt.Sprintf("no Service sends TCP connections to the pods of %s, so there is nothing to route", t.Workload),
		Hint: "Services of this namespace, and what they select",
		Fix:  plan.Kubectl("get", "services", "-o", "wide"),
	}
	if t.Kind() == "Deployment" && t.exposable() {
		for _, c := range plan.ServingContainers(t.pod) {
			for _, port := range c.Ports {
				if port.Protocol == corev1.ProtocolTCP {
					p.Hint, p.Fix = "put a Service in front of it", plan.Kubectl("expose", t.Arg(), "--port", strconv.Itoa(int(port.ContainerPort)))
					if name := a.view.serviceName(t.Name()); name != t.Name() {
						p.Fix = append(p.Fix, "--name="+name)
					}
					return p
				}
			}
		}
	}
	return p
}

func sharedName(m *member, name string) *plan.Problem {
	return &plan.Problem{
		What: fmt.Sprintf("%s: containers %s all name a port %s, so that no router can take its place", m.arg, plan.JoinWords(containersNaming(m.pod, name)), name),
		Hint: "rename all but one",
		Fix:  plan.Kubectl("edit", m.arg),
	}
}
