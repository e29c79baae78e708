package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// scaleWebhook sets the webhook's replicas and waits until as many are ready, or all are gone.
func (w *world) scaleWebhook(t *testing.T, replicas int) {
	t.Helper()
	r := run(w.command(context.WithoutCancel(t.Context()), "kubectl", "-n", w.release, "scale", "deployment/sandbox-webhook", fmt.Sprintf("--replicas=%d", replicas)))
	if r.err != nil {
		t.Fatal(r)
	}
	if replicas > 0 {
		w.webhookReady(t)
		return
	}
	gone, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 90*time.Second)
	defer cancel()
	err := wait.PollUntilContextCancel(gone, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		list, err := w.client.CoreV1().Pods(w.release).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component!=test"})
		return err == nil && len(list.Items) == 0, nil
	})
	if err != nil {
		t.Fatalf("pods of the webhook are not gone: %v", err)
	}
}

func TestWithTheWebhookAwayTrafficGoesOnAndWhatForkMadeComesUpOnItsReturn(t *testing.T) {
	s := newSpace(t)
	s.create(podinfo("api", 2), podinfoService("api"))
	s.available("api")
	s.sandbox("route", "deploy/api")
	s.available("api")
	s.sandbox("fork", "deploy/api", "--name=pr-1", "--key=key-1", "--image="+apps.Podinfo(1))
	key := carriers("key-1")[0]
	address := s.address("api", "http")
	unkeyed := startHTTP(t, "unkeyed", address, "/api/info", 30, nil, says(baselineMessage, false))
	keyed := startHTTP(t, "keyed", address, "/api/info", 30, map[string][]string{key.name: {key.value}}, says(apps.Release(1), true))
	unkeyedRPC := startGRPC(t, "unkeyed gRPC", s.address("api", "grpc"), 20, carrier{}, says(baselineMessage, false))

	s.scaleWebhook(t, 0)
	t.Cleanup(func() { s.scaleWebhook(t, 2) })
	time.Sleep(settle)

	// What was there before goes on.
	keyed.unscathed(50)

	// New baseline pods start, without a router, and serve.
	s.kubectl("rollout", "restart", "deploy/api")
	s.available("api")
	for _, p := range s.pods("app=api") {
		for _, c := range p.Spec.InitContainers {
			if c.Name == sandbox.RouterContainer {
				t.Errorf("pod %s has a router, though nobody was there to give it one", p.Name)
			}
		}
	}
	time.Sleep(settle)

	// A new sandbox is refused, since nobody can say whether its key is another's; nothing of it is left.
	r := s.trySandbox("fork", "deploy/api", "--name=pr-2", "--key=key-2", "--image="+apps.Podinfo(2), "--timeout=10s")
	if r.err == nil || !strings.Contains(r.stderr, "webhook does not answer, so no sandbox can be made") {
		t.Errorf("fork without a webhook: %v", r)
	}
	if left := s.kubectl("get", "deployments,configmaps", "-l", sandbox.LabelSandbox+"=pr-2", "-o", "name"); left != "" {
		t.Errorf("a refused fork left %s", left)
	}
	// A change of a fork there is waits for its return; what served before goes on.
	r = s.trySandbox("fork", "deploy/api", "--name=pr-1", "--image="+apps.Podinfo(2), "--timeout=10s")
	if r.err == nil || !strings.Contains(r.stderr, "webhook") {
		t.Errorf("fork without a webhook: %v", r)
	}
	t.Logf("fork without a webhook says:\n%s%s", r.stdout, r.stderr)

	s.scaleWebhook(t, 2)
	// The baseline's pods have no router yet: that takes a roll, which status says.
	took := eventually(t, 60*time.Second, "the fork's pod is up", func(context.Context) error {
		for _, p := range s.pods(sandbox.LabelSandbox + "=pr-1") {
			for _, c := range p.Status.ContainerStatuses {
				if c.Ready && c.Image == apps.Podinfo(2) {
					return nil
				}
			}
		}
		return fmt.Errorf("it is not")
	})
	t.Logf("what fork changed was up %s after the webhook's return", took.Round(time.Millisecond))
	if took > 30*time.Second {
		t.Errorf("what fork changed was up %s after the webhook's return, want 30s at most", took.Round(time.Second))
	}
	status := s.trySandbox("status", "pr-1")
	t.Logf("status after the webhook's return:\n%s%s", status.stdout, status.stderr)
	if !strings.Contains(status.stdout, s.hosts("app=api")[0]) {
		t.Errorf("status does not name the baseline pods without a router: %v", status)
	}
	s.kubectl("rollout", "restart", "deploy/api")
	s.available("api")
	s.sandbox("fork", "deploy/api", "--name=pr-2", "--key=key-2", "--image="+apps.Podinfo(2))
	client := newH1(address)
	defer client.close()
	if a, err := client.call(t.Context(), carriers("key-2")[0]); err != nil || a.Message != apps.Release(2) {
		t.Errorf("keyed request after the webhook's return: %+v, %v", a, err)
	}
	unkeyed.unscathed(300)
	unkeyedRPC.unscathed(200)
}
