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

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/apps"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// apply applies manifests, with what stands for IMAGE replaced.
func (s *space) apply(manifest string) {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "objects.yaml")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(manifest, "IMAGE", apps.Podinfo(0))), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.kubectl("apply", "-f", path)
}

func (s *space) applyFile(name string) {
	s.t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		s.t.Fatal(err)
	}
	s.apply(string(b))
}

// A fork of a workload of each kind is seen by nothing that the baselines have.
func TestNothingThatSelectsTheBaselinesPodsSeesAFork(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.env = []string{"KUBECACHEDIR=" + t.TempDir()} // the kinds are new to the API server
	s.applyFile("capture-kinds.yaml")
	s.t.Cleanup(func() {
		r := run(s.command(context.Background(), "kubectl", "delete", "--ignore-not-found", "--wait=false", "customresourcedefinition/fleets.e2e.example.test", "customresourcedefinition/podmonitors.monitoring.coreos.com"))
		if r.err != nil {
			t.Error(r)
		}
	})
	s.kubectl("wait", "--for=condition=Established", "--timeout=30s", "customresourcedefinition/fleets.e2e.example.test", "customresourcedefinition/podmonitors.monitoring.coreos.com")
	s.applyFile("capture.yaml")
	s.available("api")
	s.rolled("statefulset", "db")
	s.rolled("daemonset", "agent")
	s.rolled("replicaset", "bare")
	s.sandbox("route", "deploy/api")
	s.available("api")

	r := s.sandbox("fork", "deploy/api", "statefulset/db", "daemonset/agent", "replicaset/bare", "fleets.e2e.example.test/web", "--name=pr-1", "--key=key-1", "--env=PODINFO_UI_MESSAGE=forked")
	for _, said := range []string{
		"the anti-affinity of deployment.apps/api-pr-1 is among its own pods",
		"podmonitor.monitoring.coreos.com/wide selects the pods of deployment.apps/bare-pr-1 as well",
		"statefulset.apps/db: no Service selects it",
	} {
		if !strings.Contains(r.stderr, said) {
			t.Errorf("it does not say %q: %v", said, r)
		}
	}
	forks := s.pods(sandbox.LabelRole + "=" + sandbox.RoleFork)
	if len(forks) != 5 {
		t.Fatalf("there are %d pods of forks", len(forks))
	}
	s.checkSelectors(forks)
	s.checkStatuses(map[string]int{"poddisruptionbudget/api": 1, "poddisruptionbudget/all": 4, "horizontalpodautoscaler/api": 1, "horizontalpodautoscaler/web": 1})

	// Nor does it keep the baseline's next pod off the one node.
	s.kubectl("rollout", "restart", "deployment/api")
	s.available("api")

	s.sandbox("delete", "pr-1")

	// Where a custom kind has its template elsewhere, the fork remembers it.
	s.sandbox("fork", "fleets.e2e.example.test/deep", "--template-path=spec.workload.template", "--name=pr-2", "--env=FORK=1", "--replicas=0")
	s.kubectl("patch", "fleets.e2e.example.test/deep", "--type=json", `-p=[{"op":"add","path":"/spec/workload/template/spec/containers/0/env","value":[{"name":"BASELINE","value":"1"}]}]`)
	s.sandbox("rebase", "pr-2")
	if d := s.deployment("deep-pr-2"); variable(d, "FORK") != "1" || variable(d, "BASELINE") != "1" {
		t.Errorf("rebased, the fork of fleet deep has %v", d.Spec.Template.Spec.Containers[0].Env)
	}
}

