package printer

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// inventory holds pr-42, whose fork waits and is behind its baseline, and pr-43, which expires and has no fork.
func inventory() *sandboxes.Inventory {
	other := configMap()
	other.Name, other.Labels[sandbox.LabelSandbox] = "sandbox-pr-43", "pr-43"
	other.Data = map[string]string{sandbox.DataKey: "k43", sandbox.DataExpires: noon().Add(time.Hour).Format(time.RFC3339)}
	fork := deployment("api", nil)
	return &sandboxes.Inventory{
		Now: noon(), ConfigMaps: []corev1.ConfigMap{*configMap(), *other}, Forks: []appsv1.Deployment{*fork},
		BaselineStates: map[string]sandboxes.BaselineState{"shop/api-pr-42": {Behind: true}},
	}
}

const listed = `
NAME    KEY     READY   STATE     BEHIND   EXPIRES   AGE
pr-42   pr-42   0/1     Waiting   1        never     120m
pr-43   k43     0/0     Empty     0        60m       120m
`

func TestList(t *testing.T) {
	for _, tt := range []struct {
		name, output, namespace string
		noHeaders, empty        bool
		want, wantErr           string
	}{
		{"a namespace", "", "shop", false, false, listed,
			"hint: rebase the forks: kubectl sandbox rebase pr-42 --namespace=shop --context=dev\n"},
		{"all namespaces, wide, without headers", "wide", "", true, false, `
shop   pr-42   pr-42   0/1   Waiting   1     never   deployment/api   jane     120m
shop   pr-43   k43     0/0   Empty     0     60m     <none>           <none>   120m
`, "hint: rebase the forks: kubectl sandbox rebase pr-42 --namespace=shop --context=dev\n"},
		{"names", "name", "shop", false, false, "configmap/sandbox-pr-42\nconfigmap/sandbox-pr-43\n", ""},
		{"a template", "jsonpath={.kind}{range .items[*]} {.key}{end}", "shop", false, false,
			"SandboxStatusList pr-42 k43", ""},
		{"none in a namespace", "", "shop", false, true, "", "No sandboxes found in shop namespace.\n"},
		{"none at all", "wide", "", false, true, "", "No sandboxes found\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := inventory()
			if tt.empty {
				v = &sandboxes.Inventory{Now: noon()}
			}
			var out, errOut strings.Builder
			l := List{
				Format: format(tt.output), NoHeaders: tt.noHeaders, Out: &out, ErrOut: &errOut, Globals: chosen(),
				Namespace: tt.namespace,
			}
			if err := l.Show(v); err != nil {
				t.Fatal(err)
			}
			compare(t, out.String(), tt.want)
			compare(t, errOut.String(), tt.wantErr)
		})
	}
}

// A watch prints headers once, and no hint.
func TestList_Update(t *testing.T) {
	changed := inventory().Sandboxes()[1:]
	for _, tt := range []struct {
		name, output string
		empty        bool // at first
		want         string
	}{
		{"after a table", "", false, listed + `
pr-43   k43   0/0   Empty   0     60m   120m
pr-43   k43   0/0   Empty   0     60m   120m
`},
		{"after nothing", "", true, `
NAME    KEY   READY   STATE   BEHIND   EXPIRES   AGE
pr-43   k43   0/0     Empty   0        60m       120m
pr-43   k43   0/0   Empty   0     60m   120m
`},
		{"names", "name", true, "configmap/sandbox-pr-43\nconfigmap/sandbox-pr-43\n"},
		{"a template", "jsonpath={.key};", true, ";k43;k43;"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := inventory()
			if tt.empty {
				v.ConfigMaps, v.Forks = nil, nil
			}
			var out, errOut strings.Builder
			l := List{Format: format(tt.output), Out: &out, ErrOut: &errOut, Namespace: "shop", Watch: true}
			err := l.Show(v)
			for range 2 {
				if err == nil {
					err = l.Update(inventory(), changed)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(errOut.String(), "hint") {
				t.Errorf("got %q", errOut.String())
			}
			compare(t, out.String(), strings.ReplaceAll(tt.want, "\n\n", "\n"))
		})
	}
}
