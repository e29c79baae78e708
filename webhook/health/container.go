package health

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A container is one container of a pod: its spec and its status.
type container struct {
	pod  *corev1.Pod
	spec *corev1.Container
	*corev1.ContainerStatus
	init bool // an init container that must end, not a sidecar
}

// Containers returns a Cause for each container of the pod that has failed or keeps it from serving, init containers
// first.
func Containers(p *corev1.Pod, now time.Time) []Cause {
	var causes []Cause
	for _, c := range containers(p) {
		cause := c.cause(now)
		if cause.OK() {
			continue
		}
		cause.Pod, cause.Container = p.Name, c.Name
		if c.Name == sandbox.RouterContainer {
			cause.Fault = FaultProduct
		}
		causes = append(causes, cause)
	}
	return causes
}

func containers(p *corev1.Pod) []container {
	var all []container
	add := func(specs []corev1.Container, statuses []corev1.ContainerStatus, init bool) {
		for i := range statuses {
			c := container{pod: p, ContainerStatus: &statuses[i], spec: &corev1.Container{}, init: init}
			for j := range specs {
				if specs[j].Name == c.Name {
					c.spec = &specs[j]
				}
			}
			if c.spec.RestartPolicy != nil && *c.spec.RestartPolicy == corev1.ContainerRestartPolicyAlways || c.Name == sandbox.RouterContainer {
				c.init = false
			}
			all = append(all, c)
		}
	}
	add(p.Spec.InitContainers, p.Status.InitContainerStatuses, true)
	add(p.Spec.Containers, p.Status.ContainerStatuses, false)
	return all
}

// goesOn reports whether a container is restarted when it ends.
func (c container) goesOn() bool {
	policy := c.pod.Spec.RestartPolicy
	return !c.init && (policy == corev1.RestartPolicyAlways || policy == "") && c.pod.Status.Phase != corev1.PodFailed
}

func (c container) what() string {
	if c.init {
		return "init container " + c.Name
	}
	return "container " + c.Name
}

// cause maps a container's state to a Cause.
func (c container) cause(now time.Time) Cause {
	switch s := c.State; {
	case s.Waiting != nil:
		return c.waiting(s.Waiting)
	case s.Terminated != nil:
		return c.terminated(s.Terminated)
	case s.Running != nil:
		return c.running(s.Running.StartedAt.Time, now)
	}
	return Cause{}
}

func (c container) waiting(w *corev1.ContainerStateWaiting) Cause {
	switch w.Reason {
	case "PodInitializing": // the kubelet's reason for all containers of a pod until its init containers have ended
		switch {
		case c.Name == sandbox.RouterContainer:
			return Cause{} // the app's container has the cause: the pod does not wait for the router
		case c.init:
			return Cause{Code: PodStarting, Fault: FaultCluster, Message: c.what() + " is being created"}
		}
		return Cause{Code: PodStarting, Fault: FaultCluster, Message: c.what() + " is being created, after the pod's init containers"}
	case "", "ContainerCreating":
		return Cause{Code: PodStarting, Fault: FaultCluster, Message: c.what() + " is being created"}
	case "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "RegistryUnavailable", "ImageInspectError":
		return c.pull(w)
	case "InvalidImageName":
		return Cause{Code: ImageNameInvalid, Fault: FaultApp, Outlook: OutlookFinal,
			Message: fmt.Sprintf("image %q of %s is no valid image name", c.image(), c.what())}
	case "CreateContainerConfigError":
		return c.config(w.Message)
	case "CrashLoopBackOff":
		if t := c.LastTerminationState.Terminated; t != nil {
			return c.crash(t, OutlookFinal, true)
		}
		return Cause{Code: ContainerExited, Fault: FaultApp, Outlook: OutlookFinal, Message: c.what() + " ends as soon as it is started"}
	case "CreateContainerError", "RunContainerError", "StartError", "ContainerCannotRun", "PostStartHookError", "PreStartHookError",
		"PreCreateHookError", "CreatePodSandboxError", "ConfigPodSandboxError", "KillPodSandboxError":
		return Cause{Code: ContainerStartFailed, Fault: FaultApp, Outlook: OutlookFinal,
			Message: c.what() + " can't be started: " + cmp.Or(firstLine(w.Message), w.Reason)}
	}
	return Cause{Code: ContainerWaiting, Fault: FaultCluster, Outlook: OutlookMayPass, Message: c.what() + " waits: " + because(w.Reason, w.Message)}
}

