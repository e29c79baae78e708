package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	authv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// minVersion is the first Kubernetes version whose Services find named ports of native sidecars in every supported
// setting.
const minVersion = "1.33"

// baselineWebhook is the webhook for baselines in the MutatingWebhookConfiguration.
const baselineWebhook = "baseline.kubectl-sandbox.dev"

// Routing returns a Routing of workloads in the client's namespace.
func (c *Client) Routing(ctx context.Context, targets []*plan.Workload) (*Routing, error) {
	r := &Routing{client: c, targets: targets}
	r.fixed.NamespaceLabels = map[string]string{corev1.LabelMetadataName: c.Namespace}
	ns, err := c.Kube.CoreV1().Namespaces().Get(ctx, c.Namespace, metav1.GetOptions{})
	switch {
	case err == nil:
		r.fixed.NamespaceLabels = ns.Labels
	case apierrors.IsNotFound(err):
		return nil, &plan.Problem{
			What: fmt.Sprintf("namespace %q does not exist (--namespace, or the context's)", c.Namespace),
			Hint: "namespaces there are", Fix: plan.Kubectl("get", "namespaces"), Err: err,
		}
	case !apierrors.IsForbidden(err):
		return nil, Explain(err)
	}
	config, err := c.Kube.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, webhookConfiguration, metav1.GetOptions{})
	switch {
	case err == nil:
		for i := range config.Webhooks {
			r.guarded = config.Annotations[sandbox.AnnotationGuarded] != ""
			if w := &config.Webhooks[i]; w.Name == baselineWebhook && w.ClientConfig.Service != nil {
				r.webhook = w
				r.fixed.ControlNamespace = w.ClientConfig.Service.Namespace
			}
		}
	case apierrors.IsForbidden(err):
		r.unseen = true
	case !apierrors.IsNotFound(err):
		return nil, Explain(err)
	}
	return r, nil
}

// Routable returns a *plan.Problem if pods of the namespace can't get routers: Kubernetes is too old, there is no
// webhook, or it excludes the namespace.
func (r *Routing) Routable() error {
	v, err := r.client.Kube.Discovery().ServerVersion()
	if err != nil {
		return Explain(err)
	}
	if have, err := version.ParseGeneric(v.GitVersion); err == nil && have.LessThan(version.MustParseGeneric(minVersion)) {
		return &plan.Problem{
			What: fmt.Sprintf("this cluster runs Kubernetes %s: Services of versions before %s do not find the router's ports", v.GitVersion, minVersion),
			Hint: "other contexts", Fix: plan.Kubectl("config", "get-contexts"),
		}
	}
	switch {
	case r.unseen:
		return nil // the pods will show it
	case r.webhook == nil:
		return plan.NoWebhook()
	}
	selector := r.webhook.NamespaceSelector
	if s, err := metav1.LabelSelectorAsSelector(selector); err == nil && !s.Matches(labels.Set(r.fixed.NamespaceLabels)) {
		return &plan.Problem{
			What: fmt.Sprintf("admission leaves namespace %s alone (%s), so that no pod there gets a router", r.client.Namespace, metav1.FormatLabelSelector(selector)),
			Hint: "namespaces there are", Fix: plan.Kubectl("get", "namespaces"),
		}
	}
	return nil
}

// RouteView reads everything that routing the workloads depends on.
func (c *Client) RouteView(ctx context.Context, targets []*plan.Workload) (*routes.View, error) {
	r, err := c.Routing(ctx, targets)
	if err != nil {
		return nil, err
	}
	return r.View(ctx)
}

// ReadPolicies adds to the views what `route` can only warn of: NetworkPolicies of other namespaces, if the caller
// may read them, and custom kinds of policy.
func (r *Routing) ReadPolicies(ctx context.Context) error {
	elsewhere, err := r.client.Kube.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{})
	if err != nil && !apierrors.IsForbidden(err) {
		return Explain(err)
	}
	if err == nil {
		for i := range elsewhere.Items {
			if elsewhere.Items[i].Namespace != r.client.Namespace {
				r.fixed.PoliciesElsewhere = append(r.fixed.PoliciesElsewhere, &elsewhere.Items[i])
			}
		}
	}
	r.fixed.Unreadable, err = r.client.foreignPolicies(ctx)
	return Explain(err)
}

