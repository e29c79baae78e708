package fork_test

import (
	"reflect"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
)

func parseYAML(t *testing.T, text string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := yaml.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return whole(m).(map[string]any)
}

func forkOf(t *testing.T, template map[string]any, keep ...string) *unstructured.Unstructured {
	t.Helper()
	baseline := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment",
		"metadata": map[string]any{"name": "api", "namespace": "shop"},
		"spec":     map[string]any{"template": template},
	}}
	before := runtime.DeepCopyJSON(baseline.Object)
	d, err := fork.Deployment(baseline, fork.Options{Name: "api-pr-1", Sandbox: "pr-1", KeepLabels: keep})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(baseline.Object, before) {
		t.Error("the baseline was changed")
	}
	return d
}

// A term about the baseline's own pods is about the fork's own; any other stays as it is.
func TestDeployment_AimsTermsAboutTheBaselinesPodsAtTheForks(t *testing.T) {
	const own = `{matchLabels: {kubectl-sandbox.dev/sandbox: pr-1, kubectl-sandbox.dev/role: fork, kubectl-sandbox.dev/workload: deployment.api}}`
	for _, tt := range []struct {
		name, term string
		aimed      bool
	}{
		{"by label", `{labelSelector: {matchLabels: {app: api}}}`, true},
		{"everything", `{labelSelector: {}}`, true},
		{"nothing", `{topologyKey: kubernetes.io/hostname}`, false},
		{"by expression", `{labelSelector: {matchExpressions: [{key: app, operator: In, values: [api, web]}]}}`, true},
		{"of others", `{labelSelector: {matchLabels: {app: db}}}`, false},
		{"of others by absence", `{labelSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}}`, false},
		{"of no valid selector", `{labelSelector: {matchExpressions: [{key: app, operator: Near}]}}`, false},
		{"with fields of later versions", `{labelSelector: {matchLabels: {app: api}}, later: [1]}`, true},
		{"with keys of the revision", `{labelSelector: {matchLabels: {app: api}}, matchLabelKeys: [pod-template-hash]}`, true},
		{"in this namespace and another", `{labelSelector: {matchLabels: {app: api}}, namespaces: [other, shop]}`, true},
		{"in any namespace", `{labelSelector: {matchLabels: {app: api}}, namespaceSelector: {}}`, true},
		{"in another namespace", `{labelSelector: {matchLabels: {app: api}}, namespaces: [other]}`, false},
	} {
		for _, place := range []string{
			`{affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [` + tt.term + `]}}}`,
			`{affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [` + tt.term + `]}}}`,
			`{affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, podAffinityTerm: ` + tt.term + `}]}}}`,
			`{affinity: {podAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, podAffinityTerm: ` + tt.term + `}]}}}`,
			`{topologySpreadConstraints: [` + tt.term + `, {labelSelector: {matchLabels: {app: db}}}]}`,
		} {
			if place[1] == 't' && (tt.name == "in another namespace") {
				continue // a topology spread knows no namespaces
			}
			template := parseYAML(t, `{metadata: {labels: {app: api}}, spec: `+place+`}`)
			want := runtime.DeepCopyJSON(template["spec"].(map[string]any))
			if tt.aimed {
				replaceSelector(want, parseYAML(t, tt.term)["labelSelector"], parseYAML(t, own))
			}
			got, _, _ := unstructured.NestedMap(forkOf(t, template).Object, "spec", "template", "spec")
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %s became %v, want %v", tt.name, place, got, want)
			}
		}
	}
}

// replaceSelector replaces the labelSelectors that are from.
func replaceSelector(v any, from, to any) {
	switch v := v.(type) {
	case map[string]any:
		if s, ok := v["labelSelector"]; ok && reflect.DeepEqual(s, from) {
			v["labelSelector"] = to
		}
		for _, e := range v {
			replaceSelector(e, from, to)
		}
	case []any:
		for _, e := range v {
			replaceSelector(e, from, to)
		}
	}
}

func TestDeployment_KeepsOnlyLabelsItIsToldTo(t *testing.T) {
	template := parseYAML(t, `{metadata: {labels: {app: api, team: shop, kubectl-sandbox.dev/role: baseline}}, spec: {}}`)
	d := forkOf(t, template, "team", "absent", "kubectl-sandbox.dev/role")
	got, _, _ := unstructured.NestedStringMap(d.Object, "spec", "template", "metadata", "labels")
	want := map[string]string{
		"team": "shop", "kubectl-sandbox.dev/sandbox": "pr-1", "kubectl-sandbox.dev/role": "fork", "kubectl-sandbox.dev/workload": "deployment.api",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("its pods have labels %v, want %v", got, want)
	}
	selector, _, _ := unstructured.NestedStringMap(d.Object, "spec", "selector", "matchLabels")
	delete(want, "team")
	if !reflect.DeepEqual(selector, want) {
		t.Errorf("it selects %v, want %v", selector, want)
	}
	if kept := fork.Kept(d); !reflect.DeepEqual(kept, []string{"team"}) {
		t.Errorf("kept are %v", kept)
	}
	for name, keeps := range map[string]bool{
		"team": true, "app.kubernetes.io/name": true, "sidecar.istio.io/inject": true, "pod-template-hash": false,
		"kubectl-sandbox.dev/role": false, "argocd.argoproj.io/instance": false, "kustomize.toolkit.fluxcd.io/name": false, "helm.sh/chart": false,
	} {
		if fork.Keeps(name) != keeps {
			t.Errorf("may it keep %s: %t", name, !keeps)
		}
	}
}
