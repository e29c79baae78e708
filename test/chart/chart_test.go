// Package chart_test holds the chart to what a cluster's owner expects of one that is installed with cluster-wide rights: every
// manifest is rendered by the real Helm and read with Kubernetes' own types.
package chart_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func TestChart_Lints(t *testing.T) {
	for name, values := range valueSets() {
		t.Run(name, func(t *testing.T) {
			out, stderr, err := helm(t.Context(), "lint", "--strict", chart, "--values="+valuesFile(t, values))
			if err != nil {
				t.Errorf("%v\n%s%s", err, out, stderr)
			}
		})
	}
}

func TestChart_RendersForAnyNamespaceOnlyWhatTheAPIKnows(t *testing.T) {
	for name, values := range valueSets() {
		for _, namespace := range []string{"kubectl-sandbox", "default", "kube-system"} {
			objects, err := template(t, namespace, values)
			if err != nil {
				t.Errorf("%s in %s: %v", name, namespace, err)
			}
			for _, o := range objects {
				if u, ok := o.(*unstructured.Unstructured); ok && !slices.Contains([]string{"cert-manager.io/v1", "gateway.networking.k8s.io/v1", "monitoring.coreos.com/v1"}, u.GetAPIVersion()) {
					t.Errorf("%s: %s %s is unknown", name, u.GetAPIVersion(), u.GetKind())
				}
			}
		}
	}
}

func TestChart_IsRefusedByAKubernetesItDoesNotWorkOn(t *testing.T) {
	for version, ok := range map[string]bool{"v1.32.9": false, "v1.33.0": true, "v1.37.2": true, "v1.34.1-gke.1200": true} {
		_, stderr, err := helm(t.Context(), "template", "sandbox", chart, "--kube-version="+version)
		if (err == nil) != ok {
			t.Errorf("Kubernetes %s: %v %s", version, err, stderr)
		}
	}
}

func TestValues_UnknownKeysAreRefused(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var defaults map[string]any
	if err := yaml.Unmarshal(content, &defaults); err != nil {
		t.Fatal(err)
	}
	free := []string{"serviceAccount.annotations", "nodeSelector", "podAnnotations", "podLabels",
		"metrics.serviceMonitor.labels", "metrics.podMonitor.labels", "metrics.prometheusRule.labels"} // the user's own keys
	paths := mapsOf("", defaults)
	if len(paths) < 10 {
		t.Fatalf("found only %v", paths)
	}
	for _, path := range paths {
		if slices.Contains(free, path) {
			continue
		}
		_, err := template(t, "kubectl-sandbox", nested(path, "surprise", true))
		if err == nil || !strings.Contains(err.Error(), "surprise") {
			t.Errorf("%s.surprise: got %v, want a refusal that names it", path, err)
		}
	}
}

