package server

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/lifecycle"
)

// resources maps the kinds that this program uses to their resources. Every Kubernetes has them, so discovery is not
// needed: a replica that starts while the API server is unavailable waits for it instead of exiting. The options list
// the other kinds that forks may follow.
func (o *Options) resources(*rest.Config, *http.Client) (meta.RESTMapper, error) {
	m := meta.NewDefaultRESTMapper(nil)
	// A mapper from discovery knows the list of each kind as well (client-go's restmapper), and caches of several
	// namespaces need it.
	add := func(kind schema.GroupVersionKind, plural string, scope meta.RESTScope) {
		singular := kind.GroupVersion().WithResource(strings.ToLower(kind.Kind))
		resource := kind.GroupVersion().WithResource(plural)
		if plural == "" {
			resource, singular = meta.UnsafeGuessKindToResource(kind)
		}
		m.AddSpecific(kind.GroupVersion().WithKind(kind.Kind+"List"), resource, singular, scope)
		m.AddSpecific(kind, resource, singular, scope) // last: the resource's own kind
	}
	for _, kind := range []string{"ConfigMap", "LimitRange", "Pod", "Secret", "Service"} {
		add(corev1.SchemeGroupVersion.WithKind(kind), "", meta.RESTScopeNamespace)
	}
	for _, kind := range lifecycle.BuiltInKinds() {
		add(kind, "", meta.RESTScopeNamespace)
	}
	for _, kind := range o.followKinds() {
		add(kind, o.FollowKinds[kindArg(kind)], meta.RESTScopeNamespace)
	}
	add(corev1.SchemeGroupVersion.WithKind("Namespace"), "", meta.RESTScopeRoot)
	add(networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"), "", meta.RESTScopeNamespace)
	add(coordinationv1.SchemeGroupVersion.WithKind("Lease"), "", meta.RESTScopeNamespace)
	add(authenticationv1.SchemeGroupVersion.WithKind("TokenReview"), "", meta.RESTScopeRoot)
	add(authorizationv1.SchemeGroupVersion.WithKind("SubjectAccessReview"), "", meta.RESTScopeRoot)
	add(admissionv1.SchemeGroupVersion.WithKind("MutatingWebhookConfiguration"), "", meta.RESTScopeRoot)
	return m, nil
}

// followKinds returns the kinds of --follow-kinds, sorted by name. The options must be valid.
func (o *Options) followKinds() []schema.GroupVersionKind {
	var kinds []schema.GroupVersionKind
	for _, arg := range slices.Sorted(maps.Keys(o.FollowKinds)) {
		if kind, _ := schema.ParseKindArg(arg); kind != nil {
			kinds = append(kinds, *kind)
		}
	}
	return kinds
}

// kindArg formats a kind as in --follow-kinds.
func kindArg(kind schema.GroupVersionKind) string {
	return kind.Kind + "." + kind.Version + "." + kind.Group
}
