package plan

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// createProblem says why the API server makes no pod of the fork, from what it said to the ReplicaSet controller.
func createProblem(d *appsv1.Deployment, message string) *Problem {
	message = firstLine(message)
	switch {
	case strings.Contains(message, "failed calling webhook") && strings.Contains(message, strings.TrimSuffix(sandbox.Prefix, "/")):
		return WebhookAway(message)
	case strings.Contains(message, "exceeded quota"):
		p := forkProblem(d, "no pod can be made: "+afterForbidden(message))
		if fix := raiseQuota(message); fix != nil {
			p.Say, p.Fix, p.Admin = "delete a sandbox that is not needed any more, or have the quota raised", fix, true
		}
		return p
	case strings.Contains(message, "violates PodSecurity"):
		return forkProblem(d, "no pod can be made: it "+message[strings.Index(message, "violates PodSecurity"):])
	}
	return forkProblem(d, "no pod can be made: "+afterForbidden(message))
}

// webhookService is how the API server names the webhook's Service in an error: https://NAME.NAMESPACE.svc:PORT/...
var webhookService = regexp.MustCompile(`https://([a-z0-9-]+)\.([a-z0-9-]+)\.svc`)

// WebhookAway is the Problem of an API server that can't reach the webhook. The message is the API server's.
func WebhookAway(message string) *Problem {
	why := message
	if i := strings.LastIndex(message, `": `); i >= 0 {
		why = message[i+3:]
	}
	p := &Problem{
		What: "the kubectl-sandbox webhook does not answer, so no pod of a fork can be made: " + why,
		Say:  "what was made comes up by itself once it is back; start it",
	}
	if m := webhookService.FindStringSubmatch(message); m != nil {
		p.Fix = Kubectl("scale", "deployment/"+m[1], "--namespace="+m[2], "--replicas=2")
	}
	return p
}

// afterForbidden leaves out of an API server's message which pod was forbidden: its name is random.
func afterForbidden(message string) string {
	if _, rest, ok := strings.Cut(message, " is forbidden: "); ok {
		return rest
	}
	return message
}

var quotaMessage = regexp.MustCompile(`exceeded quota: ([^,]+), requested: (.*), used: (.*), limited: (.*)$`)

// raiseQuota returns the command that raises the quota of the message by just what was requested; nil when it can't be told.
func raiseQuota(message string) []string {
	m := quotaMessage.FindStringSubmatch(message)
	if m == nil {
		return nil
	}
	used := quantities(m[3])
	hard := map[string]string{}
	for name, requested := range quantities(m[2]) {
		sum, ok := used[name]
		if !ok {
			return nil
		}
		sum.Add(requested)
		hard[name] = sum.String()
	}
	if len(hard) == 0 {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"hard": hard}})
	if err != nil {
		return nil
	}
	return Kubectl("patch", "resourcequota", m[1], "--type=merge", fmt.Sprintf("--patch=%s", patch))
}

// quantities reads "limits.cpu=100m,pods=1".
func quantities(s string) map[string]resource.Quantity {
	out := map[string]resource.Quantity{}
	for part := range strings.SplitSeq(s, ",") {
		name, value, _ := strings.Cut(part, "=")
		if q, err := resource.ParseQuantity(value); err == nil {
			out[name] = q
		}
	}
	return out
}
