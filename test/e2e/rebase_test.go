package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// deployment reads a Deployment.
func (s *space) deployment(name string) *appsv1.Deployment {
	s.t.Helper()
	return must[*appsv1.Deployment](s.t)(s.client.AppsV1().Deployments(s.name).Get(s.t.Context(), name, metav1.GetOptions{}))
}

// variable returns what the first container has a variable set to; empty: it is not set.
func variable(d *appsv1.Deployment, name string) string {
	for _, e := range d.Spec.Template.Spec.Containers[0].Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

// rename gives the first container of a Deployment or StatefulSet another name.
func (s *space) rename(workload, container string) {
	s.t.Helper()
	s.kubectl("patch", workload, "--type=json", `-p=[{"op":"replace","path":"/spec/template/spec/containers/0/name","value":"`+container+`"}]`)
}

func TestRebaseLaysTheChangeOnTheBaselineAsItIsNow(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	routedAPI(s)
	s.create(httpbin("worker", 1))
	s.sandbox("fork", "deploy/api", "--name=pr-1", "--key=key-1", "--image="+apps.Podinfo(1), "--env=FORK=1")
	s.sandbox("fork", "deploy/worker", "--name=pr-1", "--env=FORK=1")
	if out := s.sandbox("rebase", "pr-1").stdout; !strings.Contains(out, "deployment.apps/api-pr-1 unchanged") {
		t.Errorf("with nothing to rebase:\n%s", out)
	}
	s.kubectl("set", "env", "deploy/api", "BASELINE=1")
	s.available("api")
	for verb, want := range map[string]string{
		"status": "behind: deployment.apps/api-pr-1 lacks later changes of deployment/api\nhint: rebase the fork: kubectl sandbox rebase pr-1 deployment/api",
		"list":   "kubectl sandbox rebase pr-1",
	} {
		args := []string{verb}
		if verb == "status" {
			args = append(args, "pr-1")
		}
		if r := s.sandbox(args...); !strings.Contains(r.stdout+r.stderr, want) {
			t.Errorf("%s does not say %q:\n%s", verb, want, r)
		}
	}
	planned := objects(t, s.sandbox("rebase", "pr-1", "deploy/api", "--dry-run=client", "-o", "yaml").stdout)
	judged := objects(t, s.sandbox("rebase", "pr-1", "deploy/api", "--dry-run=server", "-o", "yaml").stdout)
	if d := s.deployment("api-pr-1"); variable(d, "BASELINE") != "" {
		t.Errorf("dry runs changed the fork: %v", d.Spec.Template.Spec.Containers[0].Env)
	}
	applied := objects(t, s.sandbox("rebase", "pr-1", "-o", "yaml").stdout)
	for name, want := range map[string]map[string]any{"planned": planned["api-pr-1"], "judged": judged["api-pr-1"]} {
		if missing := within("", want, applied["api-pr-1"]); len(missing) > 0 {
			t.Errorf("%s, but not applied: %v", name, missing)
		}
	}
	d := s.deployment("api-pr-1")
	if variable(d, "BASELINE") != "1" || variable(d, "FORK") != "1" || d.Spec.Template.Spec.Containers[0].Image != apps.Podinfo(1) {
		t.Errorf("the fork runs %s with %v", d.Spec.Template.Spec.Containers[0].Image, d.Spec.Template.Spec.Containers[0].Env)
	}
	if out := s.sandbox("status", "pr-1").stdout; strings.Contains(out, "behind") {
		t.Errorf("it is behind still:\n%s", out)
	}
	c := newH1(s.address("api", "http"))
	defer c.close()
	if a, err := c.call(t.Context(), carriers("key-1")[0]); err != nil || a.Message != apps.Release(1) {
		t.Errorf("a keyed request after the rebase: %+v, %v", a, err)
	}

	// What conflicts in one fork changes none.
	s.kubectl("set", "env", "deploy/worker", "BASELINE=1")
	s.rename("deploy/api", "renamed")
	api, worker := s.deployment("api-pr-1"), s.deployment("worker-pr-1")
	r := s.trySandbox("rebase", "pr-1")
	want := "error: the change of deployment.apps/api-pr-1 no longer fits deployment.apps/api, which changed since; nothing was written\n  spec.containers[app] is gone\n"
	if r.err == nil || !strings.HasPrefix(r.stderr, want) {
		t.Errorf("a conflict:\n%s\nwant\n%s", r, want)
	}
	for _, before := range []*appsv1.Deployment{api, worker} {
		if after := s.deployment(before.Name); after.Generation != before.Generation || after.Annotations[sandbox.AnnotationBaseline] != before.Annotations[sandbox.AnnotationBaseline] {
			t.Errorf("%s was changed", before.Name)
		}
	}
	s.sandbox("rebase", "pr-1", "deploy/worker")
	if variable(s.deployment("worker-pr-1"), "BASELINE") != "1" {
		t.Error("the other fork was not rebased by itself")
	}
}

func TestForkFollowsItsBaseline(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	web := httpbin("web", 1)
	s.create(web, &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "db"}, Spec: appsv1.StatefulSetSpec{
		Selector: httpbin("db", 1).Spec.Selector, Template: *httpbin("db", 1).Spec.Template.DeepCopy(),
	}})
	s.sandbox("fork", "deploy/web", "statefulset/db", "--name=f", "--env=FORK=1", "--follow")
	of := map[string]string{"web-f": "deployment/web", "db-f": "statefulset/db"}
	for _, workload := range of {
		s.kubectl("set", "env", workload, "BASELINE=1")
	}
	followed := func(name string) sandbox.Followed {
		f, _ := sandbox.ParseFollowed(s.deployment(name).Annotations[sandbox.AnnotationFollowed])
		return f
	}
	for name, workload := range of {
		want := s.generation(workload)
		eventually(t, 60*time.Second, name+" follows", func(context.Context) error {
			d := s.deployment(name)
			if f := followed(name); variable(d, "BASELINE") != "1" || variable(d, "FORK") != "1" || f.Generation != want || f.Conflict != "" {
				return fmt.Errorf("it says %+v, want generation %d; env %v", f, want, d.Spec.Template.Spec.Containers[0].Env)
			}
			return nil
		})
		s.event(name, corev1.EventTypeNormal, "Followed", fmt.Sprintf("laid on generation %d", want))
	}

	// A conflict is told once, and waits for a change.
	s.rename("deploy/web", "renamed")
	want := s.generation("deploy/web")
	eventually(t, 60*time.Second, "the conflict is noted", func(context.Context) error {
		if f := followed("web-f"); f.Generation != want || f.Conflict != "spec.containers[app] is gone" {
			return fmt.Errorf("it says %+v, want generation %d", f, want)
		}
		return nil
	})
	s.event("web-f", corev1.EventTypeWarning, "FollowConflict", "spec.containers[app] is gone")
	if out := s.sandbox("status", "f").stdout; !strings.Contains(out, fmt.Sprintf("conflict: deployment.apps/web-f can't follow deployment/web to generation %d\n  spec.containers[app] is gone", want)) {
		t.Errorf("status does not tell the conflict:\n%s", out)
	}
	writes := s.writes("web-f", 5*time.Second)
	if len(writes) > 0 {
		t.Errorf("a conflict writes again and again: %v", writes)
	}
	s.rename("deploy/web", "app")
	eventually(t, 60*time.Second, "it follows again", func(context.Context) error {
		if f := followed("web-f"); f.Conflict != "" {
			return errors.New(f.Conflict)
		}
		return nil
	})

	// Nobody follows who was told not to.
	s.sandbox("fork", "deploy/web", "--name=f", "--follow=false")
	s.kubectl("set", "env", "deploy/web", "BASELINE=2")
	s.kubectl("set", "env", "statefulset/db", "BASELINE=2")
	eventually(t, 60*time.Second, "the other one follows", func(context.Context) error {
		if v := variable(s.deployment("db-f"), "BASELINE"); v != "2" {
			return fmt.Errorf("BASELINE is %q", v)
		}
		return nil
	})
	if v := variable(s.deployment("web-f"), "BASELINE"); v != "1" {
		t.Errorf("it follows still: BASELINE is %q", v)
	}
	if out := s.sandbox("status", "f").stdout; !strings.Contains(out, "behind: deployment.apps/web-f") {
		t.Errorf("it is not behind:\n%s", out)
	}
}

