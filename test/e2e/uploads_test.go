package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func TestOpenPassesLargeUploads(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	size := int64(1 << 30)
	if testing.Short() {
		size >>= 4
	}
	s.create(sink("sink"), podinfoService("sink"))
	s.available("sink")
	s.sandbox("route", "deploy/sink")
	s.sandbox("fork", "deploy/sink", "--name=pr-1", "--env=X=1")
	o := s.open("pr-1", "svc/sink")
	if resp, body := o.get(o.URL + "/"); resp.StatusCode != http.StatusOK || resp.Header.Get(sandbox.HeaderServedBy) == "" {
		t.Fatalf("%s by %q: %s", resp.Status, resp.Header.Get(sandbox.HeaderServedBy), body)
	}
	idle := o.memory("VmRSS")
	o.forgetPeak()
	for kind, length := range map[string]int64{"of known length": size, "in chunks": -1} {
		q := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), http.MethodPost, o.URL+upload, symbols(size)))
		q.ContentLength = length
		uploaded(t, o.client, q, kind)
	}
	peak := o.memory("VmHWM")
	t.Logf("memory: %d KiB idle, %d KiB at most", idle>>10, peak>>10)
	if peak > idle+16<<20 {
		t.Errorf("memory rose by %d KiB", (peak-idle)>>10)
	}
}

// upload is where podinfo reads a body of any length to its end and keeps nothing of it: the profiler's endpoint that looks up
// symbols, which are divided by '+'.
const upload = "/debug/pprof/symbol"

// sink returns an app that takes uploads. GODEBUG has the profiler take POST, as it did before Go 1.22.
func sink(name string) *appsv1.Deployment {
	return podinfo(name, 1, func(d *appsv1.Deployment) {
		c := &d.Spec.Template.Spec.Containers[0]
		c.Args = append(c.Args, "--http-server-timeout=10m")
		c.Env = append(c.Env, corev1.EnvVar{Name: "GODEBUG", Value: "httpmuxgo121=1"})
	})
}

// symbols returns a body for upload, of names that are no symbols.
func symbols(size int64) io.Reader {
	const word = 1 << 10
	return io.LimitReader(&repeated{text: strings.Repeat(strings.Repeat("z", word-1)+"+", 64)}, size)
}

// repeated is a text without end.
type repeated struct {
	text string
	at   int
}

func (r *repeated) Read(p []byte) (int, error) {
	n := copy(p, r.text[r.at:])
	r.at = (r.at + n) % len(r.text)
	return n, nil
}

// uploaded sends an upload, and checks that it was read to its end.
func uploaded(t *testing.T, client *http.Client, q *http.Request, kind string) {
	t.Helper()
	begun := time.Now()
	resp, err := client.Do(q)
	if err != nil {
		t.Errorf("upload %s: %v", kind, err)
		return
	}
	defer resp.Body.Close()
	if body := readAll(resp.Body); resp.StatusCode != http.StatusOK || body != "num_symbols: 1\n" {
		t.Errorf("upload %s: %s %s", kind, resp.Status, tail(body, 500))
	}
	t.Logf("uploaded %s in %s", kind, time.Since(begun).Round(time.Millisecond))
}
