package routes

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	utilcache "k8s.io/apimachinery/pkg/util/cache"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func lease(created time.Time, transitions int32, identity string, renewed time.Time) *coordinationv1.Lease {
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(created)},
		Spec: coordinationv1.LeaseSpec{
			LeaseTransitions: ptr.To(transitions), HolderIdentity: &identity, LeaseDurationSeconds: ptr.To[int32](15),
			RenewTime: ptr.To(metav1.NewMicroTime(renewed)),
		},
	}
}

func TestTerm_Rises(t *testing.T) {
	made := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	now := term(lease(made, 1_000_000, "", made))
	if next := term(lease(made, 1_000_001, "", made)); next <= now {
		t.Error("not with the next holder")
	}
	if again := term(lease(made.Add(time.Second), 0, "", made)); again <= now {
		t.Error("not with a lease made anew")
	}
	if late := term(lease(made.AddDate(200, 0, 0), 0, "", made)); late >= 1<<53 {
		t.Error("beyond what every JSON reader takes")
	}
}

func TestHolder(t *testing.T) {
	now := time.Now()
	if one, two := Identity("10.0.0.1:9444"), Identity("10.0.0.1:9444"); one == two {
		t.Error("two processes share an identity")
	}
	for _, tt := range []struct {
		name string
		l    *coordinationv1.Lease
		want string
	}{
		{"held", lease(now, 1, Identity("10.0.0.1:9444"), now.Add(-14*time.Second)), "10.0.0.1:9444"},
		{"IPv6", lease(now, 1, Identity("[fd00::1]:9444"), now), "[fd00::1]:9444"},
		{"run out", lease(now, 1, Identity("10.0.0.1:9444"), now.Add(-16*time.Second)), ""},
		{"released", lease(now, 1, "", now), ""},
		{"of another form", lease(now, 1, "somebody", now), ""},
		{"empty", &coordinationv1.Lease{}, ""},
	} {
		if got := address(holder(tt.l, now)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestCaughtUp(t *testing.T) {
	name := func(n string) types.NamespacedName { return types.NamespacedName{Namespace: "shop", Name: n} }
	list := &metav1.PartialObjectMetadataList{ListMeta: metav1.ListMeta{ResourceVersion: "100"}}
	for n, v := range map[string]string{"a": "50", "b": "99"} {
		list.Items = append(list.Items, metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: n, ResourceVersion: v}})
	}
	for _, tt := range []struct {
		name   string
		cached map[types.NamespacedName]string
		want   bool
	}{
		{"the same", map[types.NamespacedName]string{name("a"): "50", name("b"): "99"}, true},
		{"newer", map[types.NamespacedName]string{name("a"): "100", name("b"): "1000"}, true},
		{"one is older", map[types.NamespacedName]string{name("a"): "50", name("b"): "98"}, false},
		{"one is missing", map[types.NamespacedName]string{name("a"): "50"}, false},
		{"one was deleted before the list", map[types.NamespacedName]string{name("a"): "50", name("b"): "99", name("c"): "98"}, false},
		{"one was made after the list", map[types.NamespacedName]string{name("a"): "50", name("b"): "99", name("c"): "101"}, true},
	} {
		if got, err := caughtUp(list, tt.cached); err != nil || got != tt.want {
			t.Errorf("%s: %v %v, want %v", tt.name, got, err, tt.want)
		}
	}
}

func review(change func(*authenticationv1.TokenReviewStatus)) *authenticationv1.TokenReviewStatus {
	s := &authenticationv1.TokenReviewStatus{
		Authenticated: true, Audiences: []string{sandbox.Audience},
		User: authenticationv1.UserInfo{Username: "system:serviceaccount:shop:default", Extra: map[string]authenticationv1.ExtraValue{
			extraPodName: {"api-1"}, extraPodUID: {"uid-1"},
		}},
	}
	change(s)
	return s
}

func TestPodOf(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*authenticationv1.TokenReviewStatus)
		ok     bool
	}{
		{"a pod's token", func(*authenticationv1.TokenReviewStatus) {}, true},
		{"not authenticated", func(s *authenticationv1.TokenReviewStatus) { s.Authenticated = false }, false},
		{"for the API server", func(s *authenticationv1.TokenReviewStatus) { s.Audiences = []string{"https://kubernetes.default.svc"} }, false},
		{"a person's", func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "jane" }, false},
		{"a ServiceAccount's, bound to no pod", func(s *authenticationv1.TokenReviewStatus) { s.User.Extra = nil }, false},
	} {
		got, err := podOf(review(tt.change))
		if (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
		if want := (boundPod{types.NamespacedName{Namespace: "shop", Name: "api-1"}, "uid-1"}); tt.ok && got != want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

func TestTokenGate(t *testing.T) {
	pod := func(name, uid, role, workload string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(uid), Labels: map[string]string{
			sandbox.LabelRole: role, sandbox.LabelWorkload: workload,
		}}}
	}
	reviews := 0
	gate := &tokenGate{
		known: utilcache.NewExpiring(), reviews: make(chan struct{}, 1),
		pods: fake.NewClientBuilder().WithObjects(
			pod("api-1", "uid-1", sandbox.RoleBaseline, "deployment.api"),
			pod("fork", "uid-2", sandbox.RoleFork, "deployment.api"),
			pod("reborn", "uid-new", sandbox.RoleBaseline, "deployment.api"),
		).Build(),
		review: func(_ context.Context, token string) (*authenticationv1.TokenReviewStatus, error) {
			reviews++
			switch token {
			case "away":
				return nil, errors.New("connection refused")
			case "bad":
				return &authenticationv1.TokenReviewStatus{}, nil
			}
			return review(func(s *authenticationv1.TokenReviewStatus) {
				s.User.Extra = map[string]authenticationv1.ExtraValue{extraPodName: {token}, extraPodUID: {map[string]string{"api-1": "uid-1", "fork": "uid-2", "reborn": "uid-old"}[token]}}
			}), nil
		},
	}
	for _, tt := range []struct {
		token string
		code  int // 0: admitted, -1: not the request's fault
	}{
		{"", http.StatusUnauthorized},
		{"bad", http.StatusUnauthorized},
		{"away", -1},
		{"api-1", 0},
		{"fork", http.StatusForbidden},   // forks have no routes to ask for
		{"reborn", http.StatusForbidden}, // a pod of this name, but another one
		{"none", http.StatusForbidden},
	} {
		t.Run(tt.token, func(t *testing.T) {
			t.Parallel()
			r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil)
			if tt.token != "" {
				r.Header.Set("Authorization", "Bearer "+tt.token)
			}
			p, err := gate.admit(r)
			var refused *refusal
			switch {
			case tt.code == 0 && (err != nil || p != peer{api, "api-1", "uid-1"}):
				t.Errorf("%v %v", p, err)
			case tt.code > 0 && (!errors.As(err, &refused) || refused.code != tt.code):
				t.Errorf("%v, want status %d", err, tt.code)
			case tt.code < 0 && (err == nil || errors.As(err, &refused)):
				t.Errorf("%v, want an error of ours", err)
			}
		})
	}
	t.Cleanup(func() {
		before := reviews
		r, _ := http.NewRequestWithContext(context.Background(), http.MethodPost, "/", nil)
		r.Header.Set("Authorization", "Bearer api-1")
		if _, err := gate.admit(r); err != nil || reviews != before {
			t.Errorf("%v: reviewed a known token again", err)
		}
	})
}
