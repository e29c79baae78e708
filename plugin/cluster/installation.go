package cluster

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// An installation is what the MutatingWebhookConfiguration states about the webhook.
type installation struct {
	missing bool // it is known to be not installed; where the caller may not look, that is not known
	// defaultTTL is the lifetime of a sandbox without --ttl; 0 means forever, nil not stated.
	defaultTTL *time.Duration
}

// markRight returns the right to mark baselines, which the chart's policies require.
func markRight() Right {
	return Right{Verb: sandbox.VerbRoute, Group: sandbox.RightGroup, Resource: sandbox.RightResource}
}

// MayRoute returns a *plan.Problem if the cluster requires the right to mark baselines and the caller lacks it, so
// that `route` does not fail halfway.
func (r *Routing) MayRoute(ctx context.Context) error {
	if !r.guarded || len(r.client.Missing(ctx, []Right{markRight()})) == 0 {
		return nil
	}
	return plan.MayNotRoute(r.client.user(ctx), r.client.Namespace, r.missing(ctx))
}

func (c *Client) installation(ctx context.Context) (installation, error) {
	config, err := c.Kube.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, webhookConfiguration, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return installation{missing: true}, nil
	case apierrors.IsForbidden(err):
		return installation{}, nil
	case err != nil:
		return installation{}, err
	}
	if ttl, err := time.ParseDuration(config.Annotations[sandbox.AnnotationDefaultTTL]); err == nil && ttl >= 0 {
		return installation{defaultTTL: &ttl}, nil
	}
	return installation{}, nil // of an older version
}
