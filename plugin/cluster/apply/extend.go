package apply

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// ApplyExtension writes the planned extension of a sandbox. If the ConfigMap is not the one that was read any more, the
// error is a conflict. With dryRun the API server does everything but store it.
func (c *Writer) ApplyExtension(
	ctx context.Context,
	s *sandboxes.Sandbox,
	e *sandboxes.Extension,
	dryRun bool,
) (*corev1.ConfigMap, error) {
	options := metav1.PatchOptions{FieldManager: sandbox.FieldManager}
	if dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	return c.Kube.CoreV1().ConfigMaps(s.Namespace).Patch(ctx, s.ConfigMap.Name, types.MergePatchType, e.Patch(), options)
}
