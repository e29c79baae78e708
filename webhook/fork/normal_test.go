package fork_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"pgregory.net/rapid"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork/env"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// workload returns one whose pod template is that YAML.
func workload(t testing.TB, template string) *unstructured.Unstructured {
	t.Helper()
	return around(object2(t, template))
}

func around(template map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "api", "namespace": "shop"},
		"spec": map[string]any{"template": template},
	}}
}

func TestPodTemplate_HasEachKeyOnce(t *testing.T) {
	for _, tt := range []struct{ name, meta, is, want, lost string }{
		{name: "a variable", is: `containers: [{name: a, env: [{name: A, value: "1"}, {name: B, value: $(A)}, {name: A, value: "2"}, {name: C, value: $(A)}]}]`,
			want: `containers: [{name: a, env: [{name: SANDBOX_EARLIER_1_A, value: "1"}, {name: B, value: $(SANDBOX_EARLIER_1_A)}, {name: A, value: "2"}, {name: C, value: $(A)}]}]`},
		{name: "a variable that nothing refers to", is: `initContainers: [{name: a, env: [{name: A, value: "1"}, {name: B, value: $$(A)}, {name: A, value: "2"}]}]`,
			want: `initContainers: [{name: a, env: [{name: B, value: $$(A)}, {name: A, value: "2"}]}]`},
		{name: "a variable of itself", is: `containers: [{name: a, env: [{name: P, value: /a}, {name: P, value: "$(P):/b"}, {name: P, value: "$(P):/c"}]}]`,
			want: `containers: [{name: a, env: [{name: SANDBOX_EARLIER_1_P, value: /a}, {name: SANDBOX_EARLIER_2_P, value: "$(SANDBOX_EARLIER_1_P):/b"}, {name: P, value: "$(SANDBOX_EARLIER_2_P):/c"}]}]`},
		{name: "a variable from a Secret", is: `containers: [{name: a, env: [{name: P, valueFrom: {secretKeyRef: {name: s, key: k}}}, {name: D, value: $(P)}, {name: P, value: x}]}]`,
			want: `containers: [{name: a, env: [{name: SANDBOX_EARLIER_1_P, valueFrom: {secretKeyRef: {name: s, key: k}}}, {name: D, value: $(SANDBOX_EARLIER_1_P)}, {name: P, value: x}]}]`},
		{name: "a variable whose last source may be missing", is: `containers: [{name: a, env: [{name: P, value: x}, {name: P, valueFrom: {secretKeyRef: {name: s, key: k, optional: true}}}]}]`,
			want: `containers: [{name: a, env: [{name: P, valueFrom: {secretKeyRef: {name: s, key: k, optional: true}}}]}]`, lost: "variable P of container a, set twice, whose last source is optional: the fork lacks it where that is missing"},
		{name: "two names of a port, one captured", meta: `annotations: {kubectl-sandbox.dev/ports: web=80}`,
			is: `containers: [{name: a, ports: [{containerPort: 80, name: http}, {containerPort: 80, name: web, protocol: TCP}, {containerPort: 80, protocol: UDP}], ` +
				`readinessProbe: {httpGet: {port: http}}, livenessProbe: {tcpSocket: {port: web}}, lifecycle: {preStop: {httpGet: {port: http}}}}]`,
			want: `containers: [{name: a, ports: [{containerPort: 80, name: web}, {containerPort: 80, protocol: UDP}], ` +
				`readinessProbe: {httpGet: {port: 80}}, livenessProbe: {tcpSocket: {port: web}}, lifecycle: {preStop: {httpGet: {port: 80}}}}]`},
		{name: "a port without a name twice", is: `containers: [{name: a, ports: [{containerPort: 80}, {containerPort: 80, name: x, hostPort: 8080}]}]`, want: `containers: [{name: a, ports: [{containerPort: 80, name: x, hostPort: 8080}]}]`},
		{name: "two of the node's ports", is: `containers: [{name: a, ports: [{containerPort: 80, hostPort: 1}, {containerPort: 80, hostPort: 2}]}]`,
			want: `containers: [{name: a, ports: [{containerPort: 80, hostPort: 1}]}]`, lost: "hostPort 2 of container a, whose port 80 has another already"},
		{name: "pull secrets", is: `imagePullSecrets: [{name: a}, {name: b}, {name: a}]`, want: `imagePullSecrets: [{name: a}, {name: b}]`},
		{name: "host aliases", is: `hostAliases: [{ip: 10.0.0.1, hostnames: [a, b]}, {ip: 10.0.0.2, hostnames: [x]}, {ip: 10.0.0.1, hostnames: [b, c]}]`,
			want: `hostAliases: [{ip: 10.0.0.1, hostnames: [a, b, c]}, {ip: 10.0.0.2, hostnames: [x]}]`},
		{name: "mounts, as a custom kind may have them", is: `containers: [{name: a, volumeMounts: [{name: v, mountPath: /a}, {name: w, mountPath: /a}, {name: v, mountPath: /b}]}]`,
			want: `containers: [{name: a, volumeMounts: [{name: w, mountPath: /a}, {name: v, mountPath: /b}]}]`},
		{name: "what is no list of objects", is: `containers: [{name: a, env: [1, {name: A}, {name: A}], ports: x}], hostAliases: [{ip: 1}, {ip: 1}]`,
			want: `containers: [{name: a, env: [1, {name: A}, {name: A}], ports: x}], hostAliases: [{ip: 1}, {ip: 1}]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			template := func(spec string) string { return "{metadata: {" + tt.meta + "}, spec: {" + spec + "}}" }
			got, err := fork.PodTemplate(workload(t, template(tt.is)), "")
			if want := object2(t, template(tt.want)); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got  %v, %v\nwant %v", got, err, want)
			}
			if lost := strings.Join(fork.Lost(object2(t, template(tt.is))), "; "); lost != tt.lost {
				t.Errorf("lost: %s", lost)
			}
		})
	}
}

// object2 reads YAML as the API server's answers are read.
func object2(t testing.TB, text string) map[string]any {
	t.Helper()
	return pod(t, text)["spec"].(map[string]any)
}

// Whatever variables come twice, the process gets what the kubelet would have given it.
func TestPodTemplate_KeepsTheEnvironment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"A", "B", "C"}
		var list []any
		for range rapid.IntRange(0, 8).Draw(t, "variables") {
			e := map[string]any{"name": rapid.SampledFrom(names).Draw(t, "name")}
			if rapid.IntRange(0, 3).Draw(t, "from") == 0 {
				e["valueFrom"] = map[string]any{"secretKeyRef": map[string]any{"name": "s", "key": rapid.SampledFrom(names).Draw(t, "key")}}
			} else {
				e["value"] = rapid.StringMatching(`(\$|\(|x|\$\(A\)|\$\(B\)|\$\(C\)|\$\$){0,4}`).Draw(t, "value")
			}
			list = append(list, e)
		}
		template := map[string]any{"spec": map[string]any{"containers": []any{map[string]any{
			"name": "a", "env": list, "envFrom": []any{map[string]any{"secretRef": map[string]any{"name": "s"}}},
		}}}}
		normal, err := fork.PodTemplate(around(runtime.DeepCopyJSON(template)), "")
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, v := range container(t, normal).Env {
			if seen[v.Name] {
				t.Fatalf("%s comes twice in %v", v.Name, normal)
			}
			seen[v.Name] = true
		}
		was, is := resolved(t, template), resolved(t, normal)
		for name := range is {
			if _, made := fork.EarlierOf(name); made {
				delete(is, name)
			}
		}
		if !reflect.DeepEqual(was, is) {
			t.Fatalf("%v was %v, and as %v is %v", template, was, normal, is)
		}
		if again, _ := fork.PodTemplate(around(runtime.DeepCopyJSON(normal)), ""); !reflect.DeepEqual(again, normal) {
			t.Fatalf("once more, it is %v, and was %v", again, normal)
		}
	})
}

func container(t *rapid.T, template map[string]any) *corev1.Container {
	var decoded corev1.PodTemplateSpec
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(template, &decoded); err != nil {
		t.Fatal(err)
	}
	return &decoded.Spec.Containers[0]
}

func resolved(t *rapid.T, template map[string]any) map[string]string {
	data := map[string]string{"A": "secret-a", "B": "secret $(A)", "C": "$"}
	e := env.Resolve(container(t, template), env.Sources{Secret: func(string) (env.Object, bool) { return env.Object{Data: data}, true }})
	values := map[string]string{}
	for _, v := range e.Variables {
		values[v.Name] = fmt.Sprint(v.Known, v.Value)
	}
	return values
}

// A variable that moves is one change, on a newer baseline as well.
func TestDiff_OfAVariableThatMoves(t *testing.T) {
	from := `containers: [{name: a, env: [{name: X, value: x}, {name: URL, value: $(HOST)}, {name: HOST, value: h}, {name: Z, value: z}]}]`
	to := `containers: [{name: a, env: [{name: X, value: x}, {name: HOST, value: pr}, {name: URL, value: $(HOST)}, {name: Z, value: z}]}]`
	patch, err := fork.Diff(pod(t, from), pod(t, to))
	if err != nil || strings.Contains(string(patch), `"name":"Z"`) {
		t.Fatalf("the patch is %s, %v", patch, err)
	}
	for was, want := range map[string]string{
		from: to,
		`containers: [{name: a, env: [{name: X, value: x}, {name: NEW, value: new}, {name: URL, value: $(HOST)/new}, {name: HOST, value: h2}, {name: Z, value: z2}]}]`: `containers: [{name: a, env: [{name: X, value: x}, {name: NEW, value: new}, {name: HOST, value: pr}, {name: URL, value: $(HOST)/new}, {name: Z, value: z2}]}]`,
		`containers: [{name: a, env: [{name: URL, value: $(HOST)}, {name: Z, value: z}]}]`:                                                                             `containers: [{name: a, env: [{name: HOST, value: pr}, {name: URL, value: $(HOST)}, {name: Z, value: z}]}]`,
	} {
		got, err := fork.Apply(pod(t, was), patch)
		if want := pod(t, want); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("laid on %s it gives\n%v, %v\nwant\n%v", was, got, err, want)
		}
	}
}

const reading = `
metadata:
  labels: {app: api, tier: web, team.example.com/owner: shop, kept: k}
  annotations: {note: noted, argocd.argoproj.io/instance: 'a$(B)', kubectl-sandbox.dev/ports: http=8080}
spec:
  initContainers:
  - {name: i, env: [{name: OWNER, valueFrom: {fieldRef: {fieldPath: "metadata.labels['team.example.com/owner']"}}}]}
  containers:
  - name: a
    env:
    - {name: TIER, valueFrom: {fieldRef: {fieldPath: "metadata.labels['tier']"}}}
    - {name: KEPT, valueFrom: {fieldRef: {fieldPath: "metadata.labels['kept']"}}}
    - {name: NONE, valueFrom: {fieldRef: {fieldPath: "metadata.labels['none']"}}}
    - {name: NOTE, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['note']"}}}
    - {name: ARGO, valueFrom: {fieldRef: {fieldPath: "metadata.annotations['argocd.argoproj.io/instance']"}}}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  volumes:
  - name: info
    downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}, {path: tier, fieldRef: {fieldPath: "metadata.labels['tier']"}}, {path: annotations, fieldRef: {fieldPath: metadata.annotations}}]}
  - name: more
    projected: {sources: [{downwardAPI: {items: [{path: owner, fieldRef: {fieldPath: "metadata.labels['team.example.com/owner']"}}]}}, {secret: {name: s}}]}
`

// What a template reads of its own labels and annotations keeps its value.
func TestDeployment_KeepsWhatItReadsOfItself(t *testing.T) {
	d, err := fork.Deployment(workload(t, reading), fork.Options{Name: "api-pr", Sandbox: "pr", Key: "k", WhenUnready: "error", Replicas: 1, KeepLabels: []string{"kept"}})
	if err != nil {
		t.Fatal(err)
	}
	template, _, _ := unstructured.NestedMap(d.Object, "spec", "template")
	var decoded corev1.PodTemplateSpec
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(template, &decoded); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"OWNER": "shop", "TIER": "web", "KEPT": "k", "NONE": "", "NOTE": "noted", "ARGO": "a$(B)", "POD": "?"}
	field := func(path string) (string, bool) {
		m, ok := fork.ParseMetadata(path)
		values := map[string]map[string]string{"labels": decoded.Labels, "annotations": decoded.Annotations}[m.Field]
		return values[m.Key], ok
	}
	for _, c := range append(decoded.Spec.InitContainers, decoded.Spec.Containers...) {
		for _, v := range env.Resolve(&c, env.Sources{Field: field}).Variables {
			value := v.Value
			if !v.Known {
				value = "?"
			}
			if value != want[v.Name] {
				t.Errorf("%s is %q, want %q", v.Name, value, want[v.Name])
			}
			delete(want, v.Name)
		}
	}
	if len(want) > 0 {
		t.Errorf("lacks %v", want)
	}
	files := map[string]string{}
	for _, v := range decoded.Spec.Volumes {
		var items []corev1.DownwardAPIVolumeFile
		if v.DownwardAPI != nil {
			items = v.DownwardAPI.Items
		} else {
			items = v.Projected.Sources[0].DownwardAPI.Items
		}
		for _, f := range items {
			files[f.Path], _ = field(f.FieldRef.FieldPath)
		}
	}
	labels := "app=\"api\"\nkept=\"k\"\nkubectl-sandbox.dev/role=\"fork\"\nkubectl-sandbox.dev/sandbox=\"pr\"\nkubectl-sandbox.dev/workload=\"deployment.api\"\nteam.example.com/owner=\"shop\"\ntier=\"web\""
	if files["tier"] != "web" || files["owner"] != "shop" || files["labels"] != labels {
		t.Errorf("the files are %q", files)
	}
	if d.GetAnnotations()[sandbox.AnnotationPatch] != "[]" {
		t.Errorf("they are told as a change: %s", d.GetAnnotations()[sandbox.AnnotationPatch])
	}

	// A baseline that labels itself otherwise is a newer one.
	behind, err := fork.Behind(d, workload(t, strings.Replace(reading, "tier: web", "tier: back", 1)))
	if same, _ := fork.Behind(d, workload(t, reading)); err != nil || !behind || same {
		t.Errorf("behind: %t, %v; behind what it was made from: %t", behind, err, same)
	}
}
