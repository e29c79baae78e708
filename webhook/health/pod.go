package health

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// StartHold is how long a container without readiness probe must run before it counts as started. The kubelet reports
// it ready as soon as its process exists, and a program that crashes at start exists for a moment too.
const StartHold = 3 * time.Second

// Pod returns the most relevant Cause of a pod that does not serve or did not succeed. It returns zero if the pod is
// ready, has succeeded, or waits only for this product's readiness gate. It knows every way in which a pod can end or
// hang.
func Pod(p *corev1.Pod, now time.Time) Cause {
	if p.Status.Phase == corev1.PodSucceeded {
		return Cause{}
	}
	causes := podCauses(p)
	if !disrupted(causes) { // the node killed the containers: their own states are no cause
		causes = append(causes, Containers(p, now)...)
	}
	if p.DeletionTimestamp != nil {
		causes = append(causes, Cause{Code: PodTerminating, Message: "the pod is being deleted", Fault: FaultCluster})
	}
	c := worst(causes)
	if c.OK() {
		c = readiness(p)
	}
	c.Pod = p.Name
	if c.OK() {
		return Cause{}
	}
	return c
}

// disrupted reports whether the pod was ended from outside.
func disrupted(causes []Cause) bool {
	return slices.ContainsFunc(causes, func(c Cause) bool {
		return c.Code == PodEvicted || c.Code == PodPreempted || c.Code == PodLost || c.Code == PodRejected
	})
}

// podCauses returns the causes in the status of the pod as a whole.
func podCauses(p *corev1.Pod) []Cause {
	var causes []Cause
	if c := disruption(p); !c.OK() {
		causes = append(causes, c)
	}
	if p.Status.Phase == corev1.PodFailed {
		if c := failure(p); !c.OK() {
			causes = append(causes, c)
		}
	}
	s := condition(p, corev1.PodScheduled)
	if s.Status != corev1.ConditionFalse {
		return causes
	}
	if s.Reason == corev1.PodReasonSchedulingGated {
		gates := make([]string, len(p.Spec.SchedulingGates))
		for i, g := range p.Spec.SchedulingGates {
			gates[i] = g.Name
		}
		return append(causes, Cause{Code: PodSchedulingGated, Fault: FaultCluster,
			Message: "its scheduling is held by scheduling gate " + orUnknown(names(gates))})
	}
	// An autoscaler may be about to add a node, and a pod elsewhere about to end.
	return append(causes, Cause{Code: PodUnschedulable, Fault: FaultCluster, Message: "no node takes the pod: " + because("", s.Message)})
}

// disruption evaluates the condition DisruptionTarget.
func disruption(p *corev1.Pod) Cause {
	d := condition(p, corev1.DisruptionTarget)
	if d.Status != corev1.ConditionTrue {
		return Cause{}
	}
	c := Cause{Code: PodEvicted, Fault: FaultCluster, Outlook: OutlookMayPass, Message: "the pod was evicted: " + because(d.Reason, d.Message)}
	switch d.Reason {
	case corev1.PodReasonPreemptionByScheduler:
		c.Code, c.Message = PodPreempted, "the pod was preempted: "+because("", d.Message)
	case "DeletionByPodGC":
		c.Code, c.Message = PodLost, "the pod's node is gone: "+because("", d.Message)
	case "DeletionByTaintManager":
		c.Code, c.Message = PodEvicted, "the pod was evicted by a taint of its node: "+because("", d.Message)
	}
	if p.Status.Phase == corev1.PodFailed {
		c.Outlook = ended(p)
	}
	return c
}

// failure returns why a pod's phase is Failed, as far as its status as a whole says so.
func failure(p *corev1.Pod) Cause {
	c := Cause{Fault: FaultCluster, Outlook: ended(p), Message: because(p.Status.Reason, p.Status.Message)}
	switch r := p.Status.Reason; {
	case r == "Evicted":
		c.Code, c.Message = PodEvicted, "the pod was evicted: "+because("", p.Status.Message)
	case r == "Preempting":
		c.Code, c.Message = PodPreempted, "the pod was preempted: "+because("", p.Status.Message)
	case r == "NodeLost" || r == "NodeShutdown" || r == "Terminated" || r == "Shutdown":
		c.Code, c.Message = PodLost, "the pod's node ended it: "+because(r, p.Status.Message)
	case r == "DeadlineExceeded":
		c.Code, c.Fault, c.Message = PodDeadlineExceeded, FaultApp, "the pod ran longer than its activeDeadlineSeconds"
	case r == "UnexpectedAdmissionError" || r == "NodeAffinity" || r == "NodePorts" || r == "PodOSNotSupported" || strings.HasPrefix(r, "OutOf"):
		c.Code, c.Message = PodRejected, "the pod's node refused it: "+because(r, p.Status.Message)
	case slices.ContainsFunc(p.Status.ContainerStatuses, isFailed) || slices.ContainsFunc(p.Status.InitContainerStatuses, isFailed):
		return Cause{} // the containers have the cause
	default:
		c.Code, c.Message = PodFailed, "the pod failed: "+because(r, p.Status.Message)
	}
	return c
}

