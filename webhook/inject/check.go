package inject

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// reportPath is where a router writes its counts when it ends. The kubelet copies the file to the pod's status, and no
// other container can write it.
const reportPath = corev1.TerminationMessagePathDefault

// check gives a test's containers the sandbox's key, as stamp does. It also gives them loopback addresses in place of
// the Services under test: requests sent there carry the key. So a test that takes its target's address as a setting
// runs unchanged.
func check(pod *corev1.Pod, c Config) *Reason {
	id, reason := identify(pod)
	if reason != nil {
		return reason
	}
	services, err := sandbox.ParseServices(pod.Annotations[sandbox.AnnotationServices])
	if err != nil {
		return &Reason{ServicesMalformed, fmt.Sprintf("annotation %s: %v", sandbox.AnnotationServices, err)}
	}
	if done, reason := routed(pod); done || reason != nil {
		return reason
	}
	taken := declared(pod)
	take := func(want uint16) uint16 {
		port := free(want, taken)
		taken = append(taken, port)
		return port
	}
	outgoing := take(sandbox.OutgoingPort)
	forwards := make([]sandbox.Forward, len(services))
	for i, s := range services {
		forwards[i] = sandbox.Forward{Service: s, Listen: take(sandbox.OutgoingPort)}
	}
	proxied, reason := id.setEnv(pod, c, outgoing)
	if reason != nil {
		return reason
	}
	for i := range pod.Spec.Containers {
		app := environment{Container: &pod.Spec.Containers[i]}
		for j, f := range forwards {
			url := "http://" + loopback(f.Listen)
			if j == 0 {
				app.set(sandbox.EnvURL, url)
			}
			app.set(sandbox.URLEnv(f.Host), url)
		}
	}
	if proxied || len(forwards) > 0 {
		router := outbound(pod, c, id.key, loopback(outgoing), take(sandbox.AdminPort))
		router.Env = append(router.Env,
			corev1.EnvVar{Name: sandbox.EnvRouterForwards, Value: sandbox.FormatForwards(forwards)},
			corev1.EnvVar{Name: sandbox.EnvRouterReport, Value: reportPath},
		)
		router.TerminationMessagePath, router.TerminationMessagePolicy = reportPath, corev1.TerminationMessageReadFile
		// A test sends its first request at once, and may not retry it.
		router.Lifecycle = awaitReady()
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, router)
		pod.Spec.Volumes = append(pod.Spec.Volumes, state())
	}
	annotate(pod, c.Version)
	return nil
}
