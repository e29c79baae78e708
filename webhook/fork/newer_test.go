package fork_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
)

// The template that the changes of TestApply_OnANewerTemplate are of.
const original = `
metadata: {annotations: {team/owner: a}}
spec:
  nodeSelector: {disk: ssd}
  initContainers:
  - {name: migrate, image: 'api:1'}
  containers:
  - name: api
    image: api:1
    args: [--a, --b]
    env: [{name: A, value: '1'}, {name: B, value: '2'}]
    resources: {limits: {cpu: '1'}}
  - {name: proxy, image: 'proxy:1'}
`

// What both a fork and its baseline change.
func TestApply_OnANewerTemplate(t *testing.T) {
	replaced := func(old, now string) func(string) string {
		return func(s string) string {
			if !strings.Contains(s, old) {
				t.Fatalf("no %q in %s", old, s)
			}
			return strings.Replace(s, old, now, 1)
		}
	}
	image := replaced("image: api:1\n", "image: api:pr\n")
	for _, tt := range []struct {
		name           string
		fork, baseline func(string) string
		want           func(string) string // of the baseline as it is then
		conflict       string
	}{
		{"nothing", image, func(s string) string { return s }, image, ""},
		{"another image of the same container: the fork's stays", image, replaced("image: api:1\n", "image: api:2\n"), replaced("image: api:2\n", "image: api:pr\n"), ""},
		{"a container before it", image, replaced("  containers:\n", "  containers:\n  - {name: first, image: 'first:1'}\n"), image, ""},
		{"the containers in another order", image, func(s string) string {
			s = strings.Replace(s, "  - {name: proxy, image: 'proxy:1'}\n", "", 1)
			return strings.Replace(s, "  containers:\n", "  containers:\n  - {name: proxy, image: 'proxy:1'}\n", 1)
		}, image, ""},
		{"the container gone", image, replaced("- name: api\n", "- name: web\n"), nil, "spec.containers[api] is gone"},
		{
			"a variable before the changed one", replaced("name: B, value: '2'", "name: B, value: x"), replaced("env: [", "env: [{name: '0', value: '0'}, "),
			replaced("name: B, value: '2'", "name: B, value: x"), "",
		},
		{"the changed variable gone", replaced("name: B, value: '2'", "name: B, value: x"), replaced(", {name: B, value: '2'}", ""), nil, "spec.containers[api].env[B] is gone"},
		{"the removed variable gone", replaced(", {name: B, value: '2'}", ""), replaced(", {name: B, value: '2'}", ""), func(s string) string { return s }, ""},
		{
			"a variable that both add", replaced("value: '2'}]", "value: '2'}, {name: C, value: fork}]"), replaced("value: '2'}]", "value: '2'}, {name: C, value: base}]"),
			replaced("value: base", "value: fork"), "",
		},
		{
			"a variable from a Secret that the fork adds plain", replaced("value: '2'}]", "value: '2'}, {name: C, value: fork}]"),
			replaced("value: '2'}]", "value: '2'}, {name: C, valueFrom: {secretKeyRef: {name: s, key: k}}}]"),
			replaced("valueFrom: {secretKeyRef: {name: s, key: k}}", "value: fork"), "",
		},
		{
			"a container that both add", replaced("  - {name: proxy", "  - {name: new, image: 'n:1', args: [x]}\n  - {name: proxy"),
			replaced("  - {name: proxy", "  - {name: new, image: 'n:1', args: [y]}\n  - {name: proxy"), nil, "spec.containers[new] was added to the baseline as well, and differs",
		},
		{
			"a container put before one that is gone", replaced("  - {name: migrate", "  - {name: new, image: 'n:1'}\n  - {name: migrate"),
			replaced("{name: migrate, image: 'api:1'}", "{name: other, image: 'o:1'}"), replaced("  - {name: other", "  - {name: new, image: 'n:1'}\n  - {name: other"), "",
		},
		{
			"variables where there were none", replaced("{name: proxy, image: 'proxy:1'}", "{name: proxy, image: 'proxy:1', env: [{name: X, value: x}]}"),
			replaced("{name: proxy, image: 'proxy:1'}", "{name: proxy, image: 'proxy:1', env: [{name: Z, value: z}]}"),
			replaced("value: z}]", "value: z}, {name: X, value: x}]"), "",
		},
		{"arguments, by the baseline", image, replaced("args: [--a, --b]", "args: [--a]"), image, ""},
		{"arguments, by both", replaced("[--a, --b]", "[--a, --c]"), replaced("[--a, --b]", "[--z, --a, --b]"), replaced("[--z, --a, --b]", "[--a, --c]"), ""},
		{"arguments, by both to the same", replaced("[--a, --b]", "[--c]"), replaced("[--a, --b]", "[--c]"), func(s string) string { return s }, ""},
		{"arguments that are gone", replaced("[--a, --b]", "[--c]"), replaced("    args: [--a, --b]\n", ""), nil, "spec.containers[api].args is gone"},
		{"a limit that is gone", replaced("cpu: '1'", "cpu: '2'"), replaced("limits: {cpu: '1'}", "limits: {memory: 1Gi}"), nil, "spec.containers[api].resources.limits.cpu is gone"},
		{"limits that both add", replaced("limits: {cpu: '1'}", "limits: {cpu: '1'}, requests: {cpu: '1'}"), replaced("limits: {cpu: '1'}", "limits: {cpu: '1'}, requests: {memory: 1Gi}"), replaced("requests: {memory: 1Gi}", "requests: {memory: 1Gi, cpu: '1'}"), ""},
		{"an object that the fork removes", replaced("  nodeSelector: {disk: ssd}\n", ""), replaced("{disk: ssd}", "{disk: hdd}"), replaced("  nodeSelector: {disk: hdd}\n", ""), ""},
		{"an object that both remove", replaced("  nodeSelector: {disk: ssd}\n", ""), replaced("  nodeSelector: {disk: ssd}\n", ""), func(s string) string { return s }, ""},
		{"tolerations, which no key tells apart, that both add", replaced("  nodeSelector", "  tolerations: [{key: a}]\n  nodeSelector"), replaced("  nodeSelector", "  tolerations: [{key: b}]\n  nodeSelector"), nil, "spec.tolerations was added to the baseline as well, and differs"},
		{"an annotation", replaced("team/owner: a", "team/owner: b"), replaced("annotations: {team/owner: a}", "labels: {}"), nil, "metadata.annotations[team/owner] is gone"},
		{"a type", replaced("disk: ssd", "disk: hdd"), replaced("disk: ssd", "disk: {kind: ssd}"), replaced("disk: {kind: ssd}", "disk: hdd"), ""},
		{
			"several", func(s string) string {
				return replaced("[--a, --b]", "[]")(replaced("image: 'proxy:1'", "image: 'proxy:2'")(s))
			},
			func(s string) string {
				return replaced("    args: [--a, --b]\n", "")(replaced("name: proxy", "name: p")(s))
			}, nil,
			"spec.containers[api].args is gone; spec.containers[proxy] is gone",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			patch, err := fork.Diff(object(t, original), object(t, tt.fork(original)))
			if err != nil {
				t.Fatal(err)
			}
			baseline := tt.baseline(original)
			got, err := fork.Apply(object(t, baseline), patch)
			if tt.want == nil {
				var conflict *fork.ConflictError
				if !errors.As(err, &conflict) || err.Error() != tt.conflict {
					t.Fatalf("%s gives\n%v, %v\nwant the conflict %s", patch, got, err, tt.conflict)
				}
				return
			}
			if want := object(t, tt.want(baseline)); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s gives\n%v, %v\nwant\n%v", patch, got, err, want)
			}
		})
	}
}

func object(t *testing.T, text string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := yaml.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return clone(t, m)
}

// A patch for a container follows it to its new place, and never changes what came to stand in its old one.
func TestApply_ChangesTheContainerItWasMadeFor(t *testing.T) {
	containers := func(names ...string) map[string]any {
		var list []any
		for _, n := range names {
			list = append(list, map[string]any{"name": n, "image": n + ":1"})
		}
		return map[string]any{"spec": map[string]any{"containers": list}}
	}
	changed := containers("api", "proxy")
	changed["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)["image"] = "api:2"
	patch, err := fork.Diff(containers("api", "proxy"), changed)
	if err != nil {
		t.Fatal(err)
	}
	for _, names := range [][]string{{"api"}, {"proxy", "api"}, {"a", "b", "api"}, {"proxy"}} {
		want := containers(names...)
		i := slices.Index(names, "api")
		if i >= 0 {
			want["spec"].(map[string]any)["containers"].([]any)[i].(map[string]any)["image"] = "api:2"
		}
		got, err := fork.Apply(containers(names...), patch)
		if (err == nil) != (i >= 0) || err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("laid on %v it gives %v, %v", names, got, err)
		}
	}
}
