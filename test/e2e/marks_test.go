package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// baseline returns an app and its Service as their owner keeps them: ports without names, and a numeric targetPort.
func baseline() (*appsv1.Deployment, *corev1.Service) {
	d, s := podinfo("api", 2), podinfoService("api")
	d.TypeMeta = metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}
	s.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}
	for i := range s.Spec.Ports {
		s.Spec.Ports[i].Protocol = corev1.ProtocolTCP
	}
	for i := range d.Spec.Template.Spec.Containers[0].Ports {
		d.Spec.Template.Spec.Containers[0].Ports[i].Protocol = corev1.ProtocolTCP
	}
	return d, s
}

// manifest writes objects into a file, as their owner has them in Git.
func (s *space) manifest(objects ...any) string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "manifest.yaml")
	var docs []string
	for _, o := range objects {
		b, err := yaml.Marshal(o)
		if err != nil {
			s.t.Fatal(err)
		}
		var m map[string]any
		if err := yaml.Unmarshal(b, &m); err != nil {
			s.t.Fatal(err)
		}
		delete(m, "status")
		if b, err = yaml.Marshal(m); err != nil {
			s.t.Fatal(err)
		}
		docs = append(docs, string(b))
	}
	if err := os.WriteFile(path, []byte(strings.Join(docs, "---\n")), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// A visitor asks a Service again and again, each time over a new connection. It shares no code with the product or the other clients.
type visitor struct {
	stop   func()
	mu     sync.Mutex
	asked  int
	failed []string
}

// visit begins to ask for the app's message; want is what is to be answered, header what is sent along.
func (s *space) visit(want string, header ...string) *visitor {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	v := &visitor{}
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	url := "http://" + s.address("api", "http") + "/api/info"
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			said := visitOnce(client, url, header)
			v.mu.Lock()
			if v.asked++; !strings.Contains(said, want) {
				v.failed = append(v.failed, time.Now().Format("15:04:05.000 ")+said)
			}
			v.mu.Unlock()
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	v.stop = func() { cancel(); <-ended }
	s.t.Cleanup(v.stop)
	return v
}

func visitOnce(client *http.Client, url string, header []string) string {
	req, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		return err.Error()
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	answer, err := client.Do(req)
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return fmt.Sprint(answer.StatusCode, " ", string(body), err)
}

// unfailing holds everything that was asked since the last call to its answer.
func (v *visitor) unfailing(t *testing.T, during string) {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.asked == 0 || len(v.failed) > 0 {
		t.Errorf("%s: %d of %d requests failed:\n%s", during, len(v.failed), v.asked, tail(strings.Join(v.failed, "\n"), 2000))
	}
	v.asked, v.failed = 0, nil
}

// service reads Service api.
func (s *space) service() *corev1.Service {
	s.t.Helper()
	return must[*corev1.Service](s.t)(s.client.CoreV1().Services(s.name).Get(s.t.Context(), "api", metav1.GetOptions{}))
}

// targets waits until all ports of Service api go to names, or to numbers.
func (s *space) targets(kind intstr.Type, within time.Duration, what string) {
	s.t.Helper()
	eventually(s.t, within, what, func(ctx context.Context) error {
		svc, err := s.client.CoreV1().Services(s.name).Get(ctx, "api", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, p := range svc.Spec.Ports {
			if p.TargetPort.Type != kind {
				return fmt.Errorf("port %d goes to %s; annotations %v", p.Port, p.TargetPort.String(), svc.Annotations)
			}
		}
		return nil
	})
}

// unnamed fails the test unless the fault is there: the app's pods are as their owner wrote them, without names and routers.
func (s *space) unnamed(after string) {
	s.t.Helper()
	pods := s.pods("app=api")
	for _, p := range pods {
		if len(p.Spec.InitContainers) > 0 || slices.ContainsFunc(p.Spec.Containers[0].Ports, func(p corev1.ContainerPort) bool { return p.Name != "" }) {
			s.t.Fatalf("%s: pod %s is routed still: nothing is shown", after, p.Name)
		}
	}
	if len(pods) == 0 {
		s.t.Fatalf("%s: no pods", after)
	}
}

// unkept leaves the namespace out of the admission of updates, as if that were away.
func (s *space) unkept() {
	s.t.Helper()
	configurations := s.client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	c, err := configurations.Get(s.t.Context(), "kubectl-sandbox", metav1.GetOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	at := slices.IndexFunc(c.Webhooks, func(w admissionv1.MutatingWebhook) bool { return w.Name == "routed.kubectl-sandbox.dev" })
	if at < 0 {
		s.t.Fatal("there is no webhook routed.kubectl-sandbox.dev")
	}
	path := fmt.Sprintf("/webhooks/%d/namespaceSelector/matchExpressions", at)
	was := c.Webhooks[at].NamespaceSelector.MatchExpressions
	set := func(ctx context.Context, to []metav1.LabelSelectorRequirement) error {
		patch, err := json.Marshal([]map[string]any{
			{"op": "test", "path": fmt.Sprintf("/webhooks/%d/name", at), "value": "routed.kubectl-sandbox.dev"},
			{"op": "replace", "path": path, "value": to},
		})
		if err != nil {
			return err
		}
		_, err = configurations.Patch(ctx, "kubectl-sandbox", types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: "e2e"})
		return err
	}
	here := metav1.LabelSelectorRequirement{Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpNotIn, Values: []string{s.name}}
	if err := set(s.t.Context(), append(slices.Clone(was), here)); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := set(context.Background(), was); err != nil {
			s.t.Error(err)
		}
	})
	// The API server reads the configuration anew in a moment: wait until a routed Service loses its names in a dry run.
	eventually(s.t, 30*time.Second, "admission of updates leaves the namespace out", func(ctx context.Context) error {
		svc, err := s.client.CoreV1().Services(s.name).Get(ctx, "api", metav1.GetOptions{})
		if err != nil {
			return err
		}
		svc.Spec.Ports[0].TargetPort = intstr.FromInt32(httpPort)
		stored, err := s.client.CoreV1().Services(s.name).Update(ctx, svc, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil && stored.Spec.Ports[0].TargetPort.Type == intstr.String {
			err = fmt.Errorf("it is asked still")
		}
		return err
	})
}

// Where admission of updates is away, whatever puts a template without names back, the guard keeps the Service on its endpoints, and
// goes forward again once all pods have the names.
func TestUnderSteadyLoadTheGuardKeepsAServiceOnItsEndpoints(t *testing.T) {
	s := newSpace(t)
	d, svc := baseline()
	file := s.manifest(d, svc)
	s.kubectl("apply", "-f", file)
	s.available("api")
	s.sandbox("route", "deploy/api")
	s.available("api")
	s.targets(intstr.String, time.Second, "route switches the Service to names")
	s.unkept()
	visitor := s.visit(baselineMessage)
	routed := strings.Fields(s.kubectl("get", "deploy/api", "-o", `jsonpath={.metadata.annotations.deployment\.kubernetes\.io/revision}`))[0]

	s.kubectl("rollout", "undo", "deploy/api", "--to-revision=1")
	s.available("api")
	time.Sleep(settle)
	s.unnamed("rollout undo")
	visitor.unfailing(t, "rollout undo to the template that was never routed")
	s.targets(intstr.Int, time.Second, "the guard put numbers back")
	if s.service().Annotations[sandbox.AnnotationRestored] == "" {
		t.Error("the Service does not say why")
	}

	s.kubectl("rollout", "undo", "deploy/api", "--to-revision="+routed)
	s.available("api")
	s.targets(intstr.String, 10*time.Second, "the guard goes forward to names")
	time.Sleep(settle)
	visitor.unfailing(t, "rollout undo to the routed template")
	if note := s.service().Annotations[sandbox.AnnotationRestored]; note != "" {
		t.Errorf("the Service is on names, and says %s", note)
	}

	d.ResourceVersion = ""
	s.kubectl("replace", "-f", s.manifest(d))
	s.available("api")
	time.Sleep(settle)
	s.unnamed("replace")
	visitor.unfailing(t, "replace")

	s.sandbox("route", "deploy/api")
	s.available("api")
	s.targets(intstr.String, time.Second, "route again")
	visitor.unfailing(t, "route")
	visitor.stop()

	// A Deployment of the same name has no marks: within seconds the new pods get the requests, by number.
	s.kubectl("delete", "deploy/api", "--cascade=foreground")
	s.create(podinfo("api", 2))
	s.available("api")
	time.Sleep(settle)
	s.unnamed("delete and create")
	again := s.visit(baselineMessage)
	time.Sleep(settle)
	again.unfailing(t, "delete and create")
	s.guardFailsNothing()
}

// guardFailsNothing holds the guards of all replicas to no failed reconcile.
func (s *space) guardFailsNothing() {
	s.t.Helper()
	pods := must[*corev1.PodList](s.t)(s.client.CoreV1().Pods(s.release).List(s.t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=webhook"}))
	if len(pods.Items) == 0 {
		s.t.Fatal("there is no webhook")
	}
	for _, p := range pods.Items {
		text := s.kubectl("get", "--raw", fmt.Sprintf("/api/v1/namespaces/%s/pods/%s:8080/proxy/metrics", s.release, p.Name))
		reconciles := 0
		for line := range strings.Lines(text) {
			if !strings.Contains(line, `controller="guard"`) {
				continue
			}
			value := strings.TrimSpace(line[strings.LastIndex(line, " "):])
			if strings.HasPrefix(line, "controller_runtime_reconcile_errors_total{") && value != "0" {
				s.t.Errorf("replica %s: %s", p.Name, line)
			}
			if strings.HasPrefix(line, "controller_runtime_reconcile_total{") && value != "0" {
				reconciles++
			}
		}
		if reconciles == 0 {
			s.t.Errorf("replica %s: its guard did nothing", p.Name)
		}
	}
}

// Whoever writes a routed baseline again, its routers stay, no rollout is made, and keyed requests reach the fork all the while.
func TestUnderSteadyLoadMarksStayWhoeverWritesTheBaseline(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	d, svc := baseline()
	file := s.manifest(d, svc)
	s.kubectl("apply", "-f", file)
	s.available("api")
	s.sandbox("route", "deploy/api")
	s.available("api")
	s.sandbox("fork", "deploy/api", "--name=pr-1", "--key=pr-1", "--image="+apps.Podinfo(1))
	unkeyed, keyed := s.visit(baselineMessage), s.visit(apps.Release(1), sandbox.DefaultHeader, "pr-1")
	template := s.deployment("api").Spec.Template
	for _, again := range []struct {
		args  []string
		rolls bool
	}{
		{args: []string{"apply", "--server-side", "-f", file}},
		{args: []string{"apply", "-f", file}},
		{args: []string{"apply", "--server-side", "--field-manager=helm", "-f", file}},
		{args: []string{"replace", "-f", file}},
		{args: []string{"apply", "--server-side", "--force-conflicts", "--field-manager=flux", "-f", file}},
		{args: []string{"rollout", "undo", "deploy/api", "--to-revision=1"}},
		{args: []string{"set", "env", "deploy/api", "CHANGED=1"}, rolls: true},
	} {
		what := "kubectl " + strings.Join(again.args, " ")
		s.kubectl(again.args...)
		s.available("api")
		time.Sleep(settle)
		unkeyed.unfailing(t, what)
		keyed.unfailing(t, what)
		s.targets(intstr.String, time.Second, what+" leaves the Service on names")
		// A Deployment's generation counts changes of its annotations too: the template alone says whether it rolls out.
		now := s.deployment("api").Spec.Template
		if !equality.Semantic.DeepEqual(now, template) && !again.rolls {
			t.Errorf("%s rolls it out: %v, was %v", what, now, template)
		}
		template = now
		for _, m := range slices.Concat(s.service().ManagedFields, s.deployment("api").ManagedFields) {
			if fields := m.FieldsV1.GetRawString(); strings.HasPrefix(m.Manager, "sandbox") && strings.Contains(fields, `"f:spec"`) || strings.HasPrefix(m.Manager, "kubectl-sandbox") {
				t.Errorf("%s: manager %s owns %s", what, m.Manager, fields)
			}
		}
	}
	if dry := s.kubectl("apply", "--server-side", "--dry-run=server", "-f", file, "-o", "jsonpath={.items[1].spec.ports[0].targetPort}"); !strings.HasPrefix(dry, "sbx-") {
		t.Errorf("a server-side dry run shows targetPort %s", dry)
	}
	s.sandbox("delete", "pr-1")
	s.sandbox("unroute", "deploy/api")
	s.available("api")
	unkeyed.unfailing(t, "unroute")
	svcNow := s.service()
	if len(svcNow.Labels) != 0 || svcNow.Annotations[sandbox.AnnotationTargetPorts] != "" || svcNow.Spec.Ports[0].TargetPort.IntVal != httpPort {
		t.Errorf("unrouted, the Service is %v %v %v", svcNow.Labels, svcNow.Annotations, svcNow.Spec.Ports)
	}
	s.unnamed("unroute")
}

// What owners change on purpose is followed: another number in the template and in the Service serves under the name, and is routed.
func TestMarksFollowAnotherPortNumber(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	d, svc := baseline()
	s.kubectl("apply", "-f", s.manifest(d, svc))
	s.available("api")
	s.sandbox("route", "deploy/api")
	s.available("api")
	const other = 9797
	d.Spec.Template.Spec.Containers[0].Args[0] = fmt.Sprintf("--port=%d", other)
	d.Spec.Template.Spec.Containers[0].Ports[0].ContainerPort = other
	d.Spec.Template.Spec.Containers[0].ReadinessProbe.HTTPGet.Port = intstr.FromInt32(other)
	svc.Spec.Ports[0].TargetPort = intstr.FromInt32(other)
	s.kubectl("apply", "-f", s.manifest(d, svc))
	s.available("api")
	s.targets(intstr.String, 10*time.Second, "the controller finds the name of the new number")
	s.sandbox("fork", "deploy/api", "--name=pr-1", "--key=pr-1", "--image="+apps.Podinfo(1))
	unkeyed, keyed := s.visit(baselineMessage), s.visit(apps.Release(1), sandbox.DefaultHeader, "pr-1")
	time.Sleep(settle)
	unkeyed.unfailing(t, "the new number")
	keyed.unfailing(t, "the new number")
}

// A baseline that is deleted leaves no mark on its Services, and a stray pod switches nothing off.
func TestTheGuardLetsGoOfDeletedBaselinesAndOfStrayPodsNotAtAll(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	d, svc := baseline()
	s.kubectl("apply", "-f", s.manifest(d, svc))
	s.available("api")
	s.sandbox("route", "deploy/api")
	s.available("api")

	s.kubectl("run", "stray", "--image="+apps.Podinfo(0), "--labels=app=api", "--port=1", "--", "--port=1")
	eventually(t, 20*time.Second, "an Event names the stray pod", func(context.Context) error {
		if said := s.kubectl("get", "events", "-o", "jsonpath={.items[?(@.reason=='PodWithoutPortName')].message}"); !strings.Contains(said, "stray") {
			return fmt.Errorf("events say %q", said)
		}
		return nil
	})
	s.targets(intstr.String, time.Second, "the Service stays on names")
	s.kubectl("delete", "pod/stray", "--grace-period=1")

	s.kubectl("delete", "deploy/api")
	eventually(t, 5*time.Second, "the Service is its owner's again", func(context.Context) error {
		now := s.service()
		if now.Spec.Ports[0].TargetPort.IntVal != httpPort || now.Labels[sandbox.LabelRole] != "" || now.Annotations[sandbox.AnnotationTargetPorts]+now.Annotations[sandbox.AnnotationWorkloads] != "" {
			return fmt.Errorf("%v %v %v", now.Labels, now.Annotations, now.Spec.Ports)
		}
		return nil
	})
}
