package cluster

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
)

func TestExplain(t *testing.T) {
	deployments := schema.GroupResource{Group: "apps", Resource: "deployments"}
	for _, tt := range []struct {
		err       error
		what, fix string
	}{
		{nil, "", ""},
		{io.ErrUnexpectedEOF, "unexpected EOF", ""},
		{
			&url.Error{Op: "Get", URL: "https://10.0.0.1:6443/api?timeout=32s", Err: fmt.Errorf("dial: %w", errors.New("no route to host"))},
			"the API server at https://10.0.0.1:6443 can't be reached: no route to host", "kubectl config get-contexts",
		},
		{errors.New(`context "x" does not exist`), `context "x" is not in the kubeconfig (--context, or the kubeconfig itself)`, "kubectl config get-contexts"},
		{errors.New(`auth info "x" does not exist`), `user "x" is not in the kubeconfig (--user, or the kubeconfig itself)`, "kubectl config get-contexts"},
		{
			errors.New(`invalid configuration: [context was not found for specified context: a, no server found for cluster "b"]`),
			`context "a" is not in the kubeconfig (--context, or the kubeconfig itself)`, "kubectl config get-contexts",
		},
		{apierrors.NewUnauthorized("expired"), "the API server does not accept these credentials: expired", "kubectl config get-contexts"},
		{
			apierrors.NewForbidden(deployments, "api", errors.New(`User "Jane Doe@example.com" cannot get it`)),
			`not allowed: deployments.apps "api" is forbidden: User "Jane Doe@example.com" cannot get it`,
			"kubectl create rolebinding sandbox-jane-doe-example-com --clusterrole=edit '--user=Jane Doe@example.com'",
		},
		{
			apierrors.NewForbidden(deployments, "api", errors.New(`User "system:serviceaccount:ci:bot" cannot get it`)),
			`not allowed: deployments.apps "api" is forbidden: User "system:serviceaccount:ci:bot" cannot get it`,
			"kubectl create rolebinding sandbox-bot --clusterrole=edit --serviceaccount=ci:bot",
		},
		{apierrors.NewForbidden(deployments, "api", errors.New("exceeded quota: objects")), `deployments.apps "api" can't be created: exceeded quota: objects`, ""},
		{plan.NoWebhook(), plan.NoWebhook().What, plan.Quote(plan.NoWebhook().Fix)},
	} {
		got := Explain(tt.err)
		if tt.err == nil {
			if got != nil {
				t.Errorf("no error became %v", got)
			}
			continue
		}
		var p *plan.Problem
		fix := ""
		if errors.As(got, &p) {
			fix = plan.Quote(p.Fix)
		}
		if got.Error() != tt.what || fix != tt.fix {
			t.Errorf("%v\nbecame %q, %q\nwant   %q, %q", tt.err, got, fix, tt.what, tt.fix)
		}
		if !errors.Is(got, tt.err) {
			t.Errorf("%v is not what is beneath %v", tt.err, got)
		}
	}
}
