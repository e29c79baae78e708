package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/audit"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// scrape reads the metrics that a pod serves.
func (w *world) scrape(ctx context.Context, namespace, pod, port string) (audit.Series, error) {
	body, err := w.client.CoreV1().Pods(namespace).ProxyGet("http", pod, port, "metrics", nil).DoRaw(ctx)
	if err != nil {
		return nil, err
	}
	return audit.ParseMetrics(bytes.NewReader(body))
}

// scrapeWebhook reads the metrics of all replicas of the webhook; a series is the sum of theirs.
func (w *world) scrapeWebhook(ctx context.Context) (audit.Series, error) {
	pods, err := w.client.CoreV1().Pods(w.release).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=webhook", FieldSelector: "status.phase=Running"})
	if err != nil {
		return nil, err
	}
	sum := audit.Series{}
	for _, p := range pods.Items {
		if p.DeletionTimestamp != nil {
			continue
		}
		series, err := w.scrape(ctx, p.Namespace, p.Name, "8080")
		if err != nil {
			return nil, err
		}
		for name, value := range series {
			sum[name] += value
		}
	}
	return sum, nil
}

// documented returns the names of metrics in the README that begin with a prefix.
func documented(t *testing.T, prefix string) map[string]bool {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(filepath.Dir(shared.programs), "charts", "sandbox", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(content), "## Metrics and alerts")
	if !ok {
		t.Fatal("the chart's README has no section on metrics")
	}
	section, _, _ = strings.Cut(section, "\n#")
	names := map[string]bool{}
	for _, name := range regexp.MustCompile("`"+prefix+"[a-z_]+").FindAllString(section, -1) {
		names[name[1:]] = true
	}
	return names
}

// family is the name under which a series is documented.
func family(series string) string {
	name, _, _ := strings.Cut(series, "{")
	for _, suffix := range []string{"_count", "_sum"} {
		name = strings.TrimSuffix(name, suffix)
	}
	return name
}

func TestTheWebhookServesTheMetricsOfTheReadmeAndTheyTellTheTruth(t *testing.T) {
	s := newSpace(t)
	before := must[audit.Series](t)(s.scrapeWebhook(t.Context()))
	s.create(podinfo("api", 2), podinfoService("api"))
	s.available("api")
	s.sandbox("route", "deploy/api")
	s.available("api")
	s.sandbox("fork", "deploy/api", "--name=pr-1", "--image="+apps.Podinfo(1))
	check := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "check",
		Labels: map[string]string{sandbox.LabelRole: sandbox.RoleCheck, sandbox.LabelSandbox: "pr-1"}, Annotations: map[string]string{sandbox.AnnotationKey: "pr-1"}},
		Spec: podinfoPod()}
	s.create(check)

	rose := func(now audit.Series, name string) float64 { return now[name] - before[name] }
	eventually(t, 30*time.Second, "metrics tell of what there is", func(ctx context.Context) error {
		now, err := s.scrapeWebhook(ctx)
		if err != nil {
			return err
		}
		for name, want := range map[string]float64{
			"sandbox_webhook_sandboxes": 1, "sandbox_webhook_forks": 1, "sandbox_webhook_routers_connected": 2,
			`sandbox_webhook_pods_total{outcome="injected",reason="",role="baseline"}`: 2,
			`sandbox_webhook_pods_total{outcome="injected",reason="",role="fork"}`:     1,
			`sandbox_webhook_pods_total{outcome="injected",reason="",role="check"}`:    1,
			`sandbox_webhook_pods_total{outcome="injected",reason="",role="other"}`:    0,
		} {
			if got := rose(now, name); got != want {
				return fmt.Errorf("%s rose by %v, want %v", name, got, want)
			}
		}
		for name, want := range map[string]float64{
			"sandbox_webhook_leading": 1, "sandbox_webhook_routes_unacknowledged": 0, "sandbox_webhook_unacknowledged_seconds": 0, "sandbox_webhook_tables_stale": 0,
		} {
			if got := now[name]; got != want {
				return fmt.Errorf("%s is %v, want %v", name, got, want)
			}
		}
		if rose(now, "sandbox_webhook_acknowledge_seconds_count") < 4 { // two routers: the empty table, and the fork's route
			return fmt.Errorf("%v acknowledgements were measured", rose(now, "sandbox_webhook_acknowledge_seconds_count"))
		}
		return nil
	})

	served := map[string]bool{}
	for series := range must[audit.Series](t)(s.scrapeWebhook(t.Context())) {
		if strings.HasPrefix(series, "sandbox_webhook_") {
			served[family(series)] = true
		}
	}
	described := documented(t, "sandbox_webhook_")
	for name := range described {
		if !served[name] {
			t.Errorf("the README describes %s, and no replica serves it", name)
		}
	}
	for name := range served {
		if !described[name] && name != "sandbox_webhook_reconcile_failing_seconds" { // described beside reconcile_failing
			t.Errorf("the README does not describe %s", name)
		}
	}
	if len(served) < 12 {
		t.Errorf("only %d metrics are served: %v", len(served), served)
	}
	router := must[audit.Series](t)(s.scrape(t.Context(), s.name, s.pods("app=api")[0].Name, "15360"))
	for name := range documented(t, "sandbox_router_") {
		if _, ok := router[name]; !ok && !hasFamily(router, name) {
			t.Errorf("the README describes %s, and the router does not serve it", name)
		}
	}

	// A pod that came without a router is seen, and so is its end.
	s.kubectl("run", "stray", "--image="+apps.Podinfo(0), "--labels=app=stray")
	s.kubectl("wait", "--for=condition=Ready", "pod/stray", "--timeout=60s")
	s.kubectl("label", "pod/stray", sandbox.LabelRole+"="+sandbox.RoleBaseline, sandbox.LabelWorkload+"="+sandbox.WorkloadLabel("Deployment", "api"))
	without := func(want float64) {
		t.Helper()
		eventually(t, 20*time.Second, fmt.Sprintf("%v pods have no router", want), func(ctx context.Context) error {
			now, err := s.scrapeWebhook(ctx)
			if err == nil && now["sandbox_webhook_pods_without_router"] != want {
				err = fmt.Errorf("metrics say %v", now["sandbox_webhook_pods_without_router"])
			}
			return err
		})
	}
	without(1)
	s.kubectl("delete", "pod/stray", "--wait=false")
	without(0)
}

func hasFamily(series audit.Series, name string) bool {
	for s := range series {
		if family(s) == name {
			return true
		}
	}
	return false
}