// ended is the outlook of a pod that has ended: a ReplicaSet replaces it, a Job may not.
func ended(p *corev1.Pod) Outlook {
	if p.Spec.RestartPolicy == corev1.RestartPolicyAlways || p.Spec.RestartPolicy == "" {
		return OutlookMayPass
	}
	return OutlookFinal
}

func isFailed(s corev1.ContainerStatus) bool {
	return s.State.Terminated != nil && s.State.Terminated.ExitCode != 0
}

// readiness returns why a pod whose containers are healthy is not ready.
func readiness(p *corev1.Pod) Cause {
	if condition(p, corev1.PodReady).Status == corev1.ConditionTrue || ownGateWaits(p) && len(foreignGates(p)) == 0 {
		return Cause{}
	}
	switch gates := foreignGates(p); {
	case len(gates) > 0:
		return Cause{Code: ReadinessGateFalse, Fault: FaultCluster,
			Message: "waits for readiness gate " + names(gates) + ", which another controller sets"}
	case condition(p, corev1.ContainersReady).Status != corev1.ConditionTrue:
		return Cause{Code: PodStarting, Fault: FaultCluster, Message: "the pod is starting"}
	case condition(p, corev1.PodReady).Status == corev1.ConditionFalse && p.Status.Phase == corev1.PodRunning:
		return Cause{Code: PodNotReady, Fault: FaultCluster, Message: "the pod is not ready although its containers are; why is not known"}
	}
	return Cause{}
}

// ownGateWaits reports whether the pod has this product's readiness gate, and it is not True.
func ownGateWaits(p *corev1.Pod) bool {
	return hasGate(p) && !isTrue(p, sandbox.ConditionRouted) && !isTrue(p, corev1.PodReady)
}

func hasGate(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Spec.ReadinessGates, func(g corev1.PodReadinessGate) bool { return g.ConditionType == sandbox.ConditionRouted })
}

// foreignGates returns the readiness gates of other controllers that are not True.
func foreignGates(p *corev1.Pod) []string {
	var gates []string
	for _, g := range p.Spec.ReadinessGates {
		if g.ConditionType != sandbox.ConditionRouted && condition(p, g.ConditionType).Status != corev1.ConditionTrue {
			gates = append(gates, string(g.ConditionType))
		}
	}
	return gates
}

func condition(p *corev1.Pod, t corev1.PodConditionType) corev1.PodCondition {
	for _, c := range p.Status.Conditions {
		if c.Type == t {
			return c
		}
	}
	return corev1.PodCondition{Status: corev1.ConditionUnknown}
}

func isTrue(p *corev1.Pod, t corev1.PodConditionType) bool {
	return condition(p, t).Status == corev1.ConditionTrue
}

func orUnknown(s string) string {
	if s == "" {
		return "(its name is not known)"
	}
	return s
}

// describeProbe describes what a probe requests, as far as the spec is known.
func describeProbe(p *corev1.Probe) string {
	if p == nil {
		return ""
	}
	switch h := p.ProbeHandler; {
	case h.HTTPGet != nil:
		return fmt.Sprintf(" (GET %s on port %s)", h.HTTPGet.Path, h.HTTPGet.Port.String())
	case h.TCPSocket != nil:
		return fmt.Sprintf(" (TCP port %s)", h.TCPSocket.Port.String())
	case h.GRPC != nil:
		return fmt.Sprintf(" (gRPC on port %d)", h.GRPC.Port)
	case h.Exec != nil && len(h.Exec.Command) > 0:
		return " (command " + h.Exec.Command[0] + ")"
	}
	return ""
}
