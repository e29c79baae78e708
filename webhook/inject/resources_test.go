package inject

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"pgregory.net/rapid"
)

func TestResources_FitTheNamespaceThatThePodFits(t *testing.T) {
	const cpu, memory = corev1.ResourceCPU, corev1.ResourceMemory
	q := resource.MustParse
	list := func(pairs ...any) corev1.ResourceList {
		l := corev1.ResourceList{}
		for i := 0; i < len(pairs); i += 2 {
			l[pairs[i].(corev1.ResourceName)] = q(pairs[i+1].(string))
		}
		return l
	}
	type container = corev1.ResourceRequirements
	for _, tt := range []struct {
		name       string
		containers []container
		minimum    corev1.ResourceList
		maximum    corev1.ResourceList
		want       string
	}{
		{"best effort", []container{{}}, nil, nil, "10m/- 32Mi/-"},
		{"one without a limit", []container{{Limits: list(cpu, "1", memory, "1Gi")}, {}}, nil, nil, "10m/- 32Mi/-"},
		{"a limit of one kind", []container{{Limits: list(memory, "1Gi"), Requests: list(memory, "1Mi")}}, nil, nil, "10m/- 32Mi/128Mi"},
		{"guaranteed", []container{{Limits: list(cpu, "1", memory, "1Gi")}, {Limits: list(cpu, "2", memory, "1Gi"), Requests: list(cpu, "2", memory, "1024Mi")}}, nil, nil,
			"200m/200m 128Mi/128Mi"},
		{"ratio of four", []container{{Limits: list(cpu, "1", memory, "1Gi"), Requests: list(cpu, "250m", memory, "512Mi")}, {Limits: list(cpu, "1", memory, "1Gi")}}, nil, nil,
			"50m/200m 64Mi/128Mi"},
		{"ratio rounded up", []container{{Limits: list(cpu, "3", memory, "3"), Requests: list(cpu, "1", memory, "1")}}, nil, nil, "67m/200m 44739243/128Mi"},
		{"request of nothing", []container{{Limits: list(cpu, "1", memory, "1Gi"), Requests: list(cpu, "0", memory, "0")}}, nil, nil, "10m/200m 32Mi/128Mi"},
		{"huge", []container{{Limits: list(cpu, "1000", memory, "100Ti"), Requests: list(cpu, "999", memory, "50Ti")}}, nil, nil, "200m/200m 64Mi/128Mi"},
		{"minimum", []container{{}}, list(cpu, "50m", memory, "16Mi"), nil, "50m/- 32Mi/-"},
		{"minimum above the limit", []container{{Limits: list(cpu, "1", memory, "1Gi"), Requests: list(cpu, "500m", memory, "1Mi")}}, list(cpu, "300m"), nil, "300m/300m 32Mi/128Mi"},
		{"maximum", []container{{Limits: list(cpu, "1", memory, "16Mi"), Requests: list(cpu, "1m", memory, "1Mi")}}, nil, list(cpu, "100m", memory, "16Mi"),
			"10m/100m 16Mi/16Mi"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			pod := &corev1.Pod{}
			for _, c := range tt.containers {
				pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Resources: c})
			}
			c := config()
			c.Minimum, c.Maximum = tt.minimum, tt.maximum
			r := resources(pod, c)
			show := func(name corev1.ResourceName) string {
				request, limit := r.Requests[name], "-"
				if l, ok := r.Limits[name]; ok {
					limit = l.String()
				}
				return request.String() + "/" + limit
			}
			if got := show(cpu) + " " + show(memory); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// Whatever bound on the ratio the pod's own containers keep, the router keeps, and the namespace's minimum and maximum.
func TestResources_BreakNoBoundThatTheAppKeeps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pod := &corev1.Pod{}
		ratio := 1.0
		for range rapid.IntRange(1, 3).Draw(t, "containers") {
			limit := rapid.Int64Range(1, 1<<45).Draw(t, "limit")
			request := rapid.Int64Range(1, limit).Draw(t, "request")
			ratio = max(ratio, float64(limit)/float64(request))
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Resources: corev1.ResourceRequirements{
				Limits:   corev1.ResourceList{corev1.ResourceMemory: *resource.NewQuantity(limit, resource.BinarySI)},
				Requests: corev1.ResourceList{corev1.ResourceMemory: *resource.NewQuantity(request, resource.BinarySI)},
			}})
		}
		least := rapid.Int64Range(1, 1<<30).Draw(t, "minimum")
		most := rapid.Int64Range(least, 1<<31).Draw(t, "maximum")
		c := config()
		c.Maximum = corev1.ResourceList{corev1.ResourceMemory: *resource.NewQuantity(most, resource.BinarySI)}
		c.Minimum = corev1.ResourceList{corev1.ResourceMemory: *resource.NewQuantity(least, resource.BinarySI)}
		r := resources(pod, c)
		limit, request := r.Limits.Memory().Value(), r.Requests.Memory().Value()
		describe := fmt.Sprintf("request %d, limit %d, ratio %v", request, limit, ratio)
		if request <= 0 || request > limit {
			t.Fatal(describe)
		}
		if float64(limit)/float64(request) > ratio {
			t.Fatal(describe)
		}
		if request < least || limit > most {
			t.Fatal(describe)
		}
	})
}
