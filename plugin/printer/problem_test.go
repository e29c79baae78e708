package printer

import (
	"bytes"
	"strings"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
)

// A command for an administrator is run by the administrator: it names the caller's cluster and namespace, not who the
// caller is.
func TestProblem_LeavesTheCallerOutOfWhatAnAdministratorIsToRun(t *testing.T) {
	globals := Globals{"--kubeconfig=k", "--context=c", "--user=u", "--as=jane", "--as-group=devs", "--as-uid=7",
		"--client-key=f", "--client-certificate=g", "--namespace=shop"}
	for admin, want := range map[bool]string{
		true:  "hint: kubectl create rolebinding x --kubeconfig=k --context=c --namespace=shop\n",
		false: "hint: kubectl create rolebinding x " + strings.Join(globals, " ") + "\n",
	} {
		var out bytes.Buffer
		p := &plan.Problem{What: "no", Fix: plan.Kubectl("create", "rolebinding", "x"), Admin: admin}
		Problem(&out, "error: ", p, globals)
		if got := strings.TrimPrefix(out.String(), "error: no\n"); got != want {
			t.Errorf("admin %t: %q, want %q", admin, got, want)
		}
	}
}

func TestProblem(t *testing.T) {
	for _, tt := range []struct {
		name    string
		problem plan.Problem
		want    string
	}{
		{"with a log and a hint", plan.Problem{
			What: "deployment.apps/api-pr-42: container app crashes", Lines: []string{"panic: no", "exit status 2"},
			Hint: "read its log", Fix: plan.Kubectl("logs", "deploy/api-pr-42"),
		}, `
error: deployment.apps/api-pr-42: container app crashes
  panic: no
  exit status 2
hint: read its log: kubectl logs deploy/api-pr-42 --context=dev --namespace=shop
`},
		{"with a command alone, that sets a namespace", plan.Problem{
			What: "no", Fix: plan.Kubectl("get", "pods", "-A", "--context=other"),
		}, "error: no\nhint: kubectl get pods -A --context=other\n"},
		{"of the kubeconfig", plan.Problem{What: "no", Hint: "choose", Fix: plan.Kubectl("config", "get-contexts")},
			"error: no\nhint: choose: kubectl config get-contexts\n"},
		{"of another program", plan.Problem{What: "no", Fix: []string{"helm", "list"}}, "error: no\nhint: helm list\n"},
		{"without a command", plan.Problem{What: "no", Hint: "left out"}, "error: no\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			Problem(&out, "error: ", &tt.problem, chosen())
			compare(t, out.String(), tt.want)
		})
	}
}

func TestFailure(t *testing.T) {
	var out strings.Builder
	Failure(&out, &plan.Problem{
		What: `deployment.apps/api: image "<none>" is not pulled`, Lines: []string{"not found"},
		Hint: "take another", Fix: plan.Kubectl("sandbox", "fork", "deploy/api", "--image=api:<tag>"),
		Code: status.CodeFailed,
	}, status.ExitFailed, chosen(), []string{"Warning: the fork shares a claim"})
	Failure(&out, &plan.Problem{What: "no", Hint: "left out", Code: status.CodeUsage}, status.ExitUsage, nil, nil)
	compare(t, out.String(), `
{
  "kind": "Error",
  "apiVersion": "kubectl-sandbox.dev/v1",
  "code": "Failed",
  "exitStatus": 1,
  "object": "deployment.apps/api",
  "message": "deployment.apps/api: image \"<none>\" is not pulled",
  "details": [
    "not found"
  ],
  "advice": "take another",
  "command": "kubectl sandbox fork deploy/api '--image=api:<tag>' --context=dev --namespace=shop",
  "notices": [
    "Warning: the fork shares a claim"
  ]
}
{
  "kind": "Error",
  "apiVersion": "kubectl-sandbox.dev/v1",
  "code": "Usage",
  "exitStatus": 4,
  "message": "no"
}
`)
}

func TestUnreached(t *testing.T) {
	var out strings.Builder
	Unreached(&out, []operate.Unreached{
		{Sandbox: "pr-42", State: "Failed", Message: "no router", Fix: plan.Kubectl("sandbox", "status", "pr-42")},
		{Sandbox: "pr-42", State: "Waiting", Message: "100% of its pods start"},
	}, chosen())
	compare(t, out.String(), `
Warning: sandbox pr-42 is Failed: no router
hint: kubectl sandbox status pr-42 --context=dev --namespace=shop
Warning: sandbox pr-42 is Waiting: 100% of its pods start
`)
}
