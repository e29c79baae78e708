package server

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/lifecycle"
)

// resources maps the kinds that this program uses to their resources. They are part of every Kubernetes, so there is no need to
// discover them: a replica that starts while the API server is away waits for it, instead of ending. Those of other kinds that forks
// may follow are given.
func (o *Options) resources(*rest.Config, *http.Client) (meta.RESTMapper, error) {
	m := meta.NewDefaultRESTMapper(nil)
	for _, kind := range []string{"ConfigMap", "LimitRange", "Pod", "Secret", "Service"} {
		m.Add(corev1.SchemeGroupVersion.WithKind(kind), meta.RESTScopeNamespace)
	}
	for _, kind := range lifecycle.BuiltInKinds() {
		m.Add(kind, meta.RESTScopeNamespace)
	}
	for _, kind := range o.followKinds() {
		plural := kind.GroupVersion().WithResource(o.FollowKinds[kindArg(kind)])
		m.AddSpecific(kind, plural, kind.GroupVersion().WithResource(strings.ToLower(kind.Kind)), meta.RESTScopeNamespace)
	}
	m.Add(corev1.SchemeGroupVersion.WithKind("Namespace"), meta.RESTScopeRoot)
	m.Add(networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"), meta.RESTScopeNamespace)
	m.Add(coordinationv1.SchemeGroupVersion.WithKind("Lease"), meta.RESTScopeNamespace)
	m.Add(authenticationv1.SchemeGroupVersion.WithKind("TokenReview"), meta.RESTScopeRoot)
	m.Add(admissionv1.SchemeGroupVersion.WithKind("MutatingWebhookConfiguration"), meta.RESTScopeRoot)
	return m, nil
}

// followKinds returns the kinds of --follow-kinds, in the order of their names. The options are valid.
func (o *Options) followKinds() []schema.GroupVersionKind {
	var kinds []schema.GroupVersionKind
	for _, arg := range slices.Sorted(maps.Keys(o.FollowKinds)) {
		if kind, _ := schema.ParseKindArg(arg); kind != nil {
			kinds = append(kinds, *kind)
		}
	}
	return kinds
}

// kindArg writes a kind as --follow-kinds has it.
func kindArg(kind schema.GroupVersionKind) string {
	return kind.Kind + "." + kind.Version + "." + kind.Group
}
