package admission

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// ReviewedRights returns Rights that create a SubjectAccessReview for the verb fork, as the chart's policies do.
func ReviewedRights(api client.Writer) Rights {
	return func(ctx context.Context, namespace string, user authenticationv1.UserInfo) (bool, error) {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: user.Username, Groups: user.Groups, UID: user.UID, Extra: map[string]authorizationv1.ExtraValue{},
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: namespace, Verb: sandbox.VerbFork,
				Group: sandbox.RightGroup, Resource: sandbox.RightResource,
			},
		}}
		for key, value := range user.Extra {
			review.Spec.Extra[key] = authorizationv1.ExtraValue(value)
		}
		if err := api.Create(ctx, review); err != nil {
			return false, fmt.Errorf("ask whether user %q may fork in namespace %s: %w", user.Username, namespace, err)
		}
		return review.Status.Allowed, nil
	}
}

// AnybodysRights are the Rights without policies: whoever may create a ConfigMap may create a sandbox.
func AnybodysRights(context.Context, string, authenticationv1.UserInfo) (bool, error) {
	return true, nil
}