// checkSelectors holds the forks' pods against what the cluster made of every selector.
func (s *space) checkSelectors(forks []corev1.Pod) {
	s.t.Helper()
	isFork := map[string]bool{}
	for _, p := range forks {
		isFork[p.Name] = true
	}
	slices, err := s.client.DiscoveryV1().EndpointSlices(s.name).List(s.t.Context(), metav1.ListOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	endpoints := 0
	for _, slice := range slices.Items {
		for _, e := range slice.Endpoints {
			endpoints++
			if isFork[e.TargetRef.Name] {
				s.t.Errorf("EndpointSlice %s holds the fork's pod %s", slice.Name, e.TargetRef.Name)
			}
		}
	}
	if endpoints != 5 { // of service api its one pod, of service team the four that have its label
		s.t.Errorf("the EndpointSlices hold %d endpoints, want 5", endpoints)
	}
	sets, err := s.client.AppsV1().ReplicaSets(s.name).List(s.t.Context(), metav1.ListOptions{LabelSelector: sandbox.LabelRole + "!=" + sandbox.RoleFork})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, set := range sets.Items {
		selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
		if err != nil {
			s.t.Fatal(err)
		}
		if set.Status.Replicas != *set.Spec.Replicas {
			s.t.Errorf("ReplicaSet %s counts %d pods, and is to have %d", set.Name, set.Status.Replicas, *set.Spec.Replicas)
		}
		for _, p := range forks {
			if metav1.IsControlledBy(&p, &set) || selector.Matches(labels.Set(p.Labels)) {
				s.t.Errorf("ReplicaSet %s has the fork's pod %s", set.Name, p.Name)
			}
		}
	}
	for _, object := range []string{"deployments.v1.apps/api", "statefulsets.v1.apps/db", "replicasets.v1.apps/bare", "fleets.v1.e2e.example.test/web"} {
		kind, name, _ := strings.Cut(object, "/")
		text := s.kubectl("get", kind, name, "--subresource=scale", "-o", "jsonpath={.status.selector}")
		selector, err := labels.Parse(text)
		if err != nil || selector.Empty() {
			s.t.Fatalf("the scale of %s selects by %q: %v", object, text, err)
		}
		for _, p := range forks {
			if selector.Matches(labels.Set(p.Labels)) {
				s.t.Errorf("an autoscaler of %s measures the fork's pod %s", object, p.Name)
			}
		}
	}
}

// checkStatuses has the controllers of budgets and autoscalers look once more, and holds the pods that they count against those
// that there are of the baselines.
func (s *space) checkStatuses(want map[string]int) {
	s.t.Helper()
	for object := range want {
		field := `{"spec":{"maxReplicas":3}}`
		if strings.HasPrefix(object, "poddisruptionbudget") {
			field = `{"spec":{"minAvailable":1}}`
		}
		s.kubectl("patch", object, "--type=merge", "--patch="+field)
	}
	for object, count := range want {
		eventually(s.t, 60*time.Second, "the status of "+object+" is up to date", func(context.Context) error {
			var o struct {
				Metadata struct{ Generation int64 }
				Status   struct {
					ObservedGeneration int64
					ExpectedPods       int // of a budget
					CurrentReplicas    int // of an autoscaler
				}
			}
			if err := json.Unmarshal([]byte(s.kubectl("get", object, "-o", "json")), &o); err != nil {
				return err
			}
			if o.Status.ObservedGeneration != o.Metadata.Generation && strings.HasPrefix(object, "poddisruptionbudget") || o.Status.ExpectedPods+o.Status.CurrentReplicas == 0 {
				return fmt.Errorf("status %+v at generation %d", o.Status, o.Metadata.Generation)
			}
			if got := o.Status.ExpectedPods + o.Status.CurrentReplicas; got != count {
				s.t.Errorf("%s counts %d pods, want %d", object, got, count)
			}
			return nil
		})
	}
}

// What would catch a fork refuses it before anything is written, and the command that is printed mends it.
func TestWhatWouldCatchAForkRefusesIt(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("api", 0, func(d *appsv1.Deployment) { d.Spec.Template.Labels = map[string]string{"app": "api", "team": "shop"} }))
	for _, tt := range []struct {
		name, object string
		args         []string
		said         string
		again        bool // the same fork succeeds after the command, which does not fork by itself
	}{
		{"a budget over everything", `{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: x}, spec: {selector: {}}}`,
			nil, "poddisruptionbudget.policy/x selects the pods of the fork", true},
		{"a budget by exclusion", `{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: x}, spec: {selector: {matchExpressions: [{key: app, operator: NotIn, values: [none]}]}}}`,
			nil, "poddisruptionbudget.policy/x selects the pods of the fork", true},
		{"a Service by our labels", `{apiVersion: v1, kind: Service, metadata: {name: x}, spec: {selector: {kubectl-sandbox.dev/workload: deployment.api}, ports: [{port: 80}]}}`,
			nil, "service/x selects the pods of the fork", true},
		{"a Deployment by the absence of a label", `{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}, spec: {replicas: 0, selector: {matchExpressions: [{key: team, operator: DoesNotExist}]},
  template: {metadata: {labels: {app: x}}, spec: {containers: [{name: x, image: x}]}}}}`,
			nil, "deployment.apps/x selects the pods of the fork", false},
		{"a StatefulSet by a kept label", `{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: x}, spec: {replicas: 0, serviceName: x, selector: {matchLabels: {team: shop}},
  template: {metadata: {labels: {team: shop}}, spec: {containers: [{name: x, image: x}]}}}}`,
			[]string{"--keep-label=team"}, "--keep-label team: with it, statefulset.apps/x selects", false},
		{"a DaemonSet by a kept label", `{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: x}, spec: {selector: {matchLabels: {team: shop}},
  template: {metadata: {labels: {team: shop}}, spec: {nodeSelector: {no: where}, containers: [{name: x, image: x}]}}}}`,
			[]string{"--keep-label=team"}, "--keep-label team: with it, daemonset.apps/x selects", false},
		{"a ReplicaSet by a kept label", `{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: x}, spec: {replicas: 0, selector: {matchLabels: {team: shop}},
  template: {metadata: {labels: {team: shop}}, spec: {containers: [{name: x, image: x}]}}}}`,
			[]string{"--keep-label=team"}, "--keep-label team: with it, replicaset.apps/x selects", false},
		{"the autoscaler's target itself", `{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: x}, spec: {maxReplicas: 2, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: api}}}`,
			[]string{"--keep-label=app"}, "and horizontalpodautoscaler/x would measure them with it", false},
	} {
		s.apply(tt.object)
		fork := append([]string{"fork", "deploy/api", "--name=pr-1", "--replicas=0", "--env=A=b"}, tt.args...)
		r := s.trySandbox(fork...)
		if r.err == nil || !strings.Contains(r.stderr, tt.said) {
			t.Errorf("%s: got %v, want %q", tt.name, r, tt.said)
			continue
		}
		if left := s.kubectl("get", "configmaps,deployments", "-l", sandbox.LabelSandbox, "-o", "name"); left != "" {
			t.Errorf("%s: it wrote %s", tt.name, left)
		}
		if pasted := s.shell(printedCommand(r.stderr)); pasted.err != nil {
			t.Errorf("%s: the printed command fails: %v", tt.name, pasted)
			continue
		}
		if tt.again {
			s.sandbox(fork...)
		}
		if made := s.kubectl("get", "deployments", "-l", sandbox.LabelSandbox+"=pr-1", "-o", "name"); made != "deployment.apps/api-pr-1\n" {
			t.Errorf("%s: mended, there is %q", tt.name, made)
		}
		s.sandbox("delete", "pr-1")
		s.kubectl("delete", "--wait=true", strings.Fields(strings.ToLower(kindOf(tt.object)))[0]+"/x")
	}
}

// Who may not read all that a fork is held against is told what was not.
func TestForkSaysWhatItCouldNotRead(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.create(podinfo("api", 0))
	s.kubectl("create", "role", "few", "--verb=get,list", "--resource=configmaps,services,networkpolicies.networking.k8s.io,deployments.apps,daemonsets.apps,replicasets.apps")
	s.kubectl("create", "rolebinding", "few", "--role=few", "--user=few@example.test")
	r := s.sandbox(append([]string{"fork", "deploy/api", "--name=pr-1", "--replicas=0", "--env=A=b", "--dry-run=client"}, as("few@example.test")...)...)
	const want = "could not read horizontalpodautoscalers.autoscaling, poddisruptionbudgets.policy, "
	if !strings.Contains(r.stderr, want) || !strings.Contains(r.stderr, "statefulsets.apps: whether they select the forks' pods is not known") {
		t.Errorf("got %v, want %q", r, want)
	}
}

// kindOf returns the kind of a manifest in one line.
func kindOf(object string) string {
	_, rest, _ := strings.Cut(object, "kind: ")
	kind, _, _ := strings.Cut(rest, ",")
	return kind
}
