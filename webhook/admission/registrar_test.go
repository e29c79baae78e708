package admission

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// by asks for a new sandbox as somebody.
func by(t *testing.T, r *Sandboxes, user, name, key string) string {
	t.Helper()
	req := request(t, sandboxOf("shop", name, key, ""), nil)
	req.UserInfo.Username = user
	return refusal(r.Handle(t.Context(), req))
}

// Who may not fork takes neither a key nor a place from those who may: a policy refuses what is made, after this.
func TestRegistrar_ReservesNothingForWhoMayNotFork(t *testing.T) {
	r := newRegistrar(t, 1)
	r.rights = func(_ context.Context, namespace string, user authenticationv1.UserInfo) (bool, error) {
		return namespace == "shop" && user.Username == "jane", nil
	}
	for i := range 3 {
		if got := by(t, r, "mallory", fmt.Sprint("phantom-", i), "key-1"); got != "" {
			t.Error(got)
		}
	}
	if got := by(t, r, "jane", "pr-1", "key-1"); got != "" {
		t.Errorf("jane is refused: %s", got)
	}
	if got := by(t, r, "mallory", "phantom", "key-1"); got != `SandboxKeyInUse: key key-1 is in use by sandbox "pr-1", made by jane` {
		t.Errorf("got %q", got)
	}
}

func TestRegistrar_AsksForNoRightsWhereItReservesNothing(t *testing.T) {
	r := newRegistrar(t, 0)
	r.rights = func(context.Context, string, authenticationv1.UserInfo) (bool, error) {
		return false, errors.New("away")
	}
	one := sandboxOf("shop", "pr-1", "key-1", "")
	dry := request(t, one, nil)
	dry.DryRun = ptr.To(true)
	if got := refusal(r.Handle(t.Context(), dry)) + refusal(r.Handle(t.Context(), request(t, one, one))) +
		refusal(r.Handle(t.Context(), request(t, forkOf("pr-1", "key-1"), nil))); got != "" {
		t.Error(got)
	}
	if got := by(t, r, "jane", "pr-1", "key-1"); got != "503: away" {
		t.Errorf("got %q", got)
	}
}

// What was admitted and never stored, because something else refused it, is given up within a second for whoever asks.
func TestRegistrar_GivesUpWhatWasNeverStored(t *testing.T) {
	for name, tt := range map[string]struct {
		limit  int
		after  time.Duration
		stored bool
		want   string
	}{
		"on its way":                   {after: arrivalGrace - 1, want: `SandboxKeyInUse: key key-1 is in use by sandbox "pr-1", made by jane`},
		"never stored":                 {after: arrivalGrace},
		"stored, and not seen":         {after: arrivalGrace, stored: true, want: `SandboxKeyInUse: key key-1 is in use by sandbox "pr-1", made by jane`},
		"the last place, on its way":   {limit: 1, after: arrivalGrace - 1, want: `TooManySandboxes: namespace "shop" has 1 of at most 1 sandboxes (chart value sandboxes.maxPerNamespace)`},
		"the last place, not stored":   {limit: 1, after: arrivalGrace},
		"the last place, and is there": {limit: 1, after: arrivalGrace, stored: true, want: `TooManySandboxes: namespace "shop" has 1 of at most 1 sandboxes (chart value sandboxes.maxPerNamespace)`},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRegistrar(t, tt.limit)
			if got := by(t, r, "jane", "pr-1", "key-1"); got != "" {
				t.Fatal(got)
			}
			if tt.stored {
				r.api = fake.NewClientBuilder().WithObjects(sandboxOf("shop", "pr-1", "key-1", "jane")).Build()
			}
			r.clock.(*clocktesting.FakeClock).Step(tt.after)
			key := "key-1"
			if tt.limit > 0 {
				key = "key-2"
			}
			if got := by(t, r, "john", "pr-2", key); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// slow answers once it is let.
type slow struct {
	client.Reader
	begun, letGo chan struct{}
}

func (s slow) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	s.begun <- struct{}{}
	<-s.letGo
	return s.Reader.Get(ctx, key, o, opts...)
}

func TestRegistrar_HoldsUpNobodyWhileItAsks(t *testing.T) {
	r := newRegistrar(t, 0, sandboxOf("shop", "pr-1", "key-1", ""))
	api := slow{r.api, make(chan struct{}), make(chan struct{})}
	r.api = api
	first, second := make(chan string, 1), make(chan string, 1)
	go func() { first <- by(t, r, "jane", "pr-2", "key-1") }()
	<-api.begun
	go func() {
		second <- refusal(r.Handle(t.Context(), request(t, sandboxOf("other", "pr-3", "key-3", ""), nil)))
	}()
	select {
	case got := <-second:
		if got != "" {
			t.Error(got)
		}
	case <-time.After(10 * time.Second):
		t.Error("another namespace waits for an answer of the API server's")
	}
	close(api.letGo)
	if got := <-first; got != `SandboxKeyInUse: key key-1 is in use by sandbox "pr-1"` {
		t.Errorf("got %q", got)
	}
}

// Of many that come at once, exactly as many are admitted as may be, and one a key.
func TestRegistrar_IsExactWithinAReplica(t *testing.T) {
	const most = 5
	r := newRegistrar(t, most)
	results := make([]string, 40)
	var g sync.WaitGroup
	for i := range results {
		g.Go(func() { results[i] = by(t, r, "jane", fmt.Sprint("pr-", i), fmt.Sprint("key-", i%8)) })
	}
	g.Wait()
	admitted := 0
	for _, got := range results {
		if got == "" {
			admitted++
		}
	}
	if admitted != most {
		t.Errorf("%d are admitted of at most %d: %q", admitted, most, results)
	}
	keys := map[string]bool{}
	for _, h := range r.admitted {
		if keys[h.key] {
			t.Errorf("two have the key %s", h.key)
		}
		keys[h.key] = true
	}
}

func TestReviewedRights_AskForTheVerbFork(t *testing.T) {
	user := authenticationv1.UserInfo{Username: "jane", UID: "u", Groups: []string{"team"}, Extra: map[string]authenticationv1.ExtraValue{"scopes": {"a", "b"}}}
	for _, allowed := range []bool{true, false} {
		api := fake.NewClientBuilder().WithInterceptorFuncs(interceptor.Funcs{Create: func(_ context.Context, _ client.WithWatch, o client.Object, _ ...client.CreateOption) error {
			review := o.(*authorizationv1.SubjectAccessReview)
			spec := review.Spec
			if spec.User != "jane" || spec.UID != "u" || spec.Groups[0] != "team" || len(spec.Extra["scopes"]) != 2 ||
				*spec.ResourceAttributes != (authorizationv1.ResourceAttributes{Namespace: "shop", Verb: "fork", Group: sandbox.RightGroup, Resource: "sandboxes"}) {
				t.Errorf("asked %+v", spec)
			}
			review.Status.Allowed = allowed
			return nil
		}}).Build()
		if may, err := ReviewedRights(api)(t.Context(), "shop", user); err != nil || may != allowed {
			t.Errorf("got %t, %v, want %t", may, err, allowed)
		}
	}
	away := fake.NewClientBuilder().WithInterceptorFuncs(interceptor.Funcs{Create: func(context.Context, client.WithWatch, client.Object, ...client.CreateOption) error {
		return errors.New("away")
	}}).Build()
	if _, err := ReviewedRights(away)(t.Context(), "shop", user); err == nil {
		t.Error("an API server that is away is taken for an answer")
	}
}
