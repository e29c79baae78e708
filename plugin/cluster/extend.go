package cluster

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// DefaultTTL returns the cluster's lifetime of a sandbox without --ttl; 0 means forever, nil unknown.
func (c *Client) DefaultTTL(ctx context.Context) (*time.Duration, error) {
	installed, err := c.installation(ctx)
	return installed.defaultTTL, Explain(err)
}

// maxExtensions bounds how often an extension is planned again because the ConfigMap changed in between.
const maxExtensions = 5

// Extend writes the extension that extend plans for the sandbox. If the sandbox has changed since it was read, Extend
// reads it again. With dryRun the API server does everything but store it.
func (c *Client) Extend(ctx context.Context, s *sandboxes.Sandbox, dryRun bool, extend func(*sandboxes.Sandbox) (*sandboxes.Extension, error)) (*sandboxes.Extension, *corev1.ConfigMap, error) {
	options := metav1.PatchOptions{FieldManager: sandbox.FieldManager}
	if dryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	api := c.Kube.CoreV1().ConfigMaps(s.Namespace)
	for try := 1; ; try++ {
		e, err := extend(s)
		if err != nil {
			return nil, nil, err
		}
		if e.Unchanged {
			return e, e.Extended(), nil
		}
		cm, err := api.Patch(ctx, s.ConfigMap.Name, types.MergePatchType, e.Patch(), options)
		if err == nil {
			return e, cm, nil
		}
		if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) || try == maxExtensions {
			return nil, nil, Explain(err)
		}
		found, _, err := c.SandboxesNamed(ctx, []string{s.Name})
		if err != nil {
			return nil, nil, err
		}
		if len(found) == 0 || found[0].ConfigMap == nil || found[0].ConfigMap.UID != s.ConfigMap.UID {
			return nil, nil, plan.NoSandbox(s.Name, s.Namespace)
		}
		s = &found[0]
	}
}
