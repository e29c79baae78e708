package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestHelmTestPassesOnAnInstallationThatWorksAndLeavesNothing(t *testing.T) {
	s := newSpace(t)
	out := s.helm("test", s.helmRelease(), "--timeout=6m", "--logs")
	for _, want := range []string{"Phase:          Succeeded", "requests with the key reach the fork, and the others the baseline", "reaches them again"} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), strings.Join(strings.Fields(want), " ")) {
			t.Errorf("helm test does not print %q:\n%s", want, out)
		}
	}
	if strings.Count(out, "admitted with a router") != 2 {
		t.Errorf("helm test does not say of both pods that they are admitted with a router:\n%s", out)
	}
	eventually(t, 60*time.Second, "what the test made is gone", func(ctx context.Context) error {
		_, err := s.client.CoreV1().Namespaces().Get(ctx, s.release+"-test", metav1.GetOptions{})
		if err == nil {
			return fmt.Errorf("namespace %s-test is there", s.release)
		}
		return nil
	})
	left := s.kubectl("--namespace="+s.release, "get", "pods,serviceaccounts,roles,rolebindings", "-l", "app.kubernetes.io/component=test", "-o", "name")
	if left != "" {
		t.Errorf("left %s", left)
	}
}

func (s *space) pod(namespace, name string) *corev1.Pod {
	s.t.Helper()
	pod, err := s.client.CoreV1().Pods(namespace).Get(s.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return pod
}

// selftest runs the test of the chart in the space, as a cluster's admin who gives it a namespace, and returns whether it passed and what
// it printed. Each step has the time that it needs where all is well, with room to spare, and not what a slow cluster takes.
func (s *space) selftest() (bool, string) {
	s.t.Helper()
	rendered := s.helm("template", s.helmRelease(), s.chart(), "--values="+s.values(), "--set=test.namespace="+s.name, "--show-only=templates/tests/routing.yaml")
	const verb = "        - selftest\n"
	if !strings.Contains(rendered, verb) {
		s.t.Fatalf("the chart's test does not run the command selftest:\n%s", rendered)
	}
	rendered = strings.Replace(rendered, verb, verb+"        - --step-timeout=25s\n", 1)
	path := filepath.Join(s.t.TempDir(), "test.yaml")
	if err := os.WriteFile(path, []byte(rendered), 0o600); err != nil {
		s.t.Fatal(err)
	}
	for _, args := range [][]string{{"delete", "--ignore-not-found"}, {"apply"}} { // of several namespaces, which the objects name
		if r := run(s.command(s.t.Context(), "kubectl", append(args, "-f", path)...)); r.err != nil {
			s.t.Fatalf("%v", r)
		}
	}
	s.t.Cleanup(func() { run(s.command(context.Background(), "kubectl", "delete", "--ignore-not-found", "-f", path)) })
	var pod *corev1.Pod
	eventually(s.t, 6*time.Minute, "the test ends", func(context.Context) error {
		if pod = s.pod(s.release, "sandbox-webhook-test"); pod == nil {
			return fmt.Errorf("it has no pod")
		}
		if pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			return fmt.Errorf("its pod is %s", pod.Status.Phase)
		}
		return nil
	})
	r := run(s.command(s.t.Context(), "kubectl", "-n", s.release, "logs", pod.Name))
	return pod.Status.Phase == corev1.PodSucceeded, r.stdout + r.stderr
}

// without takes rights from the webhook for the time of the test.
func (s *space) without(resource string, verbs ...string) {
	s.t.Helper()
	roles := s.client.RbacV1().ClusterRoles()
	role, err := roles.Get(s.t.Context(), "sandbox-webhook", metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	rules := role.DeepCopy().Rules
	set := func(ctx context.Context, rules []rbacv1.PolicyRule) {
		s.t.Helper()
		patch, err := json.Marshal(map[string]any{"rules": rules})
		if err == nil {
			_, err = roles.Patch(ctx, role.Name, types.MergePatchType, patch, metav1.PatchOptions{})
		}
		if err != nil {
			s.t.Error(err)
		}
	}
	found := false
	for i := range role.Rules {
		r := &role.Rules[i]
		if len(r.Resources) != 1 || r.Resources[0] != resource {
			continue
		}
		found = true
		var kept []string
		for _, v := range r.Verbs {
			if !strings.Contains(strings.Join(verbs, " "), v) {
				kept = append(kept, v)
			}
		}
		r.Verbs = kept
	}
	if !found {
		s.t.Fatalf("the webhook has no rights to %s", resource)
	}
	var with []rbacv1.PolicyRule
	for _, r := range role.Rules {
		if len(r.Verbs) > 0 {
			with = append(with, r)
		}
	}
	set(s.t.Context(), with)
	s.t.Cleanup(func() { set(context.Background(), rules) })
}

// Each case takes away one thing that requests need, and the test must say so. They change what the whole cluster shares, so they don't run
// beside others.
func TestHelmTestFailsAndSaysWhyWhere(t *testing.T) {
	t.Run("the webhook is not asked", func(t *testing.T) {
		s := newSpace(t)
		configurations := s.client.AdmissionregistrationV1().MutatingWebhookConfigurations()
		for i := range 2 { // pods of baselines, and of forks
			patch := fmt.Sprintf(`[{"op":"add","path":"/webhooks/%d/namespaceSelector/matchExpressions/-","value":{"key":"kubernetes.io/metadata.name","operator":"NotIn","values":[%q]}}]`, i, s.name)
			if _, err := configurations.Patch(t.Context(), "kubectl-sandbox", types.JSONPatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				back := fmt.Sprintf(`[{"op":"remove","path":"/webhooks/%d/namespaceSelector/matchExpressions/1"}]`, i)
				if _, err := configurations.Patch(context.Background(), "kubectl-sandbox", types.JSONPatchType, []byte(back), metav1.PatchOptions{}); err != nil {
					t.Error(err)
				}
			})
		}
		s.failsWith("the API server did not get an answer from the webhook")
	})
	t.Run("routes are not served", func(t *testing.T) {
		s := newSpace(t)
		s.expectErrorsAnywhere(t, `can't tell who a router is`, "the webhook may not review the routers' tokens")
		s.without("tokenreviews", "create")
		s.failsWith("the fork is not routed")
	})
	t.Run("the Service guard can't write", func(t *testing.T) {
		s := newSpace(t)
		s.expectErrors(`cannot patch resource \\"services\\"`, "the guard may not write Services")
		s.without("services", "patch")
		s.failsWith("the Service guard of the webhook did not put the port's number back")
	})
}

func (s *space) failsWith(want string) {
	s.t.Helper()
	passed, said := s.selftest()
	if passed || !strings.Contains(said, want) {
		s.t.Errorf("passed: %t; it does not say %q:\n%s", passed, want, said)
	}
	for _, left := range []string{"deployments", "services", "configmaps"} {
		if names := s.kubectl("get", left, "-o", "name"); strings.Contains(names, "selftest") {
			s.t.Errorf("it left %s", names)
		}
	}
}
