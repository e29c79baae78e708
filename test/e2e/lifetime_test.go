package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// expires returns when a sandbox ends; the zero time where it does not.
func (s *space) expires(name string) time.Time {
	s.t.Helper()
	value := s.kubectl("get", "configmap", sandbox.ConfigMapName(name), "-o", "jsonpath={.data.expires}")
	if value == "" {
		return time.Time{}
	}
	return must[time.Time](s.t)(time.Parse(time.RFC3339, value))
}

// in says whether a time is that far from now, give or take what a command takes.
func in(at time.Time, d time.Duration) bool {
	return time.Until(at) > d-time.Minute && time.Until(at) <= d
}

func TestASandboxLivesAsLongAsItIsToldAndIsExtended(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("worker", 1)) // no Service, no router
	s.available("worker")
	fork := []string{"fork", "deploy/worker", "--name=pr-1", "--replicas=0", "--image=" + apps.Podinfo(1)}
	s.sandbox(fork...)
	if at := s.expires("pr-1"); !in(at, 8*time.Hour) {
		t.Errorf("by default it expires at %s", at)
	}
	r := s.sandbox("extend", "pr-1", "--ttl=1h")
	if !strings.HasPrefix(r.stdout, "configmap/sandbox-pr-1 unchanged\nsandbox pr-1: expires in") {
		t.Errorf("an extension by less says %q", r.stdout)
	}
	if r := s.sandbox("extend", "pr-1", "--ttl=48h", "--dry-run=server"); !strings.Contains(r.stdout, "extended (server dry run)") || !in(s.expires("pr-1"), 8*time.Hour) {
		t.Errorf("a dry run says %q, and it expires at %s", r.stdout, s.expires("pr-1"))
	}
	if r := s.sandbox("extend", "-l", sandbox.LabelSandbox+"=pr-1", "--ttl=48h", "-o", "name"); r.stdout != "configmap/sandbox-pr-1\n" || !in(s.expires("pr-1"), 48*time.Hour) {
		t.Errorf("says %q, and it expires at %s", r.stdout, s.expires("pr-1"))
	}
	s.sandbox(fork...) // a renewal by the default takes nothing away
	if at := s.expires("pr-1"); !in(at, 48*time.Hour) {
		t.Errorf("after another fork it expires at %s", at)
	}
	if r := s.sandbox("status", "pr-1"); !strings.Contains(r.stdout, "expires in 47h") && !strings.Contains(r.stdout, "expires in 2d") {
		t.Errorf("status says %q", r.stdout)
	}
	if r := s.sandbox("list", "--no-headers"); !strings.Contains(r.stdout, "47h") && !strings.Contains(r.stdout, "2d") {
		t.Errorf("list says %q", r.stdout)
	}
	s.sandbox("extend", "--all", "--ttl=0")
	if at := s.expires("pr-1"); !at.IsZero() {
		t.Errorf("for ever is until %s", at)
	}
	if r := s.trySandbox("extend", "nobody"); r.err == nil || !strings.Contains(r.stderr, `there is no sandbox "nobody"`) {
		t.Errorf("extension of nothing: %v", r)
	}

	// At its end it goes with all that is in it; an Event tells before and after.
	s.sandbox(append(fork, "--ttl=8s", "--wait=false")...)
	eventually(t, 60*time.Second, "the sandbox is gone", func(_ context.Context) error {
		left := s.kubectl("get", "configmaps,deployments", "-l", sandbox.LabelSandbox+"=pr-1", "-o", "name")
		if left != "" {
			return fmt.Errorf("left: %s", left)
		}
		return nil
	})
	eventually(t, 60*time.Second, "the Events are there", func(_ context.Context) error {
		events := s.kubectl("get", "events")
		for _, want := range []string{"ExpiresSoon", "kubectl sandbox extend pr-1", "Expired", "and was deleted"} {
			if !strings.Contains(events, want) {
				return fmt.Errorf("no %q in\n%s", want, events)
			}
		}
		return nil
	})
}

