package admission

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
)

func TestBounds_AreTheNarrowestOfTheNamespace(t *testing.T) {
	limits := func(namespace, name string, kind corev1.LimitType, least, most string) *corev1.LimitRange {
		return &corev1.LimitRange{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
				Type: kind,
				Min:  corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(least)},
				Max:  corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(most)},
			}}},
		}
	}
	c := fake.NewClientBuilder().WithObjects(
		limits("team", "a", corev1.LimitTypeContainer, "10m", "2"),
		limits("team", "b", corev1.LimitTypeContainer, "50m", "1"),
		limits("team", "c", corev1.LimitTypePod, "500m", "600m"),
		limits("other", "d", corev1.LimitTypeContainer, "900m", "900m"),
	).Build()
	least, most := Bounds(t.Context(), c, "team")
	if least.Cpu().String() != "50m" || most.Cpu().String() != "1" {
		t.Errorf("got %s and %s, want 50m and 1", least.Cpu(), most.Cpu())
	}
	if least, most = Bounds(t.Context(), c, "none"); len(least) != 0 || len(most) != 0 {
		t.Errorf("got %v and %v of a namespace without", least, most)
	}
}
