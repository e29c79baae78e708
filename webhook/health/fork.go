package health

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Fork decides whether requests reach a fork.
func Fork(f Facts) Report {
	if d := f.Deployment; d != nil && f.Routing == nil && f.Published.Of == d.UID && f.Published.Code != "" {
		routing := f.Published.Routing
		routing.published = true
		f.Routing = &routing
	}
	r := Report{Pods: f.newest()}
	d := f.Deployment
	var past []Cause
	switch {
	case d == nil:
		r.Causes = []Cause{{Code: ForkNotObserved, Fault: FaultCluster, Message: "the API server does not show the fork yet"}}
	case d.DeletionTimestamp != nil:
		r.Causes = []Cause{{Code: ForkDeleting, Fault: FaultCluster, Message: "the fork is being deleted"}}
	case d.Status.ObservedGeneration < d.Generation:
		r.Causes = []Cause{{Code: ForkNotObserved, Fault: FaultCluster, Message: "the Deployment controller has not seen its newest template yet"}}
	case d.Spec.Replicas != nil && *d.Spec.Replicas == 0:
		r.Causes = []Cause{{Code: ScaledToZero, Fault: FaultApp, Message: "the fork is scaled to zero",
			Say: "give it a pod", Fix: kubectl("scale", "deployment/"+d.Name, "--replicas=1")}}
	default:
		r.Causes = f.ofPods(r.Pods)
		switch {
		case !f.takesRequests():
		case len(r.Causes) == 0:
			r.Causes = f.ofRoute(r.Pods)
		default: // most causes on the way to pods that do not serve are irrelevant
			past = f.pastRouters()
		}
		if len(r.Causes) == 0 {
			r.Causes = f.ofRollout()
		}
		if len(r.Causes) == 0 {
			r.Causes = f.said()
		}
	}
	f.fixes(r.Causes)
	r.Causes = append(past, sorted(r.Causes)...)
	r.Notes, r.Unknown = f.notes()
	r.State = f.state(r.Causes)
	return r
}

// Gate decides whether the readiness gate of a fork's pod can turn True, and if not, why; zero if it can. The pod's
// containers must be ready. Only the labels of the Deployment are needed.
func Gate(f Facts, p *corev1.Pod) Cause {
	if !isTrue(p, corev1.ContainersReady) {
		if c := Pod(p, f.Now); !c.OK() {
			return c
		}
		return Cause{Code: PodStarting, Fault: FaultCluster, Message: "the pod is starting", Pod: p.Name}
	}
	all := f.ofRoute([]*corev1.Pod{p})
	return worst(slices.DeleteFunc(all, func(c Cause) bool { return c.Partial }))
}

// pastRouters returns the causes by which requests with the key reach the baseline without any router that could refuse
// them. They come first, even if the fork has failed: the sender of such a request takes the response for the fork's.
func (f Facts) pastRouters() []Cause {
	var past []Cause
	for _, c := range slices.Concat(f.services(), []Cause{f.baselineMissing()}, f.said()) {
		switch c.Code {
		case BaselineNotRouted, RouterMissing, ServiceBypassesRouters:
			c.Path = true
			past = append(past, c)
		}
	}
	return past
}

func (f Facts) takesRequests() bool {
	return f.Deployment.Spec.Template.Annotations[sandbox.AnnotationPorts] != ""
}

func (f Facts) state(causes []Cause) State {
	switch c := worst(causes); {
	case c.OK() && f.takesRequests():
		return StateRouted
	case c.OK():
		return StateRunning
	case c.Outlook == OutlookWaits && !c.Path:
		return StateWaiting
	case c.Path:
		return StateNotRouted
	}
	return StateFailed
}

// newest returns the pods of the Deployment's newest template that are not being deleted, sorted by name.
func (f Facts) newest() []*corev1.Pod {
	if f.Deployment == nil {
		return nil
	}
	best := int64(-1)
	if r, err := parseRevision(f.Deployment.Annotations[AnnotationRevision]); err == nil && len(f.Revisions) > 0 {
		best = r
	} else {
		for _, p := range f.Pods {
			if p.DeletionTimestamp == nil {
				best = max(best, f.revision(p))
			}
		}
	}
	var pods []*corev1.Pod
	for _, p := range f.Pods {
		if p.DeletionTimestamp == nil && f.revision(p) == best {
			pods = append(pods, p)
		}
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	return pods
}

func (f Facts) revision(p *corev1.Pod) int64 {
	for _, o := range p.OwnerReferences {
		if r, ok := f.Revisions[o.UID]; ok {
			return r
		}
	}
	return 0
}

// ofPods returns the causes in the fork's own pods, until they are ready except for the readiness gate.
func (f Facts) ofPods(pods []*corev1.Pod) []Cause {
	for _, c := range f.Deployment.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			return []Cause{notCreated(c.Message)}
		}
	}
	if len(pods) == 0 {
		if len(f.Pods) > 0 && !slices.ContainsFunc(f.Pods, func(p *corev1.Pod) bool { return p.DeletionTimestamp == nil }) {
			return []Cause{{Code: PodsNotCreated, Fault: FaultCluster, Message: "the fork's pods are being deleted, and no new one has been created yet"}}
		}
		return []Cause{{Code: PodsNotCreated, Fault: FaultCluster, Message: "the fork's pods have not been created yet"}}
	}
	var causes []Cause
	for _, p := range pods {
		c := Pod(p, f.Now)
		if c.Code == ReadinessGateFalse {
			c.Say, c.Fix = "if nothing sets it for forks, fork again without it", f.withoutGates(p)
		}
		if c.OK() && f.takesRequests() && !hasGate(p) {
			c = Cause{Code: NotInjected, Fault: FaultProduct, Outlook: OutlookFinal, Pod: p.Name,
				Message: "pod/" + p.Name + " was created without the webhook, so no request is routed to it",
				Say:     "with the webhook installed, create it anew", Fix: kubectl("delete", "pod", p.Name)}
		}
		if !c.OK() {
			causes = append(causes, c)
		}
	}
	deadline := slices.ContainsFunc(f.Deployment.Status.Conditions, func(c appsv1.DeploymentCondition) bool {
		return c.Type == appsv1.DeploymentProgressing && c.Status == corev1.ConditionFalse && c.Reason == "ProgressDeadlineExceeded"
	})
	if c := worst(causes); deadline && !c.OK() && c.Outlook == OutlookWaits {
		c.Outlook, c.Message = OutlookFinal, c.Message+", and the rollout made no progress for its whole deadline"
		return []Cause{c}
	}
	return causes
}

