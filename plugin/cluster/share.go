package cluster

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// Gateway returns the domain of the cluster's gateway; empty if there is none, or the caller may not read it.
func (c *Client) Gateway(ctx context.Context) (string, error) {
	config, err := c.Kube.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, webhookConfiguration, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return "", nil
	}
	if err != nil {
		return "", Explain(err)
	}
	return config.Annotations[sandbox.AnnotationGateway], nil
}

// A Shared is a preview that was shared.
type Shared struct {
	URL     string
	Service string
	Expires time.Time
}

// Share lets whoever has the token enter a sandbox of the client's namespace through a Service, until expires. If
// service is empty, it is the one that Entry finds.
func (c *Client) Share(ctx context.Context, name, service, token string, expires time.Time) (*Shared, error) {
	var domain, by string
	var cm *corev1.ConfigMap
	var services *corev1.ServiceList
	err := inParallel(
		func() (err error) { domain, err = c.Gateway(ctx); return err },
		func() (err error) { cm, err = c.sandboxConfigMap(ctx, name); return err },
		func() (err error) {
			services, err = c.Kube.CoreV1().Services(c.Namespace).List(ctx, metav1.ListOptions{})
			return err
		},
		func() error { by = c.user(ctx); return nil },
	)
	switch {
	case err != nil:
		return nil, Explain(err)
	case cm == nil || cm.Labels[sandbox.LabelRole] != sandbox.RoleSandbox || cm.Labels[sandbox.LabelSandbox] != name:
		return nil, plan.NoSandbox(name, c.Namespace)
	case domain == "":
		return nil, sandboxes.NoGateway()
	}
	if service == "" {
		entry, err := c.Entry(ctx, plan.Kubectl("sandbox", "share", name))
		if err != nil {
			return nil, err
		}
		service = entry.Service.Name
	} else if err := c.serviceExists(ctx, service, services.Items); err != nil {
		return nil, err
	}
	if _, err := c.Kube.CoreV1().ConfigMaps(c.Namespace).Create(ctx, sandboxes.NewShare(cm, token, service, by, expires), metav1.CreateOptions{FieldManager: sandbox.FieldManager}); err != nil {
		return nil, Explain(err)
	}
	return &Shared{URL: sandboxes.PreviewURL(domain, service, name, c.Namespace), Service: service, Expires: expires}, nil
}

// serviceExists returns an error if a Service does not exist or, in another namespace, does not let sandboxes of this
// one in. If the caller may not read it, the gateway decides later.
func (c *Client) serviceExists(ctx context.Context, service string, own []corev1.Service) error {
	name, namespace, other := strings.Cut(service, ".")
	if !other {
		for i := range own {
			if own[i].Name == name {
				return nil
			}
		}
		return &plan.Problem{What: fmt.Sprintf("service %q not found in namespace %q", name, c.Namespace), Hint: "list what exists", Fix: plan.Kubectl("get", "services")}
	}
	ns, err := c.Kube.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	switch {
	case apierrors.IsForbidden(err):
		return nil
	case err != nil:
		return Explain(err)
	case ns.Labels[sandbox.LabelEntry] != sandbox.EntryAllowed:
		return &plan.Problem{What: fmt.Sprintf("namespace %q does not let sandboxes of other namespaces be entered by its Services", namespace),
			Hint: "whoever owns it can", Fix: plan.Kubectl("label", "namespace", namespace, sandbox.LabelEntry+"="+sandbox.EntryAllowed)}
	}
	_, err = c.Kube.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsForbidden(err) {
		return nil
	}
	return Explain(err)
}

// Revoke deletes the shares of a sandbox of the client's namespace, or only those for service if that is not empty,
// and returns their number. Browsers that signed in with one are signed out.
func (c *Client) Revoke(ctx context.Context, name, service string) (int, error) {
	api := c.Kube.CoreV1().ConfigMaps(c.Namespace)
	list, err := api.List(ctx, metav1.ListOptions{LabelSelector: sandbox.LabelRole + "=" + sandbox.RoleShare + "," + sandbox.LabelSandbox + "=" + name})
	if err != nil {
		return 0, Explain(err)
	}
	if len(list.Items) == 0 { // shares go with their sandbox
		cm, err := c.sandboxConfigMap(ctx, name)
		if err == nil && !isSandbox(cm, name) {
			err = plan.NoSandbox(name, c.Namespace)
		}
		if err != nil {
			return 0, Explain(err)
		}
	}
	n := 0
	for _, cm := range sandboxes.SharesOf(list.Items, service) {
		if err := api.Delete(ctx, cm.Name, deleteOptions(cm.UID, false)); err != nil && !apierrors.IsNotFound(err) {
			return n, Explain(err)
		}
		n++
	}
	return n, nil
}
