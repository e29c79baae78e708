package health

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A way is how one port of a Service leads to a pod.
type way int

const (
	wayElsewhere way = iota // to a port that no router captures
	wayRouter               // to the router
	wayApp                  // to a captured port of the app, bypassing the router
)

// services returns the causes of Services that lead to the baseline's pods.
func (f Facts) services() []Cause {
	if f.Baseline == nil || f.Baseline.Services == nil {
		return nil
	}
	var routed []*corev1.Pod // only pods whose router captures ports: withoutRouter reports pods without a router
	for _, p := range f.Baseline.Pods {
		if serving(p) && HasRouter(p) && p.Annotations[sandbox.AnnotationPorts] != "" {
			routed = append(routed, p)
		}
	}
	if len(routed) == 0 {
		return nil
	}
	var causes, past, elsewhere []Cause
	through, unknown := false, false
	for _, s := range *f.Baseline.Services {
		if len(s.Spec.Selector) == 0 {
			unknown = unknown || s.Spec.Type != corev1.ServiceTypeExternalName // somebody writes its endpoints
			continue
		}
		if !leads(s) {
			continue
		}
		for _, p := range routed {
			if !selects(s, p) {
				continue
			}
			port, w := route(s, p)
			switch {
			case s.Spec.ClusterIP == corev1.ClusterIPNone:
				unknown = true // its clients may dial any port
			case w == wayRouter:
				through = true
			case w == wayApp:
				past = append(past, f.bypass(s, port))
			case port.Port != 0:
				elsewhere = append(elsewhere, f.bypass(s, port))
			}
			break // all pods of a workload are alike in this, except during a rollout
		}
		if c := f.shared(s); !c.OK() {
			causes = append(causes, c)
		}
	}
	for _, c := range append(past, elsewhere...) {
		// A Service that `route` did not switch is meant to reach the app directly, unless it is the only one.
		if c.switched || !through {
			causes = append(causes, c)
		}
	}
	if !through && len(past)+len(elsewhere) == 0 && !unknown {
		causes = append(causes, Cause{Code: ServiceWithoutPods, Fault: FaultApp, Outlook: OutlookMayPass,
			Message: "no Service leads to a routed port of the baseline " + f.workload(),
			Say:     sayServices, Fix: listServices()})
	}
	return causes
}

// leads reports whether a Service with a selector leads to pods.
func leads(s *corev1.Service) bool {
	return s.Spec.Type != corev1.ServiceTypeExternalName && s.DeletionTimestamp == nil
}

func selects(s *corev1.Service, p *corev1.Pod) bool {
	return labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(p.Labels))
}

// route returns how a Service leads to a pod with a router: past it if any port does, otherwise to it if any does. The
// port is the one that does, or the first that no router captures; zero if there is none.
func route(s *corev1.Service, p *corev1.Pod) (corev1.ServicePort, way) {
	captured, err := sandbox.ParsePorts(p.Annotations[sandbox.AnnotationPorts])
	if err != nil {
		return corev1.ServicePort{}, wayElsewhere
	}
	found := wayElsewhere
	var at corev1.ServicePort
	for _, port := range s.Spec.Ports {
		if port.Protocol != "" && port.Protocol != corev1.ProtocolTCP {
			continue
		}
		switch wayOf(port.TargetPort, p, captured) {
		case wayApp:
			return port, wayApp
		case wayRouter:
			found, at = wayRouter, port
		case wayElsewhere:
			if found == wayElsewhere && at.Port == 0 && (port.TargetPort.Type == intstr.Int || named(p, port.TargetPort.StrVal) != 0) {
				at = port
			}
		}
	}
	return at, found
}

func wayOf(target intstr.IntOrString, p *corev1.Pod, captured []sandbox.Port) way {
	if target.Type == intstr.String {
		if slices.ContainsFunc(captured, func(c sandbox.Port) bool { return c.Name == target.StrVal }) {
			return wayRouter // admission moved the name to the router's port
		}
		return byNumber(named(p, target.StrVal), captured)
	}
	return byNumber(target.IntVal, captured)
}

func byNumber(number int32, captured []sandbox.Port) way {
	if number != 0 && slices.ContainsFunc(captured, func(c sandbox.Port) bool { return int32(c.Number) == number }) {
		return wayApp
	}
	return wayElsewhere
}

// named returns the number of a pod's TCP port with that name, 0 if there is none.
func named(p *corev1.Pod, name string) int32 {
	for _, c := range p.Spec.Containers {
		for _, port := range c.Ports {
			if port.Name == name && (port.Protocol == "" || port.Protocol == corev1.ProtocolTCP) {
				return port.ContainerPort
			}
		}
	}
	return 0
}

// bypass returns the cause of a Service that bypasses the routers.
func (f Facts) bypass(s *corev1.Service, port corev1.ServicePort) Cause {
	c := Cause{Code: ServiceBypassesRouters, Fault: FaultProduct, Outlook: OutlookMayPass,
		Say: sayRouteService, Fix: f.routeAgain(),
		switched: s.Labels[sandbox.LabelRole] == sandbox.RoleService || s.Annotations[sandbox.AnnotationTargetPorts] != ""}
	c.Message = fmt.Sprintf("service/%s port %d leads to targetPort %s of the app, past the routers", s.Name, port.Port, port.TargetPort.String())
	if value := s.Annotations[sandbox.AnnotationRestored]; value != "" && c.switched {
		said, err := sandbox.ParseRestored(value)
		if err == nil && said.Reason != "" {
			c.Message += "; the number was restored because " + firstLine(said.Reason)
		}
	}
	return c
}

// shared returns the cause of a Service that also leads to ready pods of other workloads whose routers do not route the
// key.
func (f Facts) shared(s *corev1.Service) Cause {
	if f.Baseline.Others == nil || !slices.ContainsFunc(f.Baseline.Pods, func(p *corev1.Pod) bool { return serving(p) && selects(s, p) }) {
		return Cause{}
	}
	mine, others := 0, 0
	var whose []string
	for _, p := range f.Baseline.Pods {
		if serving(p) && selects(s, p) {
			mine++
		}
	}
	for _, p := range *f.Baseline.Others {
		if !serving(p) || !selects(s, p) || f.Routing != nil && slices.Contains(f.Routing.Shared, p.Name) {
			continue
		}
		others++
		if w := owner(p); !slices.Contains(whose, w) {
			whose = append(whose, w)
		}
	}
	if others == 0 {
		return Cause{}
	}
	return Cause{Code: ServiceShared, Fault: FaultApp, Outlook: OutlookFinal, Partial: true,
		Message: fmt.Sprintf("service/%s also leads to %s: %d of its %d ready pods do not route the key", s.Name, names(whose), others, mine+others),
		Say:     "see which pods it leads to", Fix: kubectl("get", "pods", "--selector="+labels.FormatLabels(s.Spec.Selector))}
}

// owner returns the workload of a pod as on the command line, as far as the pod shows it.
func owner(p *corev1.Pod) string {
	if w := p.Labels[sandbox.LabelWorkload]; w != "" {
		return typed(w)
	}
	o := metav1.GetControllerOf(p)
	if o == nil {
		return "pod/" + p.Name
	}
	if hash := p.Labels["pod-template-hash"]; o.Kind == "ReplicaSet" && hash != "" {
		return "deployment/" + strings.TrimSuffix(o.Name, "-"+hash)
	}
	return strings.ToLower(o.Kind) + "/" + o.Name
}

func parseRevision(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }
