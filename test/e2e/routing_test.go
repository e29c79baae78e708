package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// An expectation is what one kind of request must get.
type expectation struct {
	what    string
	carry   carrier
	message string
	hosts   []string // the pods that may answer
	keyed   bool     // carries a key that the baseline has a fork for
}

func (e expectation) judge(a answer) error {
	if err := says(e.message, e.keyed)(a); err != nil {
		return fmt.Errorf("%s: %w", e.what, err)
	}
	if !slices.Contains(e.hosts, a.Hostname) {
		return fmt.Errorf("%s: answered by %s, want one of %v", e.what, a.Hostname, e.hosts)
	}
	return nil
}

func TestTenThousandMixedRequestsOnSharedConnectionsAreAllAnsweredByTheRightPod(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("api", 2), podinfoService("api"))
	s.available("api")
	web, rpc := s.address("api", "http"), s.address("api", "grpc")
	s.serving(web)

	// Every connection is made, and used, before the baseline has a router.
	callers := map[string]caller{"gRPC 1": newGRPC(rpc), "gRPC 2": newGRPC(rpc), "h2c 1": newH2C(web), "h2c 2": newH2C(web)}
	for i := range 6 {
		callers[fmt.Sprintf("HTTP/1.1 %d", i+1)] = newH1(web)
	}
	for name, c := range callers {
		defer c.close()
		if a, err := c.call(t.Context(), carrier{}); err != nil || a.Message != baselineMessage {
			t.Fatalf("%s before route: %+v, %v", name, a, err)
		}
	}
	s.sandbox("route", "deploy/api")
	for name, c := range callers { // used between route and fork
		if a, err := c.call(t.Context(), carrier{}); err != nil || a.Message != baselineMessage {
			t.Fatalf("%s after route: %+v, %v", name, a, err)
		}
	}
	s.sandbox("fork", "deploy/api", "--name=pr-1", "--key=key-1", "--image="+apps.Podinfo(1))
	s.sandbox("fork", "deploy/api", "--name=pr-2", "--key=key-2", "--image="+apps.Podinfo(2), "--replicas=2")

	kinds := []expectation{
		{"unkeyed", carrier{}, baselineMessage, s.hosts("app=api"), false},
		{"a key of nobody's", carrier{sandbox.DefaultHeader, "key-3"}, baselineMessage, s.hosts("app=api"), false},
		{"baggage without a key", carrier{"baggage", "user=7"}, baselineMessage, s.hosts("app=api"), false},
	}
	for i, name := range []string{"pr-1", "pr-2"} {
		for _, c := range carriers(fmt.Sprintf("key-%d", i+1)) {
			kinds = append(kinds, expectation{name + " by " + c.name, c, apps.Release(i + 1), s.hosts(sandbox.LabelSandbox + "=" + name), true})
		}
	}
	for name, c := range callers { // the very next request
		if a, err := c.call(t.Context(), kinds[3].carry); err != nil {
			t.Errorf("%s: first keyed request: %v", name, err)
		} else if err := kinds[3].judge(a); err != nil {
			t.Errorf("%s: first keyed request: %v", name, err)
		}
	}

	const total = 10_000
	var (
		wg      sync.WaitGroup
		mu      sync.Mutex
		wrong   []error
		perKind = map[string]int{}
	)
	each := total / len(callers)
	for name, c := range callers {
		lanes := 1 // concurrent requests on the connection
		if _, h1 := c.(*httpCaller); !h1 || name[0] == 'h' {
			lanes = 4
		}
		for lane := range lanes {
			wg.Go(func() {
				random := rand.New(rand.NewPCG(uint64(lane), uint64(len(name))))
				for range each / lanes {
					kind := kinds[random.IntN(len(kinds))]
					a, err := c.call(context.WithoutCancel(t.Context()), kind.carry)
					if err == nil {
						err = kind.judge(a)
					}
					mu.Lock()
					perKind[kind.what]++
					if err != nil {
						wrong = append(wrong, fmt.Errorf("%s: %w", name, err))
					}
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	t.Logf("requests by kind: %v", perKind)
	if len(wrong) > 0 {
		t.Errorf("%d of %d requests misrouted or failed, the first: %v", len(wrong), total, wrong[:min(5, len(wrong))])
	}

	// status counts each of them, once.
	sent := map[string]int{"pr-1": len(callers)}
	for what, n := range perKind {
		if name, _, keyed := strings.Cut(what, " by "); keyed {
			sent[name] += n
		}
	}
	for name, want := range sent {
		out := s.sandbox("status", name).stdout
		if ok := regexp.MustCompile(fmt.Sprintf(`(?m)^api-%s +deployment/api +\d/\d +%d +Routed`, name, want)).MatchString(out); !ok {
			t.Errorf("%s was sent %d requests, and status says:\n%s", name, want, out)
		}
	}
}

func TestTenForksOfOneBaselineEachGetTheirOwnRequestsOnly(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("api", 1), podinfoService("api"))
	s.available("api")
	s.sandbox("route", "deploy/api")

	const forks = 10
	var wg sync.WaitGroup
	results := make([]result, forks)
	for i := range forks {
		wg.Go(func() {
			results[i] = s.trySandbox("fork", "deploy/api", fmt.Sprintf("--name=pr-%d", i), fmt.Sprintf("--key=key-%d", i),
				fmt.Sprintf("--env=PODINFO_UI_MESSAGE=fork %d", i))
		})
	}
	wg.Wait()
	for _, r := range results {
		if r.err != nil {
			t.Fatal(r)
		}
	}

	kinds := []expectation{{"unkeyed", carrier{}, baselineMessage, s.hosts("app=api"), false}}
	for i := range forks {
		for _, c := range carriers(fmt.Sprintf("key-%d", i)) {
			kinds = append(kinds, expectation{fmt.Sprintf("key %d", i), c, fmt.Sprintf("fork %d", i),
				s.hosts(fmt.Sprintf("%s=pr-%d", sandbox.LabelSandbox, i)), true})
		}
	}
	for _, c := range []caller{newH1(s.address("api", "http")), newH2C(s.address("api", "http")), newGRPC(s.address("api", "grpc"))} {
		defer c.close()
		for range 10 {
			for _, kind := range kinds {
				a, err := c.call(t.Context(), kind.carry)
				if err == nil {
					err = kind.judge(a)
				}
				if err != nil {
					t.Errorf("%T: %v", c, err)
				}
			}
		}
	}
}

// hosts returns the names of the pods that match a selector; there must be some.
func (s *space) hosts(selector string) []string {
	s.t.Helper()
	var names []string
	for _, p := range s.pods(selector) {
		names = append(names, p.Name)
	}
	if len(names) == 0 {
		s.t.Fatalf("no pod matches %s", selector)
	}
	return names
}