func TestValues_WrongOnesAreRefused(t *testing.T) {
	for _, tt := range []struct {
		path  string
		value any
		want  string // in the message
	}{
		{"replicas", 0, "replicas"},
		{"replicas", "2", "replicas"},
		{"image.registry", "registry.test/", "registry"},
		{"image.tag", "a b", "tag"},
		{"image.webhookDigest", "sha256:short", "webhookDigest"},
		{"key.header", "X-Key", "header"},
		{"key.header", "baggage", "header"},
		{"key.member", "a=b", "member"},
		{"router.staleAfter", "15", "staleAfter"},
		{"router.resources.requests.cpu", "lots", "cpu"},
		{"router.controlAddresses", []any{"nowhere"}, "controlAddresses"},
		{"certificates.mode", "magic", "mode"},
		{"certificates.mode", "cert-manager", "issuerRef/name"},
		{"certificates.mode", "secret", "secretName"},
		{"log.level", "loud", "level"},
		{"marks.kinds", []any{map[string]any{"group": "argoproj.io"}}, "resource"},
		{"marks.kinds", []any{map[string]any{"group": "argoproj.io", "resource": "rollouts", "template": "spec/template"}}, "template"},
		{"marks.controllers", []any{""}, "controllers"},
		{"sandboxes.defaultTTL", "8", "defaultTTL"},
		{"sandboxes.warnBefore", "soon", "warnBefore"},
		{"sandboxes.maxPerNamespace", -1, "maxPerNamespace"},
		{"shutdownDelaySeconds", -1, "shutdownDelaySeconds"},
		{"podDisruptionBudget.maxUnavailable", "half", "maxUnavailable"},
		{"metrics.serviceMonitor.interval", "30", "interval"},
		{"metrics.podMonitor.enabled", "yes", "enabled"},
		{"metrics.prometheusRule.labels", map[string]any{"release": 1}, "labels"},
		{"metrics.prometheusRule.certificateRemainingSeconds", 0, "certificateRemainingSeconds"},
		{"test.namespace", "kube-system", "test.namespace"},
		{"test.namespace", "kubectl-sandbox", "test.namespace"},
	} {
		folder, key := "", tt.path
		if i := strings.LastIndex(tt.path, "."); i >= 0 {
			folder, key = tt.path[:i], tt.path[i+1:]
		}
		_, err := template(t, "kubectl-sandbox", nested(folder, key, tt.value))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s=%v: got %v, want a refusal that names %s", tt.path, tt.value, err, tt.want)
		}
	}
}

