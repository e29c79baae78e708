package read

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// An installation is what the MutatingWebhookConfiguration states about the webhook.
type installation struct {
	missing bool // it is known to be not installed; where the caller may not look, that is not known
	// defaultTTL is the lifetime of a sandbox without --ttl; 0 means forever, nil not stated.
	defaultTTL *time.Duration
}

func (c *Reader) installation(ctx context.Context) (installation, error) {
	config, err := c.Kube.AdmissionregistrationV1().
		MutatingWebhookConfigurations().
		Get(ctx, cluster.WebhookConfiguration, metav1.GetOptions{})
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

// DefaultTTL returns the cluster's lifetime of a sandbox without --ttl; 0 means forever, nil unknown.
func (c *Reader) DefaultTTL(ctx context.Context) (*time.Duration, error) {
	installed, err := c.installation(ctx)
	return installed.defaultTTL, cluster.Explain(err)
}

// Gateway returns the domain of the cluster's gateway; empty if there is none, or the caller may not read it.
func (c *Reader) Gateway(ctx context.Context) (string, error) {
	config, err := c.Kube.AdmissionregistrationV1().
		MutatingWebhookConfigurations().
		Get(ctx, cluster.WebhookConfiguration, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return "", nil
	}
	if err != nil {
		return "", cluster.Explain(err)
	}
	return config.Annotations[sandbox.AnnotationGateway], nil
}
