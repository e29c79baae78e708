package printer

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/apply"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
)

// whole is pr-42 with all its objects; bare is one whose ConfigMap is gone.
func whole() *sandboxes.Sandbox {
	return &sandboxes.Sandbox{
		Name: "pr-42", ConfigMap: configMap(), Forks: []appsv1.Deployment{*deployment("api", nil)},
		Policies: []networkingv1.NetworkPolicy{*policy()},
	}
}

func bare() *sandboxes.Sandbox {
	return &sandboxes.Sandbox{Name: "pr-43", Forks: []appsv1.Deployment{*deployment("web", nil)}}
}

func TestObjects(t *testing.T) {
	for _, tt := range []struct {
		name, output string
		dryRun       operate.DryRun
		print        func(*Objects) error
		want         string
	}{
		{"a sandbox's names", "name", operate.DryRunNone, func(p *Objects) error { return p.PrintSandbox(whole()) }, `
configmap/sandbox-pr-42
networkpolicy.networking.k8s.io/api-pr-42-ingress
deployment.apps/api-pr-42
`},
		{"deleted", "", operate.DryRunClient, func(p *Objects) error {
			return p.PrintDeleted([]sandboxes.Sandbox{*whole(), *bare()})
		}, `
networkpolicy.networking.k8s.io/api-pr-42-ingress deleted (dry run)
deployment.apps/api-pr-42 deleted (dry run)
configmap/sandbox-pr-42 deleted (dry run)
deployment.apps/web-pr-42 deleted (dry run)
`},
		{"deleted, by a template", "jsonpath={.kind}: {.items[*].kind}", operate.DryRunNone, func(p *Objects) error {
			return p.PrintDeleted([]sandboxes.Sandbox{*whole()})
		}, `List: NetworkPolicy Deployment ConfigMap`},
		{"extended", "", operate.DryRunNone, func(p *Objects) error {
			return p.PrintExtended([]operate.Extended{
				{Extension: &sandboxes.Extension{Sandbox: whole()}, ConfigMap: configMap()},
				{Extension: &sandboxes.Extension{Sandbox: whole(), Unchanged: true}, ConfigMap: configMap()},
			}, noon())
		}, `
configmap/sandbox-pr-42 extended
sandbox pr-42: never expires
configmap/sandbox-pr-42 unchanged
sandbox pr-42: never expires
`},
		{"extended, by a template", "jsonpath={.kind}", operate.DryRunNone, func(p *Objects) error {
			return p.PrintExtended([]operate.Extended{{ConfigMap: configMap()}}, noon())
		}, `ConfigMap`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			if err := tt.print(&Objects{Format: format(tt.output), DryRun: tt.dryRun, Out: &out}); err != nil {
				t.Fatal(err)
			}
			compare(t, out.String(), tt.want)
		})
	}
}

// Standard output holds the link or the token alone.
func TestShared(t *testing.T) {
	shared := &operate.Shared{Token: "a+b", Shared: apply.Shared{URL: "https://web.example.com/", Expires: noon()}}
	until := noon().Local().Format(time.RFC3339)
	var out, errOut strings.Builder
	Link(&out, &errOut, shared)
	Token(&out, &errOut, shared)
	compare(t, out.String(), "https://web.example.com/?sandbox-token=a%2Bb\na+b\n")
	compare(t, errOut.String(), "whoever has the link is let in until "+until+"\n"+
		"lets in at https://web.example.com/ until "+until+
		": curl -H \"Authorization: Bearer $TOKEN\" https://web.example.com/\n")
}

func TestVersions(t *testing.T) {
	routers := []sandboxes.RouterVersion{{Version: "v1.2.2", Pods: 3}}
	for _, tt := range []struct {
		name, format string
		versions     Versions
		want         string
	}{
		{"of the client", "", Versions{Client: "v1.2.3"}, "Client Version: v1.2.3\n"},
		{"all", "", Versions{"v1.2.3", &read.Versions{Webhook: "v1.2.2", Routers: routers}}, `
Client Version: v1.2.3
Webhook Version: v1.2.2
Router Version: v1.2.2 (3 pods)
`},
		{"not installed", "", Versions{"v1.2.3", &read.Versions{}}, `
Client Version: v1.2.3
Webhook Version: not installed
Router Version: none here
`},
		{"unknown", "", Versions{"v1.2.3", &read.Versions{WebhookUnknown: "you may not", Routers: routers}}, `
Client Version: v1.2.3
Webhook Version: unknown (you may not)
Router Version: v1.2.2 (3 pods)
`},
		{"JSON", "json", Versions{"v1.2.3", &read.Versions{Webhook: "v1.2.2"}}, `
{
  "clientVersion": "v1.2.3",
  "webhookVersion": "v1.2.2"
}
`},
		{"YAML", "yaml", Versions{Client: "v1.2.3"}, "clientVersion: v1.2.3\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			if err := tt.versions.Print(&out, tt.format); err != nil {
				t.Fatal(err)
			}
			compare(t, out.String(), tt.want)
		})
	}
}

func TestOpened(t *testing.T) {
	o := Opened{
		Sandbox: "pr-42", Namespace: "shop", Key: "k", Service: "svc/web:80", URL: "http://pr-42.localhost:8080",
		BaselineURL: "http://baseline.localhost:8080", PlainURL: "http://127.0.0.1:8080", Port: 8080,
	}
	var out strings.Builder
	o.Text(&out)
	if err := o.JSON(&out); err != nil {
		t.Fatal(err)
	}
	o.Resolves = true
	o.Text(&out)
	compare(t, out.String(), `
sandbox pr-42: svc/web:80 with key k
  http://pr-42.localhost:8080
baseline:
  http://baseline.localhost:8080
browsers and curl know these names, this machine's resolver does not; for other programs:
  http://127.0.0.1:8080
{
  "sandbox": "pr-42",
  "namespace": "shop",
  "key": "k",
  "service": "svc/web:80",
  "url": "http://pr-42.localhost:8080",
  "baselineURL": "http://baseline.localhost:8080",
  "plainURL": "http://127.0.0.1:8080",
  "resolves": false,
  "port": 8080
}
sandbox pr-42: svc/web:80 with key k
  http://pr-42.localhost:8080
baseline:
  http://baseline.localhost:8080
`)
}
