package apply

import (
	"errors"
	"io"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestUncertain(t *testing.T) {
	deployments := schema.GroupResource{Group: "apps", Resource: "deployments"}
	for err, want := range map[error]bool{
		io.ErrUnexpectedEOF:                                true,
		apierrors.NewTimeoutError("slow", 1):               true,
		apierrors.NewInternalError(io.EOF):                 true,
		apierrors.NewConflict(deployments, "api", io.EOF):  false,
		apierrors.NewForbidden(deployments, "api", io.EOF): false,
		errSandboxExists:                                   false,
		apierrors.NewInternalError(errors.New("failed to create typed patch object (ns/api-a; apps/v1, Kind=Deployment): .spec.template.spec.bogus: field not declared in schema")): false,
	} {
		if uncertain(err) != want {
			t.Errorf("%v: uncertain %t, want %t", err, !want, want)
		}
	}
}
