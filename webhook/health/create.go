package health

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// notCreated returns why the API server creates no pod of a fork, from its response to the ReplicaSet controller. No
// such cause is final: the controller retries.
func notCreated(message string) Cause {
	message = firstLine(message)
	switch {
	case IsWebhookAway(message):
		return Webhook(message)
	case strings.Contains(message, "exceeded quota"):
		c := Cause{Code: QuotaExceeded, Fault: FaultCluster, Outlook: OutlookMayPass, Message: "no pod can be created: " + afterForbidden(message)}
		if fix := RaiseQuota(message); fix != nil {
			c.Say, c.Fix, c.Admin = "delete a sandbox that is not needed any more, or have the quota raised", fix, true
		}
		return c
	case strings.Contains(message, "violates PodSecurity"):
		return Cause{Code: PodSecurity, Fault: FaultApp, Outlook: OutlookMayPass,
			Message: "no pod can be created: it " + message[strings.Index(message, "violates PodSecurity"):]}
	}
	return Cause{Code: PodForbidden, Fault: FaultCluster, Outlook: OutlookMayPass, Message: "no pod can be created: " + afterForbidden(message)}
}

// IsWebhookAway reports whether an API server's message says that it could not call this product's webhook.
func IsWebhookAway(message string) bool {
	return strings.Contains(message, "failed calling webhook") && strings.Contains(message, strings.TrimSuffix(sandbox.Prefix, "/"))
}

// webhookService matches the webhook's Service in an API server's error: https://NAME.NAMESPACE.svc:PORT/...
var webhookService = regexp.MustCompile(`https://([a-z0-9-]+)\.([a-z0-9-]+)\.svc`)

// Webhook returns the Cause of an API server that cannot reach the webhook, from the API server's message.
func Webhook(message string) Cause {
	why := message
	if i := strings.LastIndex(message, `": `); i >= 0 {
		why = message[i+3:]
	}
	c := Cause{
		Code: WebhookAway, Fault: FaultProduct, Outlook: OutlookMayPass, Admin: true,
		Message: "the kubectl-sandbox webhook does not answer, so no pod of a fork can be created: " + why,
		Say:     "what was created starts by itself once it is back; start it",
	}
	if m := webhookService.FindStringSubmatch(message); m != nil {
		c.Fix = kubectl("scale", "deployment/"+m[1], "--namespace="+m[2], "--replicas=2")
	}
	return c
}

// afterForbidden drops the name of the forbidden pod from an API server's message: it is random.
func afterForbidden(message string) string {
	if _, rest, ok := strings.Cut(message, " is forbidden: "); ok {
		return rest
	}
	return message
}

var quotaMessage = regexp.MustCompile(`exceeded quota: ([^,]+), requested: (.*), used: (.*), limited: (.*)$`)

// RaiseQuota returns the command that raises the quota in an API server's message by what was requested; nil if the
// message does not contain enough.
func RaiseQuota(message string) []string {
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
	return kubectl("patch", "resourcequota", m[1], "--type=merge", fmt.Sprintf("--patch=%s", patch))
}

// quantities parses "limits.cpu=100m,pods=1".
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