func (c container) terminated(t *corev1.ContainerStateTerminated) Cause {
	switch {
	case t.ExitCode == 0 && !c.goesOn():
		return Cause{}
	case !c.goesOn() && (!c.init || c.pod.Spec.RestartPolicy == corev1.RestartPolicyNever || c.pod.Status.Phase == corev1.PodFailed):
		return c.crash(t, OutlookFinal, false)
	}
	return c.crash(t, OutlookMayPass, false)
}

func (c container) running(since, now time.Time) Cause {
	if c.init {
		return Cause{Code: PodStarting, Fault: FaultApp, Message: c.what() + " runs, and the pod's containers start after it"}
	}
	last, young := c.LastTerminationState.Terminated, hold(since, now) > 0
	probed := c.spec.ReadinessProbe != nil
	switch started := c.Started != nil && *c.Started; {
	case last != nil && !c.Ready, last != nil && young && !probed:
		return c.crash(last, OutlookMayPass, true)
	case !c.Ready && !started && c.spec.StartupProbe != nil:
		return c.unready(ContainerNotStarted, "and its startup probe"+describeProbe(c.spec.StartupProbe)+" has not passed")
	case !c.Ready && !started:
		return Cause{Code: PodStarting, Fault: FaultCluster, Message: c.what() + " is starting"}
	case !c.Ready && probed:
		return c.unready(ContainerNotReady, "and its readiness probe"+describeProbe(c.spec.ReadinessProbe)+" has not passed")
	case !c.Ready:
		return c.unready(ContainerNotReady, "and is not ready yet")
	}
	return Cause{}
}

// JustStarted returns the Cause of a ready pod if one of its containers has no readiness probe and has run for less
// than StartHold, and how much longer that lasts. Such a container is ready by definition and may be about to crash.
func JustStarted(p *corev1.Pod, now time.Time) (Cause, time.Duration) {
	var cause Cause
	var longest time.Duration
	for _, c := range containers(p) {
		r := c.State.Running
		if c.init || c.Name == sandbox.RouterContainer || r == nil || c.spec.ReadinessProbe != nil {
			continue
		}
		if left := hold(r.StartedAt.Time, now); left > longest {
			longest = left
			cause = Cause{Code: ContainerJustStarted, Fault: FaultApp, Pod: p.Name, Container: c.Name,
				Message: c.what() + " has just started, and no readiness probe says whether it serves"}
		}
	}
	return cause, longest
}

// hold is how much longer a container counts as just started, given its start by its node's clock. A start in the
// future by more than StartHold is ignored: a wrong clock would hold the pods.
func hold(since, now time.Time) time.Duration {
	age := now.Sub(since)
	if age < -StartHold {
		return 0
	}
	return max(0, StartHold-age)
}

func (c container) unready(code Code, why string) Cause {
	return Cause{Code: code, Fault: FaultApp, Message: c.what() + " runs, " + why, Log: c.log(false)}
}

func (c container) log(previous bool) *LogRef { return &LogRef{c.pod.Name, c.Name, previous} }

func (c container) image() string { return cmp.Or(c.spec.Image, c.Image) }

