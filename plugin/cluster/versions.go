package cluster

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// labelVersion is the recommended label in which the chart states its version.
const labelVersion = "app.kubernetes.io/version"

// Versions are the versions of what runs in a cluster.
type Versions struct {
	Webhook        string                    `json:"webhookVersion,omitempty"` // empty: not installed, or unknown
	WebhookUnknown string                    `json:"webhookUnknown,omitempty"` // why it is not known
	Routers        []sandboxes.RouterVersion `json:"routers,omitempty"`
}

// Versions reads the webhook's version, and those of the routers in the namespace, or in all if it is empty.
func (c *Client) Versions(ctx context.Context, namespace string) (*Versions, error) {
	v := &Versions{}
	var pods *corev1.PodList
	err := inParallel(
		func() error {
			config, err := c.Kube.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, webhookConfiguration, metav1.GetOptions{})
			switch {
			case apierrors.IsForbidden(err):
				v.WebhookUnknown = "you may not read mutatingwebhookconfigurations"
			case apierrors.IsNotFound(err):
			case err != nil:
				return err
			default:
				if v.Webhook = config.Labels[labelVersion]; v.Webhook == "" {
					v.WebhookUnknown = "its configuration has no label " + labelVersion
				}
			}
			return nil
		},
		func() (err error) {
			pods, err = c.Kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: sandbox.LabelRole})
			return err
		},
	)
	if err != nil {
		return nil, Explain(err)
	}
	v.Routers = sandboxes.RouterVersions(pods.Items)
	return v, nil
}
