package plan

import (
	"errors"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func TestExplainRefusal(t *testing.T) {
	const (
		denied = `configmaps "sandbox-pr-1" is forbidden: ValidatingAdmissionPolicy 'sandbox-marks-objects' with binding 'sandbox-marks-objects' denied request: `
		marks  = `user "Jane Doe" may not fork in namespace "shop": the marks of a sandbox on configmaps "sandbox-pr-1" take the verb fork on sandboxes.kubectl-sandbox.dev`
		routes = `user "system:serviceaccount:ci:bot" may not route in namespace "shop": the marks of a baseline on deployments.apps "api" take the verb route on sandboxes.kubectl-sandbox.dev`
	)
	cause := func(c, message string) *metav1.StatusDetails {
		return &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: metav1.CauseType(c), Message: message}}}
	}
	for name, tt := range map[string]struct {
		message   string
		details   *metav1.StatusDetails
		what, fix string
		admin     bool
	}{
		"a mark of a sandbox": {message: denied + marks, what: "not allowed: " + marks,
			fix: "kubectl create rolebinding sandbox-user-jane-doe --clusterrole=sandbox-user '--user=Jane Doe'", admin: true},
		"a mark of a baseline": {message: denied + routes, what: "not allowed: " + routes,
			fix: "kubectl create rolebinding sandbox-admin-bot --clusterrole=sandbox-admin --serviceaccount=ci:bot", admin: true},
		"what a sandbox keeps": {message: denied + `sandbox "sandbox-pr-1" keeps its key`, what: `not allowed: sandbox "sandbox-pr-1" keeps its key`},
		"a key in use": {message: "admission webhook said no", details: cause(sandbox.CauseKeyInUse, `key k is in use by sandbox "a", made by john`),
			what: `key k is in use by sandbox "a", made by john`, fix: "kubectl sandbox list"},
		"too many": {message: "admission webhook said no", details: cause(sandbox.CauseTooMany, `namespace "shop" has 2 of at most 2 sandboxes`),
			what: `namespace "shop" has 2 of at most 2 sandboxes`, fix: "kubectl sandbox list"},
		"a quota": {message: `configmaps "sandbox-pr-1" is forbidden: exceeded quota: few, requested: count/configmaps=1, used: count/configmaps=2, limited: count/configmaps=2`,
			what: `configmaps "sandbox-pr-1" can't be created: exceeded quota: few, requested: count/configmaps=1, used: count/configmaps=2, limited: count/configmaps=2`,
			fix:  `kubectl patch resourcequota few --type=merge '--patch={"spec":{"hard":{"count/configmaps":"3"}}}'`, admin: true},
		"no webhook": {message: `Internal error occurred: failed calling webhook "sandbox.kubectl-sandbox.dev": failed to call webhook: Post "https://sandbox-webhook.kubectl-sandbox.svc:443/admit-sandboxes?timeout=5s": dial tcp: connection refused`,
			what: "the kubectl-sandbox webhook does not answer, so no sandbox can be made: dial tcp: connection refused",
			fix:  "kubectl scale deployment/sandbox-webhook --namespace=kubectl-sandbox --replicas=2"},
		"another's policy": {message: `pods "a" is forbidden: ValidatingAdmissionPolicy 'theirs' with binding 'theirs' denied request: no`},
	} {
		t.Run(name, func(t *testing.T) {
			beneath := errors.New("beneath")
			p := ExplainRefusal(&metav1.Status{Message: tt.message, Details: tt.details}, beneath)
			if p == nil {
				if tt.what != "" {
					t.Fatal("is not explained")
				}
				return
			}
			if p.What != tt.what || Quote(p.Fix) != tt.fix || p.Admin != tt.admin || !errors.Is(p, beneath) {
				t.Errorf("got %q, %q, admin %t\nwant %q, %q, admin %t", p.What, Quote(p.Fix), p.Admin, tt.what, tt.fix, tt.admin)
			}
		})
	}
}