// crash returns the Cause of a container that ended.
func (c container) crash(t *corev1.ContainerStateTerminated, outlook Outlook, previous bool) Cause {
	code := t.ExitCode
	cause := Cause{Code: ContainerCrashed, Fault: FaultApp, Outlook: outlook, ExitCode: &code, Log: c.log(previous)}
	switch {
	case t.Reason == "OOMKilled":
		cause.Code, cause.Message = OutOfMemory, c.what()+" ran out of memory (OOMKilled"+c.memory()+")"
	case t.Reason == "StartError" || t.Reason == "ContainerCannotRun":
		cause.Code, cause.Log = ContainerStartFailed, nil
		cause.Message = c.what() + " can't be started: " + cmp.Or(firstLine(t.Message), t.Reason)
	case t.Reason == "ContainerStatusUnknown":
		cause.Code, cause.Fault, cause.Log = PodLost, FaultCluster, nil
		cause.Message = "how " + c.what() + " ended is not known: its node lost it"
	case t.ExitCode == 0:
		cause.Code, cause.Message = ContainerExited, c.what()+" ends by itself: exit code 0"
	case c.goesOn():
		cause.Message = fmt.Sprintf("%s crashes: exit code %d", c.what(), t.ExitCode)
	default:
		cause.Message = fmt.Sprintf("%s failed: exit code %d", c.what(), t.ExitCode)
	}
	if t.Signal != 0 && cause.Code == ContainerCrashed {
		cause.Message += fmt.Sprintf(", signal %d", t.Signal)
	}
	return cause
}

// memory is the container's memory limit, if it is known.
func (c container) memory() string {
	if limit, ok := c.spec.Resources.Limits[corev1.ResourceMemory]; ok {
		return ", its limit is " + limit.String()
	}
	return ""
}

func (c container) pull(w *corev1.ContainerStateWaiting) Cause {
	cause := Cause{Code: ImagePullFailed, Fault: FaultApp, Outlook: OutlookFinal,
		Message: fmt.Sprintf("image %q of %s can't be pulled: %s", c.image(), c.what(), cmp.Or(pullError(w.Message), w.Reason))}
	if w.Reason == "ErrImageNeverPull" {
		return cause
	}
	if !finalPullError(w.Message) {
		// The registry may have been unavailable for a moment, unless it responded. Back-off means more than one attempt.
		cause.Fault = FaultCluster
		if w.Reason != "ImagePullBackOff" {
			cause.Outlook = OutlookMayPass
		}
	}
	return cause
}

// missing matches the kubelet's message about a missing Secret or ConfigMap, or a missing key.
var missing = regexp.MustCompile(`(?i)\b(secret|configmap) "[^"]+" not found|couldn't find key \S+ in (Secret|ConfigMap)`)

func (c container) config(message string) Cause {
	cause := Cause{Code: ContainerConfigError, Fault: FaultApp, Outlook: OutlookFinal,
		Message: c.what() + " can't be started: " + cmp.Or(firstLine(message), "CreateContainerConfigError")}
	if m := missing.FindStringSubmatch(message); m != nil {
		cause.Code = ConfigMapNotFound
		if strings.EqualFold(m[1]+m[2], "secret") {
			cause.Code = SecretNotFound
		}
	}
	return cause
}

// pullError returns the reason in the kubelet's message: the response of the registry or the runtime.
func pullError(message string) string {
	message = firstLine(message)
	for _, mark := range []string{"ErrImagePull: ", "rpc error: "} {
		if _, rest, ok := strings.Cut(message, mark); ok {
			message = rest
		}
	}
	if _, rest, ok := strings.Cut(message, " desc = "); ok {
		message = rest
	}
	if i := strings.Index(message, "failed to resolve reference"); i > 0 {
		message = message[i:]
	}
	if strings.HasPrefix(message, "Back-off pulling image") {
		return "" // which only says that it was attempted
	}
	return message
}

// finalPullError reports whether a retry cannot succeed: the registry responded, and refused.
func finalPullError(message string) bool {
	for _, word := range []string{"not found", "NotFound", "manifest unknown", "unauthorized", "denied", "no match for platform", "forbidden"} {
		if strings.Contains(message, word) {
			return true
		}
	}
	return false
}
