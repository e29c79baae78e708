package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// annotationRevision is where the Deployment controller counts templates, on the Deployment and its ReplicaSets.
const annotationRevision = "deployment.kubernetes.io/revision"

// A ForkStatus is what has become of a fork.
type ForkStatus struct {
	// Ready says that all its pods are of its newest template and that requests with the key reach them.
	Ready bool
	// Waiting says what it waits for, in a few words; empty when Ready.
	Waiting string
	// Problem is set when waiting will not help.
	Problem *Problem
	// Passing says that the Problem goes away by itself within seconds where its cause did.
	Passing bool
	// Log is the container whose last words explain the Problem, if any.
	Log *LogRef
	// Pods are those of the newest template, in the order of their names.
	Pods []corev1.Pod
}

// A LogRef names a container's log.
type LogRef struct {
	Pod, Container string
	Previous       bool // of the container's last run, not of the current one
}

// Diagnose says what has become of the fork d, from the ReplicaSets and pods of its sandbox.
func Diagnose(d *appsv1.Deployment, sets []appsv1.ReplicaSet, pods []corev1.Pod) ForkStatus {
	s := ForkStatus{Waiting: "the Deployment controller to see it"}
	if d.DeletionTimestamp != nil {
		s.Waiting = "its deletion"
		return s
	}
	if d.Status.ObservedGeneration < d.Generation {
		return s
	}
	s.Pods = newestPods(d, sets, pods)
	if complete(d) {
		return s.ready(d)
	}
	st := d.Status
	for _, c := range st.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			s.Waiting, s.Problem, s.Passing = "its pods to be created: "+c.Message, createProblem(d, c.Message), true
			return s
		}
	}
	s.Waiting = "its pods to be created"
	for i := range s.Pods {
		if s.diagnosePod(d, &s.Pods[i]); s.Problem != nil {
			return s
		}
	}
	for _, c := range st.Conditions {
		if c.Type == appsv1.DeploymentProgressing && c.Status == corev1.ConditionFalse && c.Reason == "ProgressDeadlineExceeded" {
			s.Problem = forkProblem(d, "made no progress for its whole deadline, and waits for "+s.Waiting)
			return s
		}
	}
	if st.Replicas > st.UpdatedReplicas && int(st.UpdatedReplicas) == len(s.Pods) && !slices.ContainsFunc(s.Pods, unready) {
		s.Waiting = "pods of its older template to end"
	}
	return s
}

// ready holds a Deployment that looks ready to what it was to be: pods that the webhook saw.
func (s ForkStatus) ready(d *appsv1.Deployment) ForkStatus {
	s.Ready, s.Waiting = true, ""
	if d.Spec.Template.Annotations[sandbox.AnnotationPorts] == "" {
		return s
	}
	for i := range s.Pods {
		if !slices.ContainsFunc(s.Pods[i].Spec.ReadinessGates, func(g corev1.PodReadinessGate) bool { return g.ConditionType == sandbox.ConditionRouted }) {
			s.Ready, s.Waiting = false, "a pod that the webhook saw"
			s.Problem = &Problem{
				What: fmt.Sprintf("pod/%s of %s was made without the webhook's say, so no request is routed to it", s.Pods[i].Name, deployment(d.Name)),
				Say:  "with the webhook installed, make it anew", Fix: Kubectl("delete", "pod", s.Pods[i].Name),
			}
		}
	}
	return s
}

// newestPods returns the pods of the ReplicaSet that holds the Deployment's template.
func newestPods(d *appsv1.Deployment, sets []appsv1.ReplicaSet, pods []corev1.Pod) []corev1.Pod {
	var set *appsv1.ReplicaSet
	for i := range sets {
		if metav1.IsControlledBy(&sets[i], d) && sets[i].Annotations[annotationRevision] == d.Annotations[annotationRevision] {
			set = &sets[i]
		}
	}
	if set == nil {
		return nil
	}
	var out []corev1.Pod
	for i := range pods {
		if metav1.IsControlledBy(&pods[i], set) && pods[i].DeletionTimestamp == nil {
			out = append(out, pods[i])
		}
	}
	slices.SortFunc(out, func(a, b corev1.Pod) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// diagnosePod sets Waiting, and Problem where there is one, for a pod that is not ready.
func (s *ForkStatus) diagnosePod(d *appsv1.Deployment, pod *corev1.Pod) {
	if condition(pod, corev1.PodReady) == corev1.ConditionTrue {
		return
	}
	name := "pod/" + pod.Name
	if pod.Status.Phase == corev1.PodFailed {
		s.Waiting = fmt.Sprintf("%s, which failed: %s", name, cmp.Or(pod.Status.Message, pod.Status.Reason))
		return // its ReplicaSet makes another
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			// No Problem: an autoscaler may be about to add a node, and a pod elsewhere about to end.
			s.Waiting = fmt.Sprintf("a node for %s: %s", name, c.Message)
			return
		}
	}
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range statuses {
			if s.diagnoseContainer(d, pod, &statuses[i]); s.Problem != nil {
				return
			}
		}
	}
	if condition(pod, corev1.ContainersReady) == corev1.ConditionTrue {
		s.Waiting = "the baseline's routers to take the route"
		for _, c := range pod.Status.Conditions {
			if c.Type == sandbox.ConditionRouted && c.Status != corev1.ConditionTrue && c.Message != "" {
				s.Waiting += ": " + strings.TrimPrefix(c.Message, "waiting: ")
			}
		}
	}
}