// withoutGates is the command that forks again without the readiness gates of other controllers that are not True.
func (f Facts) withoutGates(p *corev1.Pod) []string {
	foreign := foreignGates(p)
	var kept []string
	for _, g := range p.Spec.ReadinessGates {
		if t := string(g.ConditionType); g.ConditionType != sandbox.ConditionRouted && !slices.Contains(foreign, t) {
			kept = append(kept, fmt.Sprintf(`{"conditionType":%q}`, t))
		}
	}
	list := "null"
	if len(kept) > 0 {
		list = "[" + strings.Join(kept, ",") + "]"
	}
	return kubectl("sandbox", "fork", f.workload(), "--name="+f.sandbox(), `--patch={"spec":{"readinessGates":`+list+`}}`)
}

// ofRollout returns the causes that the Deployment's status has while its pods are healthy.
func (f Facts) ofRollout() []Cause {
	want := int32(1)
	if f.Deployment.Spec.Replicas != nil {
		want = *f.Deployment.Spec.Replicas
	}
	switch st := f.Deployment.Status; {
	case st.UpdatedReplicas < want:
		return []Cause{{Code: PodsNotCreated, Fault: FaultCluster, Message: fmt.Sprintf("%d of the fork's %d pods have been created", st.UpdatedReplicas, want)}}
	case st.Replicas > want:
		return []Cause{{Code: OlderPodsRemain, Fault: FaultCluster, Message: "pods of the fork's older template have not ended yet"}}
	case st.AvailableReplicas < want:
		return []Cause{{Code: ForkNotObserved, Fault: FaultCluster, Message: "the Deployment controller has not counted the fork's pods as available yet"}}
	}
	return nil
}

// said returns the cause that the control plane published, if nothing known here contradicts or confirms it.
func (f Facts) said() []Cause {
	if f.Routing == nil || !f.Routing.published {
		return nil
	}
	b := f.Baseline
	if b == nil {
		b = &Baseline{}
	}
	unknown := false
	switch f.Published.Code {
	case ServiceBypassesRouters, ServiceWithoutPods:
		unknown = b.Services == nil
	case ServiceShared:
		unknown = b.Others == nil
	case BaselineGone, BaselineNotRouted:
		unknown = b.Gone == nil
	case RouterMissing, RouterDeclined, NoBaselinePod:
		unknown = f.Baseline == nil
	}
	if !unknown {
		return nil
	}
	c := f.published(f.Published.Code, "", f.Published.Message)
	c.Path = true
	return []Cause{c}
}

// fixes adds a generally applicable command to final causes without one.
func (f Facts) fixes(causes []Cause) {
	if f.Deployment == nil {
		return
	}
	for i := range causes {
		c := &causes[i]
		if len(c.Fix) > 0 || c.Outlook == OutlookWaits {
			continue
		}
		say := "fix that and fork again, or remove it"
		if f.Deployment.Status.AvailableReplicas > 0 && !c.Path {
			say = "the fork's earlier pods go on serving; " + say
		}
		if c.Log != nil && c.Log.Previous {
			log := kubectl("logs", "deployment/"+f.Deployment.Name, "--container="+c.Log.Container, "--previous")
			say = fmt.Sprintf("its log is %q; to remove it", strings.Join(log, " "))
		}
		c.Say, c.Fix = say, kubectl("sandbox", "delete", f.sandbox())
	}
}

func (f Facts) sandbox() string { return f.Deployment.Labels[sandbox.LabelSandbox] }

// workload is the fork's baseline as on the command line: "deployment/api".
func (f Facts) workload() string { return typed(f.Deployment.Labels[sandbox.LabelWorkload]) }

// typed returns a workload's label as on the command line.
func typed(label string) string { return strings.Replace(label, ".", "/", 1) }

func kubectl(args ...string) []string { return append([]string{"kubectl"}, args...) }