// generation returns what the API server numbers a workload's spec by.
func (s *space) generation(workload string) (n int64) {
	s.t.Helper()
	if _, err := fmt.Sscan(s.kubectl("get", workload, "-o", "jsonpath={.metadata.generation}"), &n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// event waits for an Event about a Deployment.
func (s *space) event(deployment, kind, reason, says string) {
	s.t.Helper()
	eventually(s.t, 20*time.Second, reason+" of "+deployment, func(ctx context.Context) error {
		list, err := s.client.CoreV1().Events(s.name).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + deployment + ",reason=" + reason})
		if err != nil {
			return err
		}
		var got []string
		for _, e := range list.Items {
			if e.Type == kind && strings.Contains(e.Message, says) {
				return nil
			}
			got = append(got, e.Type+" "+e.Message)
		}
		return fmt.Errorf("there are %q", got)
	})
}

// writes returns who writes metadata or spec of a Deployment for that long.
func (s *space) writes(name string, d time.Duration) (by []string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), d)
	defer cancel()
	now := s.deployment(name)
	w, err := s.client.AppsV1().Deployments(s.name).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name, ResourceVersion: now.ResourceVersion})
	if err != nil {
		s.t.Fatal(err)
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		d, ok := e.Object.(*appsv1.Deployment)
		if !ok {
			continue
		}
		last := slices.MaxFunc(d.ManagedFields, func(a, b metav1.ManagedFieldsEntry) int { return a.Time.Compare(b.Time.Time) })
		if last.Subresource == "" {
			by = append(by, last.Manager)
		}
	}
	return by
}

// objects reads what -o yaml printed, by name, without what the API server adds.
func objects(t *testing.T, text string) map[string]map[string]any {
	t.Helper()
	out := map[string]map[string]any{}
	for _, doc := range strings.Split(text, "\n---\n") {
		var o map[string]any
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		m, _ := o["metadata"].(map[string]any)
		if m == nil {
			continue
		}
		for _, k := range []string{"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"} {
			delete(m, k)
		}
		delete(o, "status")
		out[fmt.Sprint(m["name"])] = o
	}
	return out
}

// within returns the places in which want is not as in got, which may have more.
func within(at string, want, got any) []string {
	switch want := want.(type) {
	case map[string]any:
		g, _ := got.(map[string]any)
		var missing []string
		for k, v := range want {
			missing = append(missing, within(at+"."+k, v, g[k])...)
		}
		return missing
	case []any:
		g, _ := got.([]any)
		if len(g) != len(want) {
			return []string{fmt.Sprintf("%s: %v, got %v", at, want, got)}
		}
		var missing []string
		for i := range want {
			missing = append(missing, within(fmt.Sprintf("%s[%d]", at, i), want[i], g[i])...)
		}
		return missing
	}
	if fmt.Sprint(want) != fmt.Sprint(got) {
		return []string{fmt.Sprintf("%s: %v, got %v", at, want, got)}
	}
	return nil
}
