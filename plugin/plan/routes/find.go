package routes

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func podReady(pod *corev1.Pod) bool { return condition(pod, corev1.PodReady) == corev1.ConditionTrue }

// templatePod returns a pod of the template, for plan.FindPort.
func templatePod(t *corev1.PodTemplateSpec) *corev1.Pod {
	pod := &corev1.Pod{Spec: *t.Spec.DeepCopy()}
	for _, c := range plan.ServingContainers(pod) {
		for i := range c.Ports {
			c.Ports[i].Protocol = plan.Protocol(c.Ports[i].Protocol)
		}
	}
	return pod
}

// appView returns the pod with the numbers of its router's ports replaced by those of the app's ports that they stand
// for.
func appView(pod *corev1.Pod) *corev1.Pod {
	r := router(pod)
	if r == nil {
		return pod
	}
	var captures []sandbox.Capture
	for _, env := range r.Env {
		if env.Name == sandbox.EnvRouterPorts {
			captures, _ = sandbox.ParseCaptures(env.Value) // none: the names then resolve to ports that fit nothing
		}
	}
	pod = pod.DeepCopy()
	r = router(pod)
	for i := range r.Ports {
		for _, c := range captures {
			if r.Ports[i].ContainerPort == int32(c.Listen) {
				r.Ports[i].ContainerPort = int32(c.Number)
			}
		}
	}
	return pod
}

func router(pod *corev1.Pod) *corev1.Container {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == sandbox.RouterContainer {
			return &pod.Spec.InitContainers[i]
		}
	}
	return nil
}

// namesOf returns the names that resolve to number.
func namesOf(pod *corev1.Pod, number uint16) []string {
	var names []string
	for _, c := range plan.ServingContainers(pod) {
		for _, p := range c.Ports {
			if p.Name == "" || p.ContainerPort != int32(number) || slices.Contains(names, p.Name) {
				continue
			}
			if n, ok := plan.FindPort(pod, p.Name); ok && n == number {
				names = append(names, p.Name)
			}
		}
	}
	return names
}

// containersNaming returns the containers that give a TCP port this name. If there are several, Services use only the
// first, and admission does not change the pod.
func containersNaming(pod *corev1.Pod, name string) []string {
	var containers []string
	for _, c := range plan.ServingContainers(pod) {
		if slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == name && p.Protocol == corev1.ProtocolTCP }) {
			containers = append(containers, c.Name)
		}
	}
	return containers
}

// nameTaken reports whether a port of any protocol has this name: a container may not use it twice.
func nameTaken(pod *corev1.Pod, name string) bool {
	return slices.ContainsFunc(plan.ServingContainers(pod), func(c *corev1.Container) bool {
		return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == name })
	})
}

func condition(pod *corev1.Pod, t corev1.PodConditionType) corev1.ConditionStatus {
	for _, c := range pod.Status.Conditions {
		if c.Type == t {
			return c.Status
		}
	}
	return corev1.ConditionUnknown
}