// Each value is described to the reader of values.yaml, and each is in the schema.
func TestValues_AreAllInTheSchema(t *testing.T) {
	content, err := os.ReadFile(filepath.Join(chart, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema struct{ Properties map[string]any }
	if err := json.Unmarshal(content, &schema); err != nil {
		t.Fatal(err)
	}
	values, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var defaults map[string]any
	if err := yaml.Unmarshal(values, &defaults); err != nil {
		t.Fatal(err)
	}
	delete(schema.Properties, "global") // Helm's own
	got, want := slices.Sorted(maps.Keys(schema.Properties)), slices.Sorted(maps.Keys(defaults))
	if !slices.Equal(got, want) {
		t.Errorf("schema has %v, values.yaml %v", got, want)
	}
}

func TestObjects_BearTheRecommendedLabels(t *testing.T) {
	for _, o := range mustTemplate(t, valueSets()["everything"]) {
		accessor, err := meta.Accessor(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, label := range []string{"name", "instance", "version", "component", "part-of", "managed-by"} {
			if accessor.GetLabels()["app.kubernetes.io/"+label] == "" {
				t.Errorf("%T %s lacks label app.kubernetes.io/%s", o, accessor.GetName(), label)
			}
		}
		if got := accessor.GetLabels()["app.kubernetes.io/version"]; got != "v9.9.9" {
			t.Errorf("%T %s has version %s, want the images' tag", o, accessor.GetName(), got)
		}
	}
}

func TestPods_PassPodSecurityRestricted(t *testing.T) {
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range valueSets() {
		objects := mustTemplate(t, values)
		pods := []corev1.Pod{*only[*corev1.Pod](t, objects)}
		for _, d := range all[*appsv1.Deployment](objects) {
			pods = append(pods, corev1.Pod{ObjectMeta: d.Spec.Template.ObjectMeta, Spec: d.Spec.Template.Spec})
		}
		restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
		for _, pod := range pods {
			result := policy.AggregateCheckResults(evaluator.EvaluatePod(restricted, &pod.ObjectMeta, &pod.Spec))
			if !result.Allowed {
				t.Errorf("%s: %s", name, result.ForbiddenDetail())
			}
			for _, c := range pod.Spec.Containers {
				if c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
					t.Errorf("%s: container %s may write to its root", name, c.Name)
				}
				if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
					t.Errorf("%s: container %s lacks requests or a memory limit", name, c.Name)
				}
			}
		}
	}
}

func TestDeployment_KeepsServingThroughAnUpgradeAndADrain(t *testing.T) {
	for name, values := range valueSets() {
		objects := mustTemplate(t, values)
		d := only[*appsv1.Deployment](t, objects)
		if u := d.Spec.Strategy.RollingUpdate; u == nil || u.MaxUnavailable.IntValue() != 0 || u.MaxSurge.IntValue() != 1 {
			t.Errorf("%s: strategy is %+v", name, d.Spec.Strategy)
		}
		delay := argument(t, d, "shutdown-delay")
		want := map[bool]int64{true: 55, false: 40}[name == "everything"]
		if got := *d.Spec.Template.Spec.TerminationGracePeriodSeconds; got != want || delay == "" {
			t.Errorf("%s: termination grace is %ds, delay %s", name, got, delay)
		}
		pdb := only[*policyv1.PodDisruptionBudget](t, objects)
		selects(t, name, pdb.Spec.Selector.MatchLabels, d, objects)
		selects(t, name, only[*corev1.Service](t, objects).Spec.Selector, d, objects)
		selects(t, name, d.Spec.Selector.MatchLabels, d, objects)
		for _, spread := range d.Spec.Template.Spec.TopologySpreadConstraints {
			if spread.WhenUnsatisfiable != corev1.ScheduleAnyway {
				t.Errorf("%s: spread over %s is hard: a cluster with one node could not run it", name, spread.TopologyKey)
			}
			selects(t, name, spread.LabelSelector.MatchLabels, d, objects)
		}
	}
}

// selects holds that a selector takes the webhook's pods, and not the test's.
func selects(t *testing.T, name string, selector map[string]string, d *appsv1.Deployment, objects []runtime.Object) {
	t.Helper()
	s := labels.SelectorFromSet(selector)
	if s.Empty() || !s.Matches(labels.Set(d.Spec.Template.Labels)) || s.Matches(labels.Set(only[*corev1.Pod](t, objects).Labels)) {
		t.Errorf("%s: selector %v", name, s)
	}
}

func TestService_HasThePortsThatRoutersAndAPIServerDial(t *testing.T) {
	objects := mustTemplate(t, nil)
	s := only[*corev1.Service](t, objects)
	if s.Name != "sandbox-webhook" {
		t.Errorf("is called %s", s.Name)
	}
	declared := map[string]int32{}
	for _, p := range only[*appsv1.Deployment](t, objects).Spec.Template.Spec.Containers[0].Ports {
		declared[p.Name] = p.ContainerPort
	}
	got := map[string][2]int32{}
	for _, p := range s.Spec.Ports {
		got[p.Name] = [2]int32{p.Port, declared[p.TargetPort.StrVal]}
	}
	want := map[string][2]int32{"admission": {443, 9443}, "routes": {9444, 9444}, "metrics": {8080, 8080}}
	if !maps.Equal(got, want) {
		t.Errorf("ports are %v, want %v", got, want)
	}
}

func TestWebhooks_AreOptInAndBounded(t *testing.T) {
	for _, namespace := range []string{"kubectl-sandbox", "kube-system"} {
		objects, err := template(t, namespace, nil)
		if err != nil {
			t.Fatal(err)
		}
		c := only[*admissionv1.MutatingWebhookConfiguration](t, objects)
		if c.Name != "kubectl-sandbox" || len(c.Webhooks) != 4 {
			t.Fatalf("%s has %d webhooks", c.Name, len(c.Webhooks))
		}
		for _, w := range c.Webhooks {
			role := strings.TrimSuffix(w.Name, ".kubectl-sandbox.dev")
			want := map[string]admissionv1.FailurePolicyType{sandbox.RoleBaseline: admissionv1.Ignore, sandbox.RoleFork: admissionv1.Fail, sandbox.RoleSandbox: admissionv1.Fail, updates: admissionv1.Ignore}[role]
			if w.FailurePolicy == nil || *w.FailurePolicy != want || want == "" {
				t.Errorf("%s: failurePolicy is %v, want %s", w.Name, w.FailurePolicy, want)
			}
			if *w.TimeoutSeconds < 2 || *w.TimeoutSeconds > 5 {
				t.Errorf("%s: timeout is %ds", w.Name, *w.TimeoutSeconds)
			}
			if *w.SideEffects != admissionv1.SideEffectClassNone || *w.ReinvocationPolicy != admissionv1.IfNeededReinvocationPolicy {
				t.Errorf("%s: sideEffects %s, reinvocationPolicy %s", w.Name, *w.SideEffects, *w.ReinvocationPolicy)
			}
			if len(w.ClientConfig.CABundle) != 0 {
				t.Errorf("%s: an upgrade would reset caBundle", w.Name)
			}
			if role == updates {
				checkUpdates(t, w)
				continue
			}
			checkSelectors(t, namespace, role, w)
		}
	}
}

// updates is the webhook for what is routed.
const updates = "routed"

// checkUpdates holds the webhook for updates to objects that carry a record of ours, and that no controller owns.
func checkUpdates(t *testing.T, w admissionv1.MutatingWebhook) {
	t.Helper()
	if w.ObjectSelector != nil {
		t.Errorf("%s: selects by labels, which a replace leaves out: %v", w.Name, w.ObjectSelector)
	}
	condition := w.MatchConditions[0].Expression
	for _, part := range []string{"oldObject", strconv.Quote(sandbox.AnnotationRouted), strconv.Quote(sandbox.AnnotationTargetPorts), "ownerReferences"} {
		if !strings.Contains(condition, part) {
			t.Errorf("%s: its condition does not look at %s: %s", w.Name, part, condition)
		}
	}
	for _, r := range w.Rules {
		if !slices.Equal(r.Operations, []admissionv1.OperationType{admissionv1.Update}) {
			t.Errorf("%s: operations %v", w.Name, r.Operations)
		}
	}
}

func checkSelectors(t *testing.T, release, role string, w admissionv1.MutatingWebhook) {
	t.Helper()
	objects, err := metav1.LabelSelectorAsSelector(w.ObjectSelector)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []string{"", sandbox.RoleBaseline, sandbox.RoleFork, sandbox.RoleSandbox, sandbox.RoleRoute} {
		set := labels.Set{}
		if r != "" {
			set[sandbox.LabelRole] = r
		}
		// A sandbox's forks are looked at beside it.
		if got := objects.Matches(set); got != (r == role || role == sandbox.RoleSandbox && r == sandbox.RoleFork) {
			t.Errorf("%s: takes objects with role %q: %t", w.Name, r, got)
		}
	}
	namespaces, err := metav1.LabelSelectorAsSelector(w.NamespaceSelector)
	if err != nil {
		t.Fatal(err)
	}
	for namespace, want := range map[string]bool{"kube-system": false, release: false, "apps": true} {
		if got := namespaces.Matches(labels.Set{corev1.LabelMetadataName: namespace}); got != want {
			t.Errorf("%s: takes pods of %s: %t", w.Name, namespace, got)
		}
	}
}

func TestCertificates_AreMountedWhereTheyAreGiven(t *testing.T) {
	for name, secret := range map[string]string{"defaults": "", "cert-manager": "sandbox-webhook-tls", "secret": "webhook-tls"} {
		d := only[*appsv1.Deployment](t, mustTemplate(t, valueSets()[name]))
		got := ""
		for _, v := range d.Spec.Template.Spec.Volumes {
			got = v.Secret.SecretName
		}
		if got != secret {
			t.Errorf("%s: mounts Secret %q, want %q", name, got, secret)
		}
		if mode := argument(t, d, "certificates"); mode != map[bool]string{true: "self", false: "mounted"}[secret == ""] {
			t.Errorf("%s: --certificates=%s", name, mode)
		}
	}
	for _, c := range all[*unstructured.Unstructured](mustTemplate(t, valueSets()["cert-manager"])) {
		names, _, err := unstructured.NestedStringSlice(c.Object, "spec", "dnsNames")
		if err != nil || !slices.Contains(names, "sandbox-webhook.kubectl-sandbox.svc") {
			t.Errorf("certificate is for %v (%v)", names, err)
		}
	}
}

func TestImages_FollowTagAndDigest(t *testing.T) {
	d := only[*appsv1.Deployment](t, mustTemplate(t, map[string]any{"image": map[string]any{"tag": "v9"}}))
	if got := d.Spec.Template.Spec.Containers[0].Image; got != "ghcr.io/kubectl-sandbox/sandbox-webhook:v9" {
		t.Errorf("webhook is %s", got)
	}
	if got := argument(t, d, "router-image"); got != "ghcr.io/kubectl-sandbox/sandbox-router:v9" {
		t.Errorf("router is %s", got)
	}
	d = only[*appsv1.Deployment](t, mustTemplate(t, valueSets()["everything"]))
	if got := d.Spec.Template.Spec.Containers[0].Image; got != "registry.test/team/sandbox-webhook@sha256:"+digest('a') {
		t.Errorf("webhook is %s", got)
	}
	if got := argument(t, d, "router-image"); got != "registry.test/team/sandbox-router@sha256:"+digest('b') {
		t.Errorf("router is %s", got)
	}
	for _, want := range []struct {
		values        map[string]any
		probe, plugin string
	}{
		{map[string]any{"image": map[string]any{"tag": "v9"}}, "ghcr.io/kubectl-sandbox/sandbox-probe:v9", "ghcr.io/kubectl-sandbox/kubectl-sandbox:v9"},
		{valueSets()["everything"], "registry.test/team/sandbox-probe@sha256:" + digest('c'), "registry.test/team/kubectl-sandbox@sha256:" + digest('d')},
	} {
		c := only[*admissionv1.MutatingWebhookConfiguration](t, mustTemplate(t, want.values))
		if got := c.Annotations[sandbox.AnnotationProbeImage]; got != want.probe {
			t.Errorf("probe is %s, want %s", got, want.probe)
		}
		if got := c.Annotations[sandbox.AnnotationPluginImage]; got != want.plugin {
			t.Errorf("plugin is %s, want %s", got, want.plugin)
		}
	}
}

// What the plugin holds load checks to: as numbers that it can read, however large.
func TestLoadChecks_AreHeldToARate(t *testing.T) {
	for want, rate := range map[string]any{"1000": nil, "0": 0, "250": 250, "12.5": 12.5} {
		values := map[string]any{}
		if rate != nil {
			values["experiments"] = map[string]any{"maxRate": rate}
		}
		c := only[*admissionv1.MutatingWebhookConfiguration](t, mustTemplate(t, values))
		if got := c.Annotations[sandbox.AnnotationMaxRate]; got != want {
			t.Errorf("maxRate %v became %q, want %q", rate, got, want)
		}
	}
}

// argument returns the value of a flag of the webhook's.
func argument(t *testing.T, d *appsv1.Deployment, name string) string {
	t.Helper()
	for _, a := range d.Spec.Template.Spec.Containers[0].Args {
		if value, ok := strings.CutPrefix(a, "--"+name+"="); ok {
			return value
		}
	}
	t.Errorf("webhook is not given --%s", name)
	return ""
}

// mapsOf returns the paths of all maps in values, the outermost ("") included.
func mapsOf(path string, values map[string]any) []string {
	paths := []string{path}
	for key, value := range values {
		if m, ok := value.(map[string]any); ok {
			paths = append(paths, mapsOf(strings.TrimPrefix(path+"."+key, "."), m)...)
		}
	}
	return paths
}

// nested returns values in which the map at path has key set.
func nested(path, key string, value any) map[string]any {
	values := map[string]any{key: value}
	if path == "" {
		return values
	}
	parts := strings.Split(path, ".")
	for _, part := range slices.Backward(parts) {
		values = map[string]any{part: values}
	}
	return values
}
