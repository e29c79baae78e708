package routing

import (
	"context"

	authv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A Right is the right to apply a verb to all objects of a resource in a namespace.
type Right struct{ Verb, Group, Resource string }

// String returns "VERB RESOURCE.GROUP".
func (r Right) String() string {
	return r.Verb + " " + schema.GroupResource{Group: r.Group, Resource: r.Resource}.String()
}

// lacking returns the rights that the caller lacks in the client's namespace, according to the API server.
func lacking(ctx context.Context, c *cluster.Client, needs []Right) []string {
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

// markRight returns the right to mark baselines, which the chart's policies require.
func markRight() Right {
	return Right{Verb: sandbox.VerbRoute, Group: sandbox.RightGroup, Resource: sandbox.RightResource}
}

// MayRoute returns a *plan.Problem if the cluster requires the right to mark baselines and the caller lacks it, so
// that `route` does not fail halfway.
func (r *Routing) MayRoute(ctx context.Context) error {
	if !r.guarded || len(lacking(ctx, r.client, []Right{markRight()})) == 0 {
		return nil
	}
	return plan.MayNotRoute(r.read.User(ctx), r.client.Namespace, r.missing(ctx))
}