func TestAKeyInUseIsRefusedWhoeverMakesTheSandbox(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("worker", 0))
	s.sandbox("fork", "deploy/worker", "--name=pr-1", "--key=key-1", "--replicas=0", "--image="+apps.Podinfo(1))
	who := s.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
	if by := s.kubectl("get", "configmap", "sandbox-pr-1", "-o", "jsonpath={.data.created-by}"); by != who {
		t.Errorf("made by %q, want %q", by, who)
	}
	want := `key key-1 is in use by sandbox "pr-1", made by ` + who
	if r := s.trySandbox("fork", "deploy/worker", "--name=pr-2", "--key=key-1", "--image="+apps.Podinfo(1)); r.err == nil || !strings.Contains(r.stderr, want) {
		t.Errorf("by the plugin: %v", r)
	}
	// As from Git: what a dry run prints, of another name and key.
	manifests := s.sandbox("fork", "deploy/worker", "--name=pr-2", "--key=key-2", "--replicas=0", "--image="+apps.Podinfo(1), "--dry-run=client", "-o", "yaml").stdout
	apply := func(manifests string) result {
		cmd := s.command(t.Context(), "kubectl", "-n", s.name, "apply", "-f", "-")
		cmd.Stdin = strings.NewReader(manifests)
		return run(cmd)
	}
	r := apply(strings.ReplaceAll(manifests, "key-2", "key-1"))
	if r.err == nil || strings.Count(r.stderr, want) != 2 { // the ConfigMap, and the fork
		t.Errorf("by kubectl: %v", r)
	}
	if r := apply(manifests); r.err != nil {
		t.Errorf("with a key of its own: %v", r)
	}
	// Where the ConfigMap says otherwise, admission knows better.
	if r := apply(strings.ReplaceAll(strings.ReplaceAll(manifests, "pr-2", "pr-3"), "key-2", "key-3")); r.err != nil {
		t.Error(r)
	}
	if by := s.kubectl("get", "configmap", "sandbox-pr-3", "-o", "jsonpath={.data.created-by}"); by != who {
		t.Errorf("made by %q, want %q", by, who)
	}
	if r := run(s.command(t.Context(), "kubectl", "-n", s.name, "patch", "configmap", "sandbox-pr-3", "--type=merge", `--patch={"data":{"key":"key-1"}}`)); r.err == nil {
		t.Errorf("a sandbox's key was changed to another's")
	}
	eventually(t, 60*time.Second, "the forks from Git are adopted", func(context.Context) error {
		if owners := s.kubectl("get", "deployment", "worker-pr-2", "-o", "jsonpath={.metadata.ownerReferences[*].name}"); owners != "sandbox-pr-2" {
			return fmt.Errorf("owned by %q", owners)
		}
		return nil
	})
}

func TestAQuotaIsReportedAsSuch(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("worker", 0))
	quotas := s.client.CoreV1().ResourceQuotas(s.name)
	_, err := quotas.Create(t.Context(), &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "few"},
		Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/deployments.apps": resource.MustParse("1")}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 60*time.Second, "the quota is in force", func(ctx context.Context) error {
		q, err := quotas.Get(ctx, "few", metav1.GetOptions{})
		if used := q.Status.Used["count/deployments.apps"]; err != nil || used.Value() != 1 {
			return errors.Join(err, fmt.Errorf("used %s", used.String()))
		}
		return nil
	})
	fork := []string{"fork", "deploy/worker", "--name=pr-1", "--replicas=0", "--image=" + apps.Podinfo(1)}
	r := s.trySandbox(append(fork, "--as=root@example.test", "--as-group=system:masters")...)
	if r.err == nil || !strings.Contains(r.stderr, "can't be created: exceeded quota: few") || !strings.Contains(r.stderr, "kubectl patch resourcequota few") {
		t.Fatalf("%v", r)
	}
	_, fix, _ := strings.Cut(r.stderr, "raised: ")
	if strings.Contains(fix, "--as") {
		t.Errorf("an administrator is told to act as the caller: %s", fix)
	}
	if left := s.kubectl("get", "configmaps,deployments", "-l", sandbox.LabelSandbox+"=pr-1", "-o", "name"); left != "" {
		t.Errorf("left %s", left)
	}
	if mended := s.shell(strings.TrimSpace(fix)); mended.err != nil {
		t.Fatal(mended)
	}
	s.sandbox(fork...)
}

