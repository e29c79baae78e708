package admission

import (
	"fmt"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// megabyte makes a pod of about 1 MB: most of it variables, as in the largest pods that there are.
func megabyte(p *corev1.Pod) {
	c := &p.Spec.Containers[0]
	for i := range 4000 {
		c.Env = append(c.Env, corev1.EnvVar{Name: fmt.Sprintf("VARIABLE_%d", i), Value: strings.Repeat("x", 200)})
	}
	for i := range 20 {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: fmt.Sprintf("side-%d", i), Args: []string{strings.Repeat("y", 5000)}})
	}
}

// BenchmarkPods_OfAMegabyte tells by B/op what the review of a large pod allocates, besides its body.
func BenchmarkPods_OfAMegabyte(b *testing.B) {
	for _, role := range []string{"baseline", "fork"} {
		b.Run(role, func(b *testing.B) {
			a, err := NewPods("own", testConfig, prometheus.NewRegistry(), logr.Discard())
			if err != nil {
				b.Fatal(err)
			}
			req := admission.Request{AdmissionRequest: *creation(b, func(p *corev1.Pod) {
				megabyte(p)
				p.Labels["kubectl-sandbox.dev/role"] = role
			})}
			req.DryRun = ptr.To(true)
			b.SetBytes(int64(len(req.Object.Raw)))
			b.ReportAllocs()
			for b.Loop() {
				if r := a.Handle(b.Context(), req); !r.Allowed || len(r.Patches) == 0 || len(r.Warnings) > 0 {
					b.Fatalf("got %+v", r)
				}
			}
		})
	}
}
