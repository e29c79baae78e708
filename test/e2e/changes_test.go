package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
)

// environment returns the variables of the process that answers a keyed request to api, by its own word.
func (s *space) environment(key string) []string {
	s.t.Helper()
	resp, body := (&opened{t: s.t, client: http.DefaultClient}).get("http://"+s.address("api", "http")+"/env", "x-sandbox-key", key)
	var env []string
	if err := json.Unmarshal([]byte(body), &env); err != nil {
		s.t.Fatalf("%s: %v: %.200s", resp.Status, err, body)
	}
	return env
}

func TestEveryChangeOfAForkReachesItsProcess(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	baseline := podinfo("api", 1)
	c := &baseline.Spec.Template.Spec.Containers[0]
	c.Env = []corev1.EnvVar{{Name: "KEPT", Value: "kept"}, {Name: "GONE", Value: "gone"}, {Name: "SET", Value: "baseline"}}
	s.create(baseline, podinfoService("api"))
	s.kubectl("create", "secret", "generic", "settings", "--from-literal=password=from the secret")
	s.kubectl("create", "configmap", "settings", "--from-literal=level=from the config map")
	s.kubectl("create", "serviceaccount", "settings")
	s.available("api")
	s.sandbox("route", "deploy/api")
	s.available("api")

	args, err := json.Marshal(append(slices.Clone(c.Args), "--random-delay=false"))
	if err != nil {
		t.Fatal(err)
	}
	s.sandbox("fork", "deploy/api", "--name=pr-1", "--key=key-1", "--image="+apps.Podinfo(1),
		"--env=SET=fork", "--env=GONE-", "--env=PASSWORD@secret/settings/password", "--env=LEVEL@configmap/settings/level",
		`--command=["/podinfo"]`, "--args="+string(args), "--resources=limits.memory=96Mi,requests.cpu=2m", "--service-account=settings")
	env := s.environment("key-1")
	for _, want := range []string{"KEPT=kept", "SET=fork", "PASSWORD=from the secret", "LEVEL=from the config map", "SANDBOX_NAME=pr-1"} {
		if !slices.Contains(env, want) {
			t.Errorf("the fork's process has no %s", want)
		}
	}
	if slices.Contains(env, "GONE=gone") {
		t.Error("the fork's process has the variable that was taken away")
	}
	if env := s.environment("another"); !slices.Contains(env, "SET=baseline") || !slices.Contains(env, "GONE=gone") {
		t.Errorf("the baseline's process has %v", env)
	}
	pod := s.pods("kubectl-sandbox.dev/sandbox=pr-1")[0]
	app := pod.Spec.Containers[slices.IndexFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == "app" })]
	if pod.Spec.ServiceAccountName != "settings" || app.Resources.Limits.Memory().String() != "96Mi" || app.Resources.Requests.Cpu().String() != "2m" ||
		!slices.Equal(app.Command, []string{"/podinfo"}) || app.Args[len(app.Args)-1] != "--random-delay=false" {
		t.Errorf("the fork's pod runs %s as %s: %v %v %v", app.Image, pod.Spec.ServiceAccountName, app.Command, app.Args, app.Resources)
	}

	// Each kind of patch, the last from a file and in YAML.
	file := filepath.Join(t.TempDir(), "patch.yaml")
	if err := os.WriteFile(file, []byte("- op: add\n  path: /spec/containers/0/env/-\n  value: {name: BY, value: json}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for by, change := range map[string][]string{
		"strategic": {`--patch={"spec":{"containers":[{"name":"app","env":[{"name":"BY","value":"strategic"}]}]}}`},
		"merge":     {"--patch-type=merge", `--patch={"metadata":{"annotations":{"by":"merge"}}}`, "--env=BY=merge"},
		"json":      {"--patch-type=json", "--patch-file=" + file},
	} {
		s.sandbox(append([]string{"fork", "deploy/api", "--name=" + by, "--key=key-" + by}, change...)...)
		if env := s.environment("key-" + by); !slices.Contains(env, "BY="+by) || !slices.Contains(env, "KEPT=kept") {
			t.Errorf("by a %s patch, the process has %v", by, env)
		}
	}

	want := `--- deployment.apps/api
+++ deployment.apps/api-strategic
@@`
	r := s.trySandbox("diff", "strategic") // ends with 1 where there is a difference, as kubectl diff does
	if diff := r.stdout; !strings.Contains(diff, want) || !strings.Contains(diff, "+    - name: BY\n+      value: strategic\n") || strings.Contains(diff, "KEPT\n+") {
		t.Errorf("diff prints\n%s", r)
	}

	// A field that does not exist changes nothing, be the fork new or not.
	bogus := []string{"fork", "deploy/api", "--key=key-new", "--patch-type=merge", `--patch={"spec":{"bogus":1}}`}
	before := s.deployment("api-merge")
	for _, name := range []string{"merge", "new"} {
		args := append(slices.Clone(bogus), "--name="+name)
		if name == "merge" {
			args = slices.DeleteFunc(args, func(a string) bool { return strings.HasPrefix(a, "--key") })
		}
		says := "error: deployment.apps/api-" + name + " can't be created: the API server knows no field .spec.template.spec.bogus of Deployments\n"
		if r := s.trySandbox(args...); r.err == nil || !strings.HasPrefix(r.stderr, says) || strings.Contains(r.stderr, "left") {
			t.Errorf("a field that does not exist:\n%s\nwant\n%s", r, says)
		}
	}
	if after := s.deployment("api-merge"); after.Generation != before.Generation {
		t.Error("the fork was changed")
	}
	if r := s.sandbox("list"); strings.Contains(r.stdout, "new") {
		t.Errorf("a sandbox was left:\n%s", r)
	}
}
