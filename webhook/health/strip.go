package health

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// StripSpec returns the fields of a pod's spec that this package reads, for caches of many pods.
func StripSpec(s *corev1.PodSpec) corev1.PodSpec {
	kept := corev1.PodSpec{RestartPolicy: s.RestartPolicy, ReadinessGates: s.ReadinessGates, SchedulingGates: s.SchedulingGates}
	for i := range s.InitContainers {
		kept.InitContainers = append(kept.InitContainers, stripContainer(&s.InitContainers[i]))
	}
	for i := range s.Containers {
		kept.Containers = append(kept.Containers, stripContainer(&s.Containers[i]))
	}
	return kept
}

func stripContainer(c *corev1.Container) corev1.Container {
	if c.Name == sandbox.RouterContainer {
		return corev1.Container{Name: c.Name}
	}
	kept := corev1.Container{
		Name: c.Name, Image: c.Image, Ports: c.Ports, RestartPolicy: c.RestartPolicy, ReadinessProbe: c.ReadinessProbe, StartupProbe: c.StartupProbe,
	}
	if limit, ok := c.Resources.Limits[corev1.ResourceMemory]; ok {
		kept.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: limit}
	}
	return kept
}

// StripStatus returns the fields of a pod's status that this package reads.
func StripStatus(s *corev1.PodStatus) corev1.PodStatus {
	return corev1.PodStatus{
		Phase: s.Phase, Reason: s.Reason, Message: s.Message, PodIP: s.PodIP, Conditions: s.Conditions,
		InitContainerStatuses: stripStatuses(s.InitContainerStatuses), ContainerStatuses: stripStatuses(s.ContainerStatuses),
	}
}

func stripStatuses(statuses []corev1.ContainerStatus) []corev1.ContainerStatus {
	kept := make([]corev1.ContainerStatus, len(statuses))
	for i := range statuses {
		s := &statuses[i]
		kept[i] = corev1.ContainerStatus{
			Name: s.Name, Ready: s.Ready, Started: s.Started, Image: s.Image, State: s.State, LastTerminationState: s.LastTerminationState,
		}
	}
	return kept
}
