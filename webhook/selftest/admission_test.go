package selftest

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/inject"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func TestAdmittedAs_TellsAnInjectedPodFromOneThatIsNot(t *testing.T) {
	config := inject.Config{Version: "v1", Image: "router", Header: "x-sandbox-key", Member: "sandbox-key"}
	for role, pod := range map[string]*corev1.Pod{sandbox.RoleBaseline: baselineProbe(), sandbox.RoleFork: forkProbe()} {
		if err := admittedAs(role, pod); err == nil || !strings.Contains(err.Error(), "did not get an answer") {
			t.Errorf("%s as it was sent: got %v", role, err)
		}
		injected, reason := inject.Pod(pod, config)
		if reason != nil {
			t.Fatalf("%s: %v", role, reason)
		}
		if err := admittedAs(role, injected); err != nil {
			t.Errorf("%s, injected: %v", role, err)
		}
		for what, spoil := range map[string]func(*corev1.Pod){
			"declined":                       func(p *corev1.Pod) { p.Annotations[sandbox.AnnotationInjected] = "declined: host-network" },
			sandbox.RouterContainer:          func(p *corev1.Pod) { p.Spec.InitContainers = nil },
			"needs a gate where it's a fork": func(p *corev1.Pod) { p.Spec.ReadinessGates = nil },
		} {
			spoilt := injected.DeepCopy()
			spoil(spoilt)
			if err := admittedAs(role, spoilt); (err == nil) != (role == sandbox.RoleBaseline && strings.HasPrefix(what, "needs")) {
				t.Errorf("%s, %s: got %v", role, what, err)
			}
		}
	}
}
