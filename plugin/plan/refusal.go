package plan

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// ExplainRefusal explains why admission refused an object of this program: a mark that the caller may not set, a key
// in use, too many sandboxes, a quota, or an unreachable webhook. It returns nil for any other refusal. s is the API
// server's status, and err the error that carried it.
func ExplainRefusal(s *metav1.Status, err error) *Problem {
	if p := explainCause(s, err); p != nil {
		return p
	}
	switch {
	case strings.Contains(s.Message, "ValidatingAdmissionPolicy '"+markPolicies):
		return explainMark(s.Message, err)
	case strings.Contains(s.Message, "exceeded quota"):
		p := &Problem{What: s.Message, Err: err}
		if object, why, ok := strings.Cut(s.Message, " is forbidden: "); ok {
			p.What = object + " can't be created: " + why
		}
		if fix := health.RaiseQuota(FirstLine(s.Message)); fix != nil {
			p.Hint, p.Fix, p.Admin = "delete a sandbox that is not needed any more, or have the namespace's quota raised", fix, true
		}
		return p
	case strings.Contains(s.Message, `failed calling webhook "sandbox.`+strings.TrimSuffix(sandbox.Prefix, "/")):
		c := health.Webhook(FirstLine(s.Message))
		return &Problem{
			What: strings.Replace(c.Message, "no pod of a fork can be created", "no sandbox can be made", 1),
			Hint: "nothing was created; start it, then fork again", Fix: c.Fix, Err: err,
		}
	}
	return nil
}

// explainCause explains a refusal by this project's own admission.
func explainCause(s *metav1.Status, err error) *Problem {
	if s.Details == nil {
		return nil
	}
	for _, c := range s.Details.Causes {
		switch string(c.Type) {
		case sandbox.CauseKeyInUse:
			return &Problem{What: c.Message, Hint: "leave --key out to have one generated; the keys in use", Fix: Kubectl("sandbox", "list"), Err: err}
		case sandbox.CauseTooMany:
			return &Problem{
				What: c.Message, Hint: "delete one that is not needed any more, or have the limit raised; those there are",
				Fix: Kubectl("sandbox", "list"), Err: err,
			}
		case sandbox.CauseMalformed:
			return &Problem{What: c.Message, Err: err}
		}
	}
	return nil
}

// KeyInUse reports whether admission refused a sandbox because another one has its key.
func KeyInUse(err error) bool {
	var refused apierrors.APIStatus
	if !errors.As(err, &refused) || refused.Status().Details == nil {
		return false
	}
	return slices.ContainsFunc(refused.Status().Details.Causes, func(c metav1.StatusCause) bool { return string(c.Type) == sandbox.CauseKeyInUse })
}

// markPolicies is the name prefix of the chart's admission policies for marks.
const markPolicies = "sandbox-marks-"

// markRefusal matches the message by which a policy for marks names the user and the missing verb; see the chart's
// markpolicy.yaml.
var markRefusal = regexp.MustCompile(`denied request: (user "(.+)" may not (fork|route) in namespace "([^"]+)": .*)$`)

func explainMark(message string, err error) *Problem {
	m := markRefusal.FindStringSubmatch(FirstLine(message))
	if m == nil {
		_, why, _ := strings.Cut(message, "denied request: ")
		return &Problem{What: "not allowed: " + why, Err: err}
	}
	role := map[string]string{sandbox.VerbFork: "sandbox-user", sandbox.VerbRoute: "sandbox-admin"}[m[3]]
	return &Problem{
		What: "not allowed: " + m[1], Hint: "whoever administers the namespace can allow it", Fix: Grant(m[2], role), Admin: true, Err: err,
	}
}

// MayNotRoute returns the Problem of a user who lacks rights to route, among them the right to mark baselines.
func MayNotRoute(user, namespace string, missing []string) *Problem {
	return &Problem{
		What: fmt.Sprintf("not allowed in namespace %s: %s", namespace, strings.Join(missing, ", ")),
		Hint: "whoever administers the namespace can allow it", Fix: Grant(user, "sandbox-admin"), Admin: true,
	}
}

// Grant returns the command that gives a user the rights of a ClusterRole in the namespace. Kubernetes' own role
// `edit` aggregates the chart's role sandbox-user.
func Grant(user, role string) []string {
	name := "sandbox-"
	if role != "edit" {
		name = role + "-"
	}
	if account, ok := strings.CutPrefix(user, "system:serviceaccount:"); ok {
		_, short, _ := strings.Cut(account, ":")
		return Kubectl("create", "rolebinding", name+short, "--clusterrole="+role, "--serviceaccount="+account)
	}
	short := strings.Trim(unnameable.ReplaceAllString(strings.ToLower(user), "-"), "-")
	return Kubectl("create", "rolebinding", name+short, "--clusterrole="+role, "--user="+user)
}

// unnameable matches the characters of a user's name that a RoleBinding's name can't contain.
var unnameable = regexp.MustCompile(`[^a-z0-9]+`)