// View reads the namespace.
func (r *Routing) View(ctx context.Context) (*routes.View, error) {
	v := r.fixed
	v.Owners = map[types.UID]metav1.OwnerReference{}
	for _, t := range r.targets {
		object, err := r.client.Dynamic.Resource(t.GroupVersionResource()).Namespace(t.Namespace()).Get(ctx, t.Name(), metav1.GetOptions{})
		if err != nil {
			return nil, r.readError(ctx, err)
		}
		v.Targets = append(v.Targets, &plan.Workload{Object: object, Resource: t.Resource, TemplateAt: t.TemplateAt})
	}
	for _, resource := range []string{"deployments", "statefulsets", "daemonsets"} {
		gvr := appsv1.SchemeGroupVersion.WithResource(resource)
		objects, err := r.client.Dynamic.Resource(gvr).Namespace(r.client.Namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, r.readError(ctx, err)
		}
		for i := range objects.Items {
			w := &plan.Workload{Object: &objects.Items[i], Resource: gvr.GroupResource()}
			if !slices.ContainsFunc(v.Targets, func(t *plan.Workload) bool { return t.Object.GetUID() == w.Object.GetUID() }) {
				v.Others = append(v.Others, w)
			}
		}
	}
	sets, err := r.client.Kube.AppsV1().ReplicaSets(r.client.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, r.readError(ctx, err)
	}
	for i := range sets.Items {
		if owner := metav1.GetControllerOf(&sets.Items[i]); owner != nil {
			v.Owners[sets.Items[i].UID] = *owner
		}
	}
	services, err := r.client.Kube.CoreV1().Services(r.client.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, r.readError(ctx, err)
	}
	v.Services = pointers(services.Items)
	pods, err := r.client.Kube.CoreV1().Pods(r.client.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, r.readError(ctx, err)
	}
	v.Pods = pointers(pods.Items)
	policies, err := r.client.Kube.NetworkingV1().NetworkPolicies(r.client.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, r.readError(ctx, err)
	}
	v.Policies = pointers(policies.Items)
	return &v, nil
}

func (r *Routing) readError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx) // also when the API client gave up beforehand, seeing that the time would not suffice
	}
	return r.explain(ctx, err)
}

func pointers[T any](items []T) []*T {
	p := make([]*T, len(items))
	for i := range items {
		p[i] = &items[i]
	}
	return p
}

func podsResource() schema.GroupVersionResource {
	return corev1.SchemeGroupVersion.WithResource("pods")
}

// A Right is the right to apply a verb to all objects of a resource in a namespace.
type Right struct{ Verb, Group, Resource string }

// String returns "VERB RESOURCE.GROUP".
func (r Right) String() string {
	return r.Verb + " " + schema.GroupResource{Group: r.Group, Resource: r.Resource}.String()
}

// Missing returns the rights that the caller lacks in the client's namespace, according to the API server.
func (c *Client) Missing(ctx context.Context, needs []Right) []string {
	var missing []string
	for _, need := range needs {
		review, err := c.Kube.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authv1.SelfSubjectAccessReview{
			Spec: authv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authv1.ResourceAttributes{
				Namespace: c.Namespace, Verb: need.Verb, Group: need.Group, Resource: need.Resource,
			}},
		}, metav1.CreateOptions{})
		if err == nil && !review.Status.Allowed {
			missing = append(missing, need.String())
		}
	}
	return missing
}

// RoutableWorkloads reads every workload of the namespace that a Service has pods of and that can be routed. It also
// returns why the others are left out.
func (c *Client) RoutableWorkloads(ctx context.Context) ([]*plan.Workload, []string, error) {
	r, err := c.Routing(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	view, err := r.View(ctx)
	if err != nil {
		return nil, nil, err
	}
	workloads, args, left := routes.All(view)
	for _, arg := range args {
		more, err := c.Workloads(ctx, []string{arg}, "")
		var p *plan.Problem
		switch {
		case errors.As(err, &p):
			left = append(left, p.What)
		case err != nil:
			return nil, nil, err
		default:
			workloads, view.Others = append(workloads, more...), append(view.Others, more...)
		}
	}
	chosen, others := routes.Choose(view, workloads)
	return chosen, append(left, others...), nil
}

// Routes reads the forks of a namespace, or of all if it is empty, and their sandboxes.
func (c *Client) Routes(ctx context.Context, namespace string) ([]appsv1.Deployment, []corev1.ConfigMap, error) {
	forks, err := c.Kube.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{LabelSelector: sandbox.LabelRole + "=" + sandbox.RoleFork})
	if err != nil {
		return nil, nil, Explain(err)
	}
	sandboxes, err := c.Kube.CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{LabelSelector: sandbox.LabelRole + "=" + sandbox.RoleSandbox})
	if err != nil {
		return nil, nil, Explain(err)
	}
	return forks.Items, sandboxes.Items, nil
}
