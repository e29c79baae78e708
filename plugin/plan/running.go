package plan

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// KeyHeader returns the name of the header that carries the key in this cluster, read from the router of a fork's
// pod; the default if no pod has one.
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

// RunningImages returns the images that the app containers of a pod run. Digest is empty if the runtime does not
// report it.
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

// LogTail returns the last lines of a crashed app's log that explain most, without the stack trace that Go prints
// after a panic.
func LogTail(log []string) []string {
	const most = 5
	for i, line := range log {
		if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
			log = log[:i+1]
			break
		}
	}
	return log[max(0, len(log)-most):]
}
