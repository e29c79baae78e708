package e2e

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/hotrod"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func TestAKeyReachesAForkTwoHopsDown(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	deployments, services := hotrod.Objects()
	for _, d := range deployments {
		s.create(d)
	}
	s.create(services)
	for _, name := range hotrod.Services() {
		s.available(name)
	}
	s.sandbox("route", "deploy/customer", "deploy/driver", "deploy/route")
	s.sandbox("fork", "deploy/customer", "--name=fast", "--key=fast", "--image="+apps.HotrodFast)
	s.sandbox("fork", "deploy/driver", "--name=old", "--key=old", "--image="+apps.HotrodOld)
	// Two workloads in one sandbox.
	s.sandbox("fork", "deploy/customer", "deploy/driver", "--name=both", "--key=both", "--env=X=1")

	for _, test := range []struct {
		key  string
		want map[string]string // service to sandbox
	}{
		{"", nil},
		{"fast", map[string]string{hotrod.Customer: "fast"}},
		{"old", map[string]string{hotrod.Driver: "old"}},
		{"both", map[string]string{hotrod.Customer: "both", hotrod.Driver: "both"}},
		{"nobodys", nil},
	} {
		for range 5 {
			header := http.Header{}
			if test.key != "" {
				header.Set("baggage", "session=1,"+sandbox.DefaultMember+"="+test.key)
			}
			s.dispatched(header, test.want)
		}
	}

	// Frontend gets a router and a fork of its own. HotROD passes baggage on, but not the product's own header: the fork's
	// router stamps it on what leaves the fork.
	s.sandbox("route", "deploy/frontend")
	s.sandbox("fork", "deploy/frontend", "deploy/customer", "--name=front", "--key=front", "--env=X=1")
	s.dispatched(http.Header{sandbox.DefaultHeader: {"front"}}, map[string]string{hotrod.Frontend: "front", hotrod.Customer: "front"})
	s.dispatched(nil, nil)
}

// newTrace returns an ID for a trace of requests (W3C Trace Context, section 3.2.2.3).
func newTrace() string {
	trace := make([]byte, 16)
	_, _ = rand.Read(trace)
	return hex.EncodeToString(trace)
}

// dispatched sends a request through HotROD and checks which sandbox's pod of each service answered, by the pods' logs.
func (s *space) dispatched(header http.Header, want map[string]string) {
	s.t.Helper()
	// HotROD gives its calls of driver a second, which a machine that runs other tests may not have for it.
	const tries = 5
	for try := 1; !s.dispatchedOnce(header, want, try == tries) && try < tries; try++ {
		s.t.Logf("%v: HotROD had no time; once more", header)
	}
}

// dispatchedOnce is false where HotROD says that its own time ran out, and that is not the last try.
func (s *space) dispatchedOnce(header http.Header, want map[string]string, last bool) bool {
	s.t.Helper()
	id := newTrace()
	url := fmt.Sprintf("http://%s/dispatch?customer=123", s.address(hotrod.Frontend, "http"))
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for k, v := range header {
		req.Header[http.CanonicalHeaderKey(k)] = v
	}
	req.Header.Set("traceparent", "00-"+id+"-00f067aa0ba902b7-01")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Errorf("%v: %v", header, err)
		return true
	}
	defer resp.Body.Close()
	if body := readAll(resp.Body); resp.StatusCode != http.StatusOK {
		if !last && strings.Contains(body, "DeadlineExceeded") {
			return false
		}
		s.t.Errorf("%v: %s %s", header, resp.Status, body)
		return true
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	all, err := hotrod.Hops(ctx, s.client, s.name, id)
	if err != nil {
		s.t.Errorf("%v: %v", header, err)
		return true
	}
	hops := all[id]
	for _, h := range hops {
		if h.Sandbox != want[h.Service] {
			s.t.Errorf("%v: %s was answered by %s of sandbox %q, want %q", header, h.Service, h.Pod, h.Sandbox, want[h.Service])
		}
	}
	if len(hops) != len(hotrod.Services()) {
		s.t.Errorf("%v: pods that took part: %v", header, hops)
	}
	return true
}
