package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/calls"
)

// maxCalls is how many requests one fork may make, watches aside.
const maxCalls = 24

// What fork reads must not grow with the sandboxes there are: their number is where the product is to scale.
func TestAForkMakesFewCallsAndNoMoreForTheSandboxesThereAre(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("api", 1), podinfoService("api"))
	s.applyYAML(admitPolicy + "---" + denied)
	s.available("api")
	s.sandbox("route", "deploy/api")
	fork := func(name string, more ...string) []calls.Call {
		t.Helper()
		args := append([]string{"fork", "deploy/api", "--kubeconfig=" + s.kubeconfig, "-n", s.name, "--name=" + name, "--key=key-" + name, "--env=X=1"}, more...)
		all, err := calls.Plugin(t.Context(), args...)
		if err != nil {
			t.Error(err)
		}
		// Another test has PodMonitors for a while, beside this one.
		return slices.DeleteFunc(all, func(c calls.Call) bool { return strings.HasPrefix(c.Path, "/apis/monitoring.coreos.com/") })
	}
	cold := []string{"--cache-dir=" + t.TempDir()} // with discovery
	_, few := calls.Watches(fork("s-100", cold...))
	if len(few) > maxCalls {
		t.Errorf("it made %d calls, want at most %d:\n%s", len(few), maxCalls, list(few))
	}
	each(5, func(i int) {
		for j := range 6 {
			fork(fmt.Sprintf("s-%d%d0", i+2, j), "--replicas=0", "--wait=false")
		}
	})
	s.sandbox("delete", "s-100")
	cold = []string{"--cache-dir=" + t.TempDir()}
	_, many := calls.Watches(fork("s-101", cold...))
	if got, want := list(many), list(few); strings.ReplaceAll(got, "s-101", "s-100") != want {
		t.Errorf("beside 30 sandboxes it made other calls:\n%s", difference(want, got))
	}
	// An answer differs by a few bytes from time to time: generations, counters, times.
	const slack = 2 << 10
	if before, now := calls.Bytes(few), calls.Bytes(many); now > before+slack {
		t.Errorf("beside 30 sandboxes it read %d bytes, alone %d:\n%s", now, before, difference(sizes(few), strings.ReplaceAll(sizes(many), "s-101", "s-100")))
	}
}

// sizes returns the calls a line each with what they read.
func sizes(all []calls.Call) string {
	lines := make([]string, len(all))
	for i, c := range all {
		lines[i] = fmt.Sprintf("%s: %d\n", c, c.Bytes)
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// list returns the calls a line each, in an order that does not depend on which came first.
func list(all []calls.Call) string {
	lines := make([]string, len(all))
	for i, c := range all {
		lines[i] = fmt.Sprintf("%s\n", c)
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}
