package routes

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	utilcache "k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

const (
	// reviewTTL is how long a successful TokenReview is cached, so that a router that reconnects soon costs no API call.
	// The pod is looked up each time: a token is not accepted after its pod is gone.
	reviewTTL = time.Minute
	// maxReviews bounds concurrent TokenReviews.
	maxReviews = 64
	// podTimeout bounds the wait for a pod to appear in the cache: a router may connect before the watch event.
	podTimeout = 3 * time.Second
)

// Keys under which the API server returns the pod that a token is bound to (k8s.io/apiserver's
// serviceaccount.PodNameKey and PodUIDKey).
const (
	extraPodName = "authentication.kubernetes.io/pod-name"
	extraPodUID  = "authentication.kubernetes.io/pod-uid"
)

// A tokenGate authenticates routers by the projected token of their pod.
type tokenGate struct {
	review  func(ctx context.Context, token string) (*authenticationv1.TokenReviewStatus, error)
	pods    client.Reader
	known   *utilcache.Expiring // SHA-256 of a token -> boundPod
	reviews chan struct{}
}

type boundPod struct {
	types.NamespacedName
	uid types.UID
}

func newTokenGate(pods client.Reader, c client.Client) *tokenGate {
	return &tokenGate{
		pods: pods, known: utilcache.NewExpiring(), reviews: make(chan struct{}, maxReviews),
		review: func(ctx context.Context, token string) (*authenticationv1.TokenReviewStatus, error) {
			r := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{sandbox.Audience}}}
			err := c.Create(ctx, r)
			return &r.Status, err
		},
	}
}

func (g *tokenGate) admit(r *http.Request) (peer, error) {
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok || token == "" {
		return peer{}, &refusal{http.StatusUnauthorized, "no bearer token"}
	}
	bound, err := g.bound(r.Context(), token)
	if err != nil {
		return peer{}, err
	}
	var p peer
	err = wait.PollUntilContextTimeout(r.Context(), 20*time.Millisecond, podTimeout, true, func(ctx context.Context) (bool, error) {
		p, ok, err = g.find(ctx, bound)
		return ok, err
	})
	if wait.Interrupted(err) {
		return peer{}, &refusal{http.StatusForbidden, fmt.Sprintf("pod %s is not a baseline's pod", bound)}
	}
	return p, err
}

func (g *tokenGate) lives(ctx context.Context, p peer) bool {
	_, ok, err := g.find(ctx, boundPod{types.NamespacedName{Namespace: p.Namespace, Name: p.pod}, p.uid})
	return ok || err != nil
}

// find looks up a baseline's pod in the cache.
func (g *tokenGate) find(ctx context.Context, bound boundPod) (peer, bool, error) {
	var pod corev1.Pod
	if err := g.pods.Get(ctx, bound.NamespacedName, &pod); err != nil {
		return peer{}, false, client.IgnoreNotFound(err)
	}
	b, role := BaselineOf(&pod)
	if pod.UID != bound.uid || role != sandbox.RoleBaseline || b.Workload == "" {
		return peer{}, false, nil
	}
	return peer{Baseline: b, pod: pod.Name, uid: pod.UID}, true, nil
}

// bound returns the pod that a token is bound to, by a TokenReview.
func (g *tokenGate) bound(ctx context.Context, token string) (boundPod, error) {
	sum := sha256.Sum256([]byte(token))
	if b, ok := g.known.Get(sum); ok {
		return b.(boundPod), nil
	}
	select {
	case g.reviews <- struct{}{}:
		defer func() { <-g.reviews }()
	case <-ctx.Done():
		return boundPod{}, ctx.Err()
	}
	status, err := g.review(ctx, token)
	if err != nil {
		return boundPod{}, fmt.Errorf("review a router's token: %w", err)
	}
	b, err := podOf(status)
	if err != nil {
		return boundPod{}, err
	}
	g.known.Set(sum, b, reviewTTL)
	return b, nil
}

func podOf(s *authenticationv1.TokenReviewStatus) (boundPod, error) {
	if !s.Authenticated || !slices.Contains(s.Audiences, sandbox.Audience) {
		return boundPod{}, &refusal{http.StatusUnauthorized, "token is not valid for " + sandbox.Audience}
	}
	account, ok := strings.CutPrefix(s.User.Username, "system:serviceaccount:")
	namespace, _, ok2 := strings.Cut(account, ":")
	name, uid := s.User.Extra[extraPodName], s.User.Extra[extraPodUID]
	if !ok || !ok2 || len(name) != 1 || len(uid) != 1 {
		return boundPod{}, &refusal{http.StatusUnauthorized, "token is not bound to a pod"}
	}
	return boundPod{types.NamespacedName{Namespace: namespace, Name: name[0]}, types.UID(uid[0])}, nil
}
