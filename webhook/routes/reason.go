package routes

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// maxReason bounds what travels in every table and in the answers' x-sandbox-error header, in bytes.
const maxReason = 160

// reason says for people, in one short line of printable ASCII, why no pod of the fork can serve.
func reason(f Fork) string {
	return line(explain(f))
}

func explain(f Fork) string {
	if n := f.Deployment.Spec.Replicas; n != nil && *n == 0 {
		return "scaled to zero"
	}
	pods := newest(f.Pods, f.Revisions, func(p *corev1.Pod) bool { return p.DeletionTimestamp == nil })
	if len(pods) == 0 {
		for i := range f.Deployment.Status.Conditions {
			c := &f.Deployment.Status.Conditions[i]
			if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
				return "no pods: " + c.Message
			}
		}
		if len(f.Pods) > 0 {
			return "its pods are being deleted"
		}
		return "no pods yet"
	}
	for _, pod := range pods {
		if why := explainPod(pod); why != "" {
			return why
		}
	}
	return "pods starting"
}

// explainPod returns "" where there is nothing to say but to wait.
func explainPod(pod *corev1.Pod) string {
	if pod.Status.Phase == corev1.PodFailed {
		return "pod failed: " + strings.TrimPrefix(pod.Status.Reason+": "+pod.Status.Message, ": ")
	}
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return "pod not scheduled: " + c.Message
		}
	}
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range statuses {
			if why := explainContainer(&statuses[i]); why != "" {
				return "container " + statuses[i].Name + ": " + why
			}
		}
	}
	return ""
}

func explainContainer(s *corev1.ContainerStatus) string {
	switch {
	case s.State.Waiting != nil:
		w := s.State.Waiting
		switch w.Reason {
		case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable":
			return fmt.Sprintf("image %s can't be pulled (%s)", s.Image, w.Reason)
		case "CrashLoopBackOff":
			// "back-off 10s restarting failed container=api pod=api-6d8f_shop(3f0c...)": the rest is said already.
			backOff, _, _ := strings.Cut(w.Message, " restarting")
			return "CrashLoopBackOff: " + backOff + exit(s.LastTerminationState.Terminated)
		case "", "ContainerCreating", "PodInitializing":
			return "" // as usual: it has not started yet
		}
		return strings.TrimSuffix(w.Reason+": "+w.Message, ": ")
	case s.State.Terminated != nil && s.State.Terminated.ExitCode != 0:
		return "exited with code " + fmt.Sprint(s.State.Terminated.ExitCode)
	case s.State.Running != nil && !s.Ready && s.LastTerminationState.Terminated != nil:
		return "restarted, not ready yet" + exit(s.LastTerminationState.Terminated)
	case s.State.Running != nil && !s.Ready && s.Started != nil && *s.Started:
		return "running, not ready yet"
	}
	return ""
}

func exit(t *corev1.ContainerStateTerminated) string {
	if t == nil {
		return ""
	}
	return fmt.Sprintf(" (exit code %d)", t.ExitCode)
}

// line makes s one line of printable ASCII of at most maxReason bytes: parts of it were written by whoever made the image
// or the quota, and it becomes a header's value.
func line(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, strings.TrimSpace(s))
	if len(s) > maxReason {
		s = s[:maxReason-3] + "..."
	}
	return s
}
