package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Bounds returns the minimum and maximum that the LimitRanges of a namespace set for each container. It reads a cache,
// so that a review makes no API call. Until the cache is synced there are no bounds, and a router gets its usual
// resources.
func Bounds(ctx context.Context, cache client.Reader, namespace string) (minimum, maximum corev1.ResourceList) {
	var ranges corev1.LimitRangeList
	if cache.List(ctx, &ranges, client.InNamespace(namespace)) != nil {
		return nil, nil
	}
	minimum, maximum = corev1.ResourceList{}, corev1.ResourceList{}
	for _, r := range ranges.Items {
		for _, item := range r.Spec.Limits {
			if item.Type != corev1.LimitTypeContainer {
				continue
			}
			for name, least := range item.Min {
				if known, ok := minimum[name]; !ok || known.Cmp(least) < 0 {
					minimum[name] = least
				}
			}
			for name, most := range item.Max {
				if known, ok := maximum[name]; !ok || known.Cmp(most) > 0 {
					maximum[name] = most
				}
			}
		}
	}
	return minimum, maximum
}
