package e2e

import (
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
)

func TestUnderSteadyLoadRouteForkDeleteAndUnrouteFailNoRequestOfAnAppThatDrains(t *testing.T) {
	s := newSpace(t)
	s.create(podinfo("api", 2), podinfoService("api"))
	s.available("api")
	s.serving(s.address("api", "http"))
	judge := says(baselineMessage, false)
	web := startHTTP(t, "HTTP/1.1", s.address("api", "http"), "/api/info", 50, nil, judge)
	rpc := startGRPC(t, "gRPC", s.address("api", "grpc"), 50, carrier{}, judge)
	step := func(what string, do func()) {
		n1, f1 := web.mark()
		n2, f2 := rpc.mark()
		do()
		time.Sleep(settle) // the load goes on, to see what the step leaves behind
		n3, f3 := web.mark()
		n4, f4 := rpc.mark()
		t.Logf("%-24s HTTP/1.1: %d failed of %d, gRPC: %d failed of %d", what, f3-f1, n3-n1, f4-f2, n4-n2)
	}
	step("before", func() {})
	step("route", func() { s.sandbox("route", "deploy/api"); s.available("api") })
	step("fork", func() { s.sandbox("fork", "deploy/api", "--name=pr-1", "--image="+apps.Podinfo(1)) })
	step("fork again", func() { s.sandbox("fork", "deploy/api", "--name=pr-1", "--image="+apps.Podinfo(2)) })
	step("delete", func() { s.sandbox("delete", "pr-1") })
	step("unroute", func() { s.sandbox("unroute", "deploy/api"); s.available("api") })
	web.unscathed(1000)
	rpc.unscathed(1000)
}

// An app that does not drain loses requests in any rollout. What the product does to it must cost no more than as many paired
// plain rollouts: one for unroute, two for route, whose first names the port that this app's Service knows by number.
func TestUnderSteadyLoadTheProductCostsAnAppThatDoesNotDrainNoMoreThanARestart(t *testing.T) {
	s := newSpace(t)
	s.create(httpbin("bin", 2), service("bin", map[string]string{"app": "bin"}, port("http", 80, 8080)))
	s.available("bin")
	address := s.address("bin", "http")
	during := func(what string, do func()) int {
		l := startHTTP(t, what, address, "/hostname", 100, nil, nil)
		time.Sleep(time.Second)
		do()
		s.available("bin")
		time.Sleep(settle)
		n, failed := l.stop()
		t.Logf("%s: %d of %d requests failed\n%s", what, len(failed), n, listed(failed))
		return len(failed)
	}
	restart := func() { s.kubectl("rollout", "restart", "deploy/bin") }
	pairs := full(5, 3) // one alone says too little: what a rollout loses differs several times over
	var plain, routed, undone int
	for range pairs {
		plain += during("kubectl rollout restart", restart)
		routed += during("kubectl sandbox route", func() { s.sandbox("route", "deploy/bin") })
		if n := during("kubectl sandbox fork and delete", func() {
			s.sandbox("fork", "deploy/bin", "--name=pr-1", "--env=X=1")
			s.sandbox("delete", "pr-1")
		}); n > 0 {
			t.Errorf("fork and delete roll no baseline, yet %d requests failed", n)
		}
		undone += during("kubectl sandbox unroute", func() { s.sandbox("unroute", "deploy/bin") })
	}
	t.Logf("failed in %d rounds: restart %d, route %d, unroute %d", pairs, plain, routed, undone)
	// How many a rollout loses is chance: the endpoints' lag against the app's exit. Three standard deviations of a count.
	limit := func(expected int) int { return expected + 3*isqrt(expected) + 3 }
	if most := limit(2 * plain); routed > most {
		t.Errorf("route lost %d in two rollouts, a plain restart %d in one (limit %d)", routed, plain, most)
	}
	if most := limit(plain); undone > most {
		t.Errorf("unroute lost %d, a plain restart %d (limit %d)", undone, plain, most)
	}
}

func isqrt(n int) int {
	r := 0
	for (r+1)*(r+1) <= n {
		r++
	}
	return r
}