func TestDeleteTakesWhatIsLeftOfAHalfMadeSandbox(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("worker", 0))
	s.sandbox("fork", "deploy/worker", "--name=pr-1", "--replicas=0", "--image="+apps.Podinfo(1))
	s.kubectl("delete", "deployment", "worker-pr-1")
	if r := s.sandbox("delete", "pr-1"); r.stdout != "configmap/sandbox-pr-1 deleted\n" {
		t.Errorf("of a ConfigMap alone it says %q", r.stdout)
	}
	// Applied alone: a ConfigMap deleted by --cascade=orphan takes along what the garbage collector has not seen yet.
	for _, manifest := range strings.Split(s.sandbox("fork", "deploy/worker", "--name=pr-2", "--replicas=0", "--image="+apps.Podinfo(1), "--dry-run=client", "-o", "yaml").stdout, "\n---\n") {
		if strings.Contains(manifest, "kind: Deployment") {
			cmd := s.command(t.Context(), "kubectl", "-n", s.name, "create", "-f", "-")
			cmd.Stdin = strings.NewReader(manifest)
			if r := run(cmd); r.err != nil {
				t.Fatal(r)
			}
		}
	}
	if r := s.sandbox("delete", "pr-2"); r.stdout != "deployment.apps/worker-pr-2 deleted\n" {
		t.Errorf("of a fork alone it says %q", r.stdout)
	}
	if left := s.kubectl("get", "configmaps,deployments", "-l", sandbox.LabelSandbox, "-o", "name"); left != "" {
		t.Errorf("left %s", left)
	}
}

func TestANamespaceHasNoMoreSandboxesThanTheChartSays(t *testing.T) {
	s := newSpace(t)
	values := s.values()
	t.Cleanup(func() {
		s.helm("upgrade", s.helmRelease(), s.chart(), "--values="+values, "--wait", "--timeout=90s")
	})
	s.helm("upgrade", s.helmRelease(), s.chart(), "--values="+values, "--set=sandboxes.maxPerNamespace=2", "--set=sandboxes.defaultTTL=90m", "--wait", "--timeout=90s")
	s.webhookReady(t)
	s.create(podinfo("worker", 0))
	fork := func(name string, more ...string) result {
		return s.trySandbox(append([]string{"fork", "deploy/worker", "--name=" + name, "--replicas=0", "--image=" + apps.Podinfo(1)}, more...)...)
	}
	// Replicas of before may answer for a moment yet.
	eventually(t, 60*time.Second, "the limit is in force", func(context.Context) error {
		for i := range 6 {
			if r := fork(fmt.Sprintf("pr-%d", i)); (r.err == nil) != (i < 2) {
				s.sandbox("delete", "--all")
				return fmt.Errorf("sandbox %d: %v", i, r)
			}
		}
		return nil
	})
	r := fork("one-more")
	if r.err == nil || !strings.Contains(r.stderr, `has 2 of at most 2 sandboxes (chart value sandboxes.maxPerNamespace)`) || !strings.Contains(r.stderr, "kubectl sandbox list") {
		t.Errorf("one too many: %v", r)
	}
	if r := fork("pr-1", "--ttl=1h"); r.err != nil { // what there is goes on
		t.Error(r)
	}
	s.sandbox("delete", "pr-1")
	if r := fork("one-more"); r.err != nil {
		t.Error(r)
	}
	if at := s.expires("one-more"); !in(at, 90*time.Minute) {
		t.Errorf("by the chart's default it expires at %s", at)
	}
}
