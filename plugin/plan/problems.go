package plan

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
)

// NoWebhook returns the Problem of a cluster without the webhook.
func NoWebhook() *Problem {
	return &Problem{
		What: "the kubectl-sandbox webhook is not installed in this cluster, so no pod gets a router",
		Hint: "install it, in a clone of github.com/kubectl-sandbox/kubectl-sandbox",
		Fix: []string{"helm", "upgrade", "--install", "sandbox", "charts/sandbox",
			"--namespace=kubectl-sandbox", "--create-namespace", "--wait"},
		Code: status.CodeNoWebhook,
	}
}

// NoSandbox returns the Problem of a name that no sandbox of the namespace has; more are further such names.
func NoSandbox(name, namespace string, more ...string) *Problem {
	what := fmt.Sprintf("there is no sandbox %q in namespace %q", name, namespace)
	for _, other := range more {
		what += fmt.Sprintf(", nor %q", other)
	}
	return &Problem{
		What: what, Hint: "list what exists", Fix: Kubectl("sandbox", "list"),
		Code: string(metav1.StatusReasonNotFound), Object: "sandbox/" + name,
	}
}
