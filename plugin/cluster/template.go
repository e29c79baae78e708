package cluster

import (
	"context"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork/env"
)

// envSources reads the objects from which containers take variables by envFrom. The values of Secrets are discarded
// at once.
func (c *Client) envSources(ctx context.Context, refs []string) (forks.EnvSources, error) {
	var mu sync.Mutex
	found := forks.EnvSources{}
	var reads []func() error
	for _, ref := range refs {
		reads = append(reads, func() error {
			o, err := c.envSource(ctx, ref)
			switch {
			case apierrors.IsNotFound(err):
				return nil
			case apierrors.IsForbidden(err):
				o = env.Object{Unread: true}
			case err != nil:
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			found[ref] = o
			return nil
		})
	}
	return found, inParallel(reads...)
}

func (c *Client) envSource(ctx context.Context, ref string) (env.Object, error) {
	if name, ok := strings.CutPrefix(ref, "configmap/"); ok {
		cm, err := c.Kube.CoreV1().ConfigMaps(c.Namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return env.Object{}, err
		}
		return env.Object{Data: cm.Data}, nil
	}
	secret, err := c.Kube.CoreV1().Secrets(c.Namespace).Get(ctx, strings.TrimPrefix(ref, "secret/"), metav1.GetOptions{})
	if err != nil {
		return env.Object{}, err
	}
	names := make(map[string]string, len(secret.Data))
	for key := range secret.Data {
		names[key] = ""
	}
	return env.Object{Data: names, NamesOnly: true}, nil
}

// admission reads the mutating webhooks that change pods on creation, except our own.
func (c *Client) admission(ctx context.Context) (forks.Admission, error) {
	list, err := c.Kube.AdmissionregistrationV1().MutatingWebhookConfigurations().List(ctx, metav1.ListOptions{})
	if apierrors.IsForbidden(err) {
		return forks.Admission{Unread: true}, nil
	}
	if err != nil {
		return forks.Admission{}, err
	}
	var a forks.Admission
	for i := range list.Items {
		if list.Items[i].Name != webhookConfiguration {
			a.Webhooks = append(a.Webhooks, list.Items[i].Webhooks...)
		}
	}
	return a, nil
}