func (s *ForkStatus) diagnoseContainer(d *appsv1.Deployment, pod *corev1.Pod, c *corev1.ContainerStatus) {
	at := fmt.Sprintf("container %s of pod/%s", c.Name, pod.Name)
	w := c.State.Waiting
	if w == nil {
		switch {
		case c.State.Running != nil && !c.Ready:
			s.Waiting = at + " to become ready"
		case c.State.Terminated != nil && c.State.Terminated.ExitCode != 0:
			s.Waiting = fmt.Sprintf("%s to be started again (exit code %d)", at, c.State.Terminated.ExitCode)
		}
		return
	}
	s.Waiting = at + " to start"
	switch w.Reason {
	case "", "ContainerCreating", "PodInitializing":
	case "ErrImagePull":
		// The registry may have been away for a moment, unless it answered.
		s.Passing = !finalPullError(w.Message)
		fallthrough
	case "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable":
		s.Problem = forkProblem(d, fmt.Sprintf("image %q of container %s can't be pulled: %s", c.Image, c.Name, cmp.Or(pullError(w.Message), w.Reason)))
	case "CrashLoopBackOff":
		how := "ends as soon as it is started"
		if t := c.LastTerminationState.Terminated; t != nil {
			how = fmt.Sprintf("crashes: exit code %d", t.ExitCode)
			if t.Signal != 0 {
				how += fmt.Sprintf(", signal %d", t.Signal)
			}
			if t.Reason == "OOMKilled" {
				how += ", out of memory (OOMKilled)"
			}
		}
		s.Problem = forkProblem(d, fmt.Sprintf("container %s %s", c.Name, how))
		s.Problem.Say = fmt.Sprintf("its log is %q; to remove it", Quote(Kubectl("logs", "deployment/"+d.Name, "--container="+c.Name, "--previous")))
		s.Log = &LogRef{pod.Name, c.Name, true}
	default: // CreateContainerConfigError, CreateContainerError, RunContainerError, ...
		s.Problem = forkProblem(d, fmt.Sprintf("container %s can't be started: %s", c.Name, cmp.Or(firstLine(w.Message), w.Reason)))
	}
}

// forkProblem is a Problem of a fork whose mending is another image, env or cluster object that only its author knows.
func forkProblem(d *appsv1.Deployment, what string) *Problem {
	say := "mend that and fork again, or remove it"
	if d.Status.AvailableReplicas > 0 {
		say = "its pods of before go on serving; " + say
	}
	return &Problem{
		What: deployment(d.Name) + ": " + what,
		Say:  say,
		Fix:  Kubectl("sandbox", "delete", d.Labels[sandbox.LabelSandbox]),
	}
}

// pullError returns the part of the kubelet's message that tells why: what the registry or the runtime said.
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
	return message
}

// finalPullError says whether another try would end the same: the registry answered, and said no.
func finalPullError(message string) bool {
	for _, word := range []string{"not found", "NotFound", "manifest unknown", "unauthorized", "denied", "no match for platform", "forbidden"} {
		if strings.Contains(message, word) {
			return true
		}
	}
	return false
}

func unready(pod corev1.Pod) bool { return condition(&pod, corev1.PodReady) != corev1.ConditionTrue }

func condition(pod *corev1.Pod, t corev1.PodConditionType) corev1.ConditionStatus {
	for _, c := range pod.Status.Conditions {
		if c.Type == t {
			return c.Status
		}
	}
	return corev1.ConditionUnknown
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return s
}

// KeyHeader returns the name of the header that carries the key in this cluster, from the router of a fork's pod; the default
// name where no pod has one.
func KeyHeader(pods []corev1.Pod) string {
	for i := range pods {
		for _, c := range pods[i].Spec.InitContainers {
			for _, e := range c.Env {
				if c.Name == sandbox.RouterContainer && e.Name == sandbox.EnvRouterHeader && e.Value != "" {
					return e.Value
				}
			}
		}
	}
	return sandbox.DefaultHeader
}

// A RunningImage is what a container runs.
type RunningImage struct{ Container, Image, Digest string }

// RunningImages returns what the app containers of a pod run. Digest is empty where the runtime does not tell.
func RunningImages(pod *corev1.Pod) []RunningImage {
	var out []RunningImage
	for _, c := range pod.Spec.Containers {
		r := RunningImage{Container: c.Name, Image: c.Image}
		for _, s := range pod.Status.ContainerStatuses {
			if at := strings.LastIndex(s.ImageID, "sha256:"); s.Name == c.Name && at >= 0 {
				r.Digest = s.ImageID[at:]
			}
		}
		out = append(out, r)
	}
	return out
}

// LastWords returns, of the end of a crashed app's log, the few lines that tell most: the last ones, but for the stack that
// Go prints after a panic.
func LastWords(log []string) []string {
	const most = 5
	for i, line := range log {
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			log = log[:i+1]
			break
		}
	}
	return log[max(0, len(log)-most):]
}
