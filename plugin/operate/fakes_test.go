package operate

import (
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
)

// reported records what a use case reports.
type reported struct {
	mu       sync.Mutex
	warnings []string
	waits    []string
}

func (r *reported) Warn(message string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.warnings = append(r.warnings, message)
}

func (r *reported) RollsOut(*plan.Workload, int) {}

func (r *reported) Resumes(string) {}

func (r *reported) Waiting(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if what != "" && !slices.Contains(r.waits, what) {
		r.waits = append(r.waits, what)
	}
}

// conflict is the API server's answer to a write of an object that has changed.
func conflict() error {
	return apierrors.NewConflict(schema.GroupResource{Resource: "configmaps"}, "sandbox-pr-42", io.EOF)
}

// wantProblem checks that err is a Problem whose text contains each of the parts.
func wantProblem(t *testing.T, err error, parts ...string) *plan.Problem {
	t.Helper()
	var p *plan.Problem
	if !errors.As(err, &p) {
		t.Fatalf("got %v, want a problem", err)
	}
	for _, part := range parts {
		if !strings.Contains(p.What, part) {
			t.Errorf("got %q, want it to contain %q", p.What, part)
		}
	}
	return p
}
