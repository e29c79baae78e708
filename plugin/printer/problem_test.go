package printer

import (
	"bytes"
	"strings"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
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
