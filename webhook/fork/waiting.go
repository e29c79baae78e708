package fork

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A Wait is why a sandbox can't be shown yet, or any more: a fork of it that no request can reach.
type Wait struct {
	Fork    string // its Deployment
	Reason  string // what it waits for, or what it fails of
	Crashed bool   // waiting alone won't help
	Log     bool   // a container of it has said something
	Earlier bool   // what is worth reading was said by the container before
}

// LogCommand is what reads the log that tells more; nil: there is none.
func (w *Wait) LogCommand(namespace string) []string {
	if !w.Log {
		return nil
	}
	command := []string{"kubectl", "logs", "deploy/" + w.Fork, "--all-containers", "-n", namespace}
	if w.Earlier {
		command = append(command, "--previous")
	}
	return command
}

// Waiting returns the first fork, in order of name, that no request can reach, if any: what enters the sandbox would get its
// failure, or, before all routers know it, the baseline, from somewhere deep in the chain. Forks that fall back to their baseline,
// and such as have no ports, are not waited for.
func Waiting(forks []appsv1.Deployment, pods []corev1.Pod) *Wait {
	ordered := slices.SortedFunc(slices.Values(forks), func(a, b appsv1.Deployment) int { return strings.Compare(a.Name, b.Name) })
	var first *Wait
	for i := range ordered {
		d := &ordered[i]
		template := d.Spec.Template.Annotations
		if d.DeletionTimestamp != nil || template[sandbox.AnnotationPorts] == "" || template[sandbox.AnnotationWhenUnready] == sandbox.WhenUnreadyBaseline {
			continue
		}
		w := awaited(d, pods)
		if w != nil && (first == nil || w.Crashed && !first.Crashed) {
			first = w
		}
	}
	return first
}

// awaited says what keeps requests from a fork; nil: nothing, a pod of it serves.
func awaited(d *appsv1.Deployment, pods []corev1.Pod) *Wait {
	w := &Wait{Fork: d.Name, Reason: "its first pod"}
	var newest *corev1.Pod
	for i := range pods {
		p := &pods[i]
		if p.Labels[sandbox.LabelWorkload] != d.Labels[sandbox.LabelWorkload] || p.DeletionTimestamp != nil {
			continue
		}
		if condition(p, corev1.ContainersReady).Status == corev1.ConditionTrue && condition(p, sandbox.ConditionRouted).Status == corev1.ConditionTrue {
			return nil
		}
		if newest == nil || newest.CreationTimestamp.Before(&p.CreationTimestamp) || newest.CreationTimestamp.Equal(&p.CreationTimestamp) && newest.Name < p.Name {
			newest = p
		}
	}
	switch n := d.Spec.Replicas; {
	case n != nil && *n == 0:
		w.Reason, w.Crashed = "it is scaled to zero", true
	case newest != nil:
		w.explain(newest)
	default:
		for _, c := range d.Status.Conditions {
			if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
				w.Reason, w.Crashed = "its pods can't be created: "+c.Message, true
			}
		}
	}
	return w
}

// explain says why a pod does not serve.
func (w *Wait) explain(p *corev1.Pod) {
	if p.Status.Phase == corev1.PodFailed {
		w.Reason, w.Crashed = strings.TrimSuffix("its pod failed: "+p.Status.Reason+": "+p.Status.Message, ": "), true
		return
	}
	for _, statuses := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses} {
		for i := range statuses {
			if w.explainContainer(&statuses[i]) {
				return
			}
		}
	}
	routed := condition(p, sandbox.ConditionRouted)
	switch scheduled := condition(p, corev1.PodScheduled); {
	case scheduled.Status == corev1.ConditionFalse:
		w.Reason = "pod " + p.Name + " is not scheduled: " + scheduled.Message
	case condition(p, corev1.ContainersReady).Status != corev1.ConditionTrue:
		w.Reason = "pod " + p.Name + " is starting"
	case routed.Message != "":
		w.Reason = routed.Message
	default:
		w.Reason = "the routers in front of its baseline"
	}
}

// explainContainer returns whether the container is why its pod does not serve.
func (w *Wait) explainContainer(s *corev1.ContainerStatus) bool {
	ended := s.LastTerminationState.Terminated
	switch waiting := s.State.Waiting; {
	case waiting != nil:
		switch waiting.Reason {
		case "", "ContainerCreating", "PodInitializing":
			return false
		case "CrashLoopBackOff":
			w.Reason, w.Log, w.Earlier = "container "+s.Name+" ends again and again"+exit(ended), true, true
		case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull":
			w.Reason = fmt.Sprintf("image %s can't be pulled (%s)", s.Image, waiting.Reason)
		default:
			w.Reason = strings.TrimSuffix("container "+s.Name+": "+waiting.Reason+": "+waiting.Message, ": ")
		}
	case s.State.Terminated != nil && s.State.Terminated.ExitCode != 0:
		w.Reason, w.Log = "container "+s.Name+" has ended"+exit(s.State.Terminated), true
	case s.State.Running != nil && !s.Ready && ended != nil && ended.ExitCode != 0:
		w.Reason, w.Log, w.Earlier = "container "+s.Name+" was started again and is not ready"+exit(ended), true, true
	case s.State.Running != nil && !s.Ready && s.Started != nil && *s.Started:
		w.Reason, w.Log = "container "+s.Name+" runs and is not ready yet", true
		return true
	default:
		return false
	}
	w.Crashed = true
	return true
}

func exit(t *corev1.ContainerStateTerminated) string {
	switch {
	case t == nil:
		return ""
	case t.Reason == "OOMKilled":
		return " (out of memory)"
	}
	return fmt.Sprintf(" (exit code %d)", t.ExitCode)
}

func condition(p *corev1.Pod, t corev1.PodConditionType) corev1.PodCondition {
	for _, c := range p.Status.Conditions {
		if c.Type == t {
			return c
		}
	}
	return corev1.PodCondition{}
}
