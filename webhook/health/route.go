package health

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// ofRoute returns the causes on the way to a fork whose pods are ready except for the readiness gate.
func (f Facts) ofRoute(pods []*corev1.Pod) []Cause {
	var causes []Cause
	add := func(c Cause) {
		if !c.OK() {
			c.Path = true
			causes = append(causes, c)
		}
	}
	add(f.claim())
	add(f.baselineMissing())
	for _, c := range f.baselineRouters() {
		add(c)
	}
	for _, c := range f.services() {
		add(c)
	}
	if worst(causes).OK() {
		add(f.revisionServed(pods))
		add(f.ports(pods))
		add(f.held(pods))
	}
	if worst(causes).OK() {
		add(f.gate(pods))
	}
	return causes
}

// claim returns why the key is not routed to the fork.
func (f Facts) claim() Cause {
	if f.Routing == nil || f.Routing.Claim.Code == "" {
		return Cause{}
	}
	c := f.Routing.Claim
	return Cause{Code: c.Code, Message: c.Message, Fault: FaultApp, Outlook: OutlookFinal,
		Say: "delete one of the two sandboxes", Fix: kubectl("sandbox", "delete", f.sandbox())}
}

// baselineMissing returns a cause if the workload is gone, lost its marks, or has no ready pod.
func (f Facts) baselineMissing() Cause {
	b := f.Baseline
	if b == nil {
		return Cause{}
	}
	ready := slices.ContainsFunc(b.Pods, serving)
	switch {
	case b.Gone != nil && *b.Gone && !ready:
		return Cause{Code: BaselineGone, Fault: FaultApp, Outlook: OutlookFinal, Message: "the baseline " + f.workload() + " does not exist any more",
			Say: sayRemove, Fix: kubectl("sandbox", "delete", f.sandbox())}
	case b.Marked != nil && !*b.Marked:
		return Cause{Code: BaselineNotRouted, Fault: FaultProduct, Outlook: OutlookMayPass,
			Message: "the baseline " + f.workload() + " is not routed any more: its pod template lacks the marks of `route`",
			Say:     sayRouteBaseline, Fix: f.routeAgain()}
	case !ready:
		if old := f.unmarked(); len(old) > 0 {
			return f.withoutRouters(old)
		}
		return Cause{Code: NoBaselinePod, Fault: FaultApp, Message: "the baseline " + f.workload() + " has no ready pod" + f.baselineCause()}
	}
	return Cause{}
}

// baselineCause returns why the baseline's pods are not ready, if one of them has a cause.
func (f Facts) baselineCause() string {
	for _, p := range f.Baseline.Pods {
		if c := Pod(p, f.Now); !c.OK() && c.Code != PodTerminating {
			return ": pod/" + p.Name + ": " + c.Message
		}
	}
	return ""
}

// Texts of causes that published uses as well.
const (
	sayRouteBaseline = "put routers in front of it again"
	sayRouteService  = "have it lead to the routers again"
	sayRestart       = "with the webhook running, create them anew"
	sayServices      = "see which Services there are"
	sayRemove        = "remove the sandbox"
)

// unmarked are the pods of the workload without a router that may answer requests although no pod is ready that has one: those that
// its pod template from before `route` created, and those that are ending, which finish what comes on open connections.
func (f Facts) unmarked() (names []string) {
	all := f.Baseline.Pods
	if f.Baseline.Others != nil {
		all = slices.Concat(all, *f.Baseline.Others)
	}
	for _, p := range all {
		ending := p.DeletionTimestamp != nil && p.Status.Phase == corev1.PodRunning
		if (ending || serving(p)) && !HasRouter(p) && owner(p) == f.workload() {
			names = append(names, p.Name)
		}
	}
	return names
}

// withoutRouters returns the cause of ready pods that have no router.
func (f Facts) withoutRouters(names []string) Cause {
	return Cause{Code: RouterMissing, Fault: FaultProduct, Pod: names[0],
		Message: pods(names, "has", "have") + " no router, and keeps all requests that reach it",
		Say:     sayRestart, Fix: f.restart()}
}

