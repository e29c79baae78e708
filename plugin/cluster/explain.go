package cluster

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
)

// Explain turns an error of client-go that the user can fix into a *plan.Problem, and returns any other error
// unchanged.
func Explain(err error) error {
	var p *plan.Problem
	if err == nil || errors.As(err, &p) {
		return err
	}
	if p := explainConfig(err); p != nil {
		return p
	}
	var noKind *meta.NoKindMatchError
	var noResource *meta.NoResourceMatchError
	switch {
	case errors.As(err, &noResource),
		errors.As(err, &noKind),
		strings.Contains(err.Error(), "the server doesn't have a resource type"):
		what := err.Error()
		if noResource != nil {
			what = fmt.Sprintf("the server doesn't have a resource type %q", noResource.PartialResource.Resource)
		}
		return &plan.Problem{What: what, Hint: "types it has", Fix: plan.Kubectl("api-resources"), Err: err}
	}
	return explainStatus(err)
}

// noCluster returns the Problem of a kubeconfig, or of flags, that choose no cluster.
func noCluster(err error) error {
	err = Explain(err)
	var p *plan.Problem
	if errors.As(err, &p) {
		return p
	}
	return &plan.Problem{
		What: "no cluster can be chosen: " + strings.TrimPrefix(err.Error(), "error: "),
		Hint: "contexts there are", Fix: plan.Kubectl("config", "get-contexts"), Err: err, Code: status.CodeNoCluster,
	}
}

// clientcmd reports in these forms, depending on the code path, that the kubeconfig lacks a context, cluster or user.
var (
	noSuch   = regexp.MustCompile(`(context|cluster|auth info) "([^"]*)" does not exist`)
	noServer = regexp.MustCompile(`no server found for (cluster) "([^"]*)"`)
	noFound  = regexp.MustCompile(`(context) was not found for specified context: ([^],]+)`)
)

func explainConfig(err error) *plan.Problem {
	var dial *url.Error
	contexts := plan.Kubectl("config", "get-contexts")
	what, name := "", ""
	for _, way := range []*regexp.Regexp{noFound, noSuch, noServer} {
		if m := way.FindStringSubmatch(err.Error()); m != nil {
			what, name = strings.Replace(m[1], "auth info", "user", 1), m[2]
			break
		}
	}
	switch {
	case what != "":
		return &plan.Problem{
			What: fmt.Sprintf("%s %q is not in the kubeconfig (--%s, or the kubeconfig itself)", what, name, what),
			Hint: "contexts there are", Fix: contexts, Err: err, Code: status.CodeNoCluster,
		}
	case clientcmd.IsEmptyConfig(err):
		return &plan.Problem{
			What: "no cluster is configured (--kubeconfig, KUBECONFIG or ~/.kube/config)",
			Hint: "contexts there are", Fix: contexts, Err: err, Code: status.CodeNoCluster,
		}
	case errors.As(err, &dial):
		host := dial.URL
		if u, perr := url.Parse(dial.URL); perr == nil {
			host = u.Scheme + "://" + u.Host
		}
		return &plan.Problem{
			What: fmt.Sprintf("the API server at %s can't be reached: %s", host, innermost(dial.Err)),
			Hint: "other contexts", Fix: contexts, Err: err, Code: status.CodeNoCluster,
		}
	}
	return nil
}

var forbiddenUser = regexp.MustCompile(`User "([^"]+)"`)

func explainStatus(err error) error {
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) {
		return err
	}
	s := answer.Status()
	switch {
	case apierrors.IsUnauthorized(err):
		return &plan.Problem{
			What: "the API server does not accept these credentials: " + s.Message,
			Hint: "other contexts", Fix: plan.Kubectl("config", "get-contexts"), Err: err, Code: status.CodeUnauthorized,
		}
	case apierrors.IsForbidden(err):
		if p := plan.ExplainRefusal(&s, err); p != nil {
			return p
		}
		if strings.Contains(s.Message, "PodSecurity") {
			return err
		}
		p := &plan.Problem{What: "not allowed: " + s.Message, Admin: true, Err: err}
		if m := forbiddenUser.FindStringSubmatch(s.Message); m != nil {
			p.Hint = "whoever administers the cluster can allow it"
			p.Fix = plan.Grant(m[1], "edit")
		}
		return p
	}
	if p := plan.ExplainRefusal(&s, err); p != nil {
		return p
	}
	return err
}

func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}

// IsForbidden reports whether the API server refused a call because rights are missing.
func IsForbidden(err error) bool { return apierrors.IsForbidden(err) }
