package inject

import (
	"encoding/json"
	"fmt"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
)

// Patch returns the RFC 6902 patch from before to after. It is made from what this program knows of both, and touches nothing
// else of the object that it is applied to: comparing that object itself with after would remove every field that is
// newer than this program. That works because Pod adds to lists only at their end, so positions stay what they are.
func Patch(before, after *corev1.Pod) ([]jsonpatch.Operation, error) {
	a, err := json.Marshal(before)
	if err != nil {
		return nil, fmt.Errorf("encode pod: %w", err)
	}
	b, err := json.Marshal(after)
	if err != nil {
		return nil, fmt.Errorf("encode pod: %w", err)
	}
	patch, err := jsonpatch.CreatePatch(a, b)
	if err != nil {
		return nil, fmt.Errorf("compare pods: %w", err)
	}
	return patch, nil
}