func (f Facts) routeAgain() []string { return kubectl("sandbox", "route", f.workload()) }

func (f Facts) restart() []string { return kubectl("rollout", "restart", f.workload()) }

func listServices() []string { return kubectl("get", "services", "-o", "wide") }

// serving reports whether the pod may receive requests.
func serving(p *corev1.Pod) bool { return p.DeletionTimestamp == nil && isTrue(p, corev1.PodReady) }

// HasRouter reports whether admission added a router to the pod.
func HasRouter(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == sandbox.RouterContainer })
}

// Declined returns why admission added no router to a pod: a stable code and a clause; empty if it does not say.
func Declined(p *corev1.Pod) (code, why string) {
	rest, ok := strings.CutPrefix(p.Annotations[sandbox.AnnotationInjected], "declined: ")
	if !ok {
		return "", ""
	}
	code, why, _ = strings.Cut(rest, ": ")
	return code, why
}

// baselineRouters returns the causes of ready baseline pods that do not route the key.
func (f Facts) baselineRouters() []Cause {
	var causes []Cause
	if f.Baseline != nil {
		causes = f.withoutRouter()
	}
	if f.Routing == nil {
		return causes
	}
	by := map[RouterState][]string{}
	for name, state := range f.Routing.Routers {
		if f.isReadyBaseline(name) {
			by[state] = append(by[state], name)
		}
	}
	for _, state := range []RouterState{RouterTooOld, RouterUnconnected, RouterDisconnected, RouterUnacked} {
		if len(by[state]) > 0 {
			causes = append(causes, routers(state, by[state]))
		}
	}
	return causes
}

// isReadyBaseline reports whether a pod with that name still counts: published state may be about a deleted pod.
func (f Facts) isReadyBaseline(name string) bool {
	return f.Baseline == nil || slices.ContainsFunc(f.Baseline.Pods, func(p *corev1.Pod) bool { return p.Name == name && serving(p) })
}

func (f Facts) withoutRouter() []Cause {
	var bare []string
	declined := map[string][]string{} // by the reason
	code := map[string]string{}
	for _, p := range f.Baseline.Pods {
		if !serving(p) || HasRouter(p) {
			continue
		}
		c, why := Declined(p)
		if c == "" {
			bare = append(bare, p.Name)
			continue
		}
		declined[why], code[why] = append(declined[why], p.Name), c
	}
	var causes []Cause
	for _, why := range slices.Sorted(maps.Keys(declined)) {
		c := Cause{Code: RouterDeclined, Fault: FaultApp, Outlook: OutlookMayPass, Pod: declined[why][0],
			Message: fmt.Sprintf("%s no router, as admission declined (%s): %s", pods(declined[why], "has", "have"), code[why], why)}
		switch code[why] {
		case "port-moved", "port-unknown", "ports-missing", "ports-malformed", "port-shared":
			c.Say, c.Fix = "route the workload as it is now", f.routeAgain()
		}
		causes = append(causes, c)
	}
	if len(bare) > 0 {
		causes = append(causes, f.withoutRouters(bare))
	}
	return causes
}

// pods returns the subject of a sentence about pods.
func pods(all []string, one, many string) string {
	if len(all) == 1 {
		return "baseline pod " + all[0] + " " + one
	}
	return "baseline pods " + names(all) + " " + many
}

func routers(state RouterState, all []string) Cause {
	who := "the router of pod " + all[0] + " has"
	if len(all) > 1 {
		who = "the routers of pods " + names(all) + " have"
	}
	c := Cause{Fault: FaultProduct, Pod: slices.Min(all)}
	switch state {
	case RouterUnconnected:
		c.Code, c.Message = RouterNotConnected, who+" not connected to the control plane, so it is not known which routes are in force there"
	case RouterDisconnected:
		c.Code, c.Message = RouterNotAcknowledged, who+" lost the control plane before acknowledging the route"
	case RouterTooOld:
		c.Code, c.Message = RouterStale, who+" lost the control plane for so long that the table is not used any more"
	default:
		c.Code, c.Message = RouterNotAcknowledged, who+" not acknowledged the route yet"
	}
	return c
}

// revisionServed returns a cause if the key's requests go to pods of another revision than the newest.
func (f Facts) revisionServed(pods []*corev1.Pod) Cause {
	if f.Routing == nil || f.Routing.published {
		return Cause{} // published a moment ago: the gate of each pod shows it without delay
	}
	for _, p := range pods {
		if !slices.Contains(f.Routing.Serving, p.Name) {
			return Cause{Code: OlderRevision, Fault: FaultProduct, Pod: p.Name, Message: "the routers have not been sent this pod yet: requests with the key go to an older revision, if there is one"}
		}
	}
	return Cause{}
}

// ports returns a cause if no router could connect to a pod's ports, or none has tried yet.
func (f Facts) ports(pods []*corev1.Pod) Cause {
	if f.Routing == nil || !f.Routing.Tries {
		return Cause{}
	}
	for _, p := range pods {
		why, tried := f.Routing.Ports[p.Name]
		switch {
		case !tried && !f.Routing.published:
			return Cause{Code: PortNotTried, Fault: FaultProduct, Pod: p.Name, Message: "no router has tried to connect to the fork's port yet"}
		case why != "":
			return Cause{Code: PortNotListening, Fault: FaultApp, Pod: p.Name, Message: "no router could connect to the fork: " + why, Log: appLog(p)}
		}
	}
	return Cause{}
}

// appLog is the log of a pod's first container.
func appLog(p *corev1.Pod) *LogRef {
	if len(p.Spec.Containers) == 0 {
		return nil
	}
	return &LogRef{p.Name, p.Spec.Containers[0].Name, false}
}

// held returns a cause if a pod without readiness probe has not run long enough.
func (f Facts) held(pods []*corev1.Pod) Cause {
	for _, p := range pods {
		if ownGateWaits(p) {
			if c, left := JustStarted(p, f.Now); left > 0 {
				return c
			}
		}
	}
	return Cause{}
}

// gate returns what a pod's readiness gate waits for, in the words of the control plane that sets it.
func (f Facts) gate(pods []*corev1.Pod) Cause {
	for _, p := range pods {
		if !ownGateWaits(p) || f.Routing != nil && !f.Routing.published {
			continue
		}
		c := condition(p, sandbox.ConditionRouted)
		if c.Reason == "" || c.Message == "" {
			return Cause{Code: RouterNotAcknowledged, Fault: FaultProduct, Pod: p.Name, Message: "waits for the baseline's routers to take the route"}
		}
		return f.published(Code(c.Reason), p.Name, c.Message)
	}
	return Cause{}
}

// published returns a cause that the control plane states. It has the same command as if it were found here, for all
// codes whose command depends only on what is known here.
func (f Facts) published(code Code, pod, message string) Cause {
	c := Cause{Code: code, Fault: FaultProduct, Pod: pod, Message: message, Outlook: outlookOf(code)}
	switch code {
	case BaselineNotRouted:
		c.Say, c.Fix = sayRouteBaseline, f.routeAgain()
	case ServiceBypassesRouters:
		c.Say, c.Fix = sayRouteService, f.routeAgain()
	case RouterMissing:
		c.Say, c.Fix = sayRestart, f.restart()
	case ServiceWithoutPods:
		c.Say, c.Fix = sayServices, listServices()
	case BaselineGone:
		c.Say, c.Fix = sayRemove, kubectl("sandbox", "delete", f.sandbox())
	}
	return c
}

// outlookOf returns the outlook of a code in a readiness gate's condition.
func outlookOf(c Code) Outlook {
	switch c {
	case KeyTaken, KeyInvalid, BaselineGone:
		return OutlookFinal
	case RouterDeclined, ServiceBypassesRouters, ServiceWithoutPods, BaselineNotRouted:
		return OutlookMayPass
	}
	return OutlookWaits
}
