// Package result is what the product's own checks, run by sandbox-probe in Jobs, print for the plugin to read: measurements and
// findings, never a verdict. A result is one line of the Job's log, see Write. A Job of a user's is judged by its exit status alone,
// whatever it prints.
package result

import (
	"errors"
	"fmt"
	"time"
)

// APIVersion is the version of every kind here.
const APIVersion = "kubectl-sandbox.dev/v1"

// Kinds of results.
const (
	KindLoad     = "LoadResult"
	KindContract = "ContractResult"
)

// Bounds of what is read: a result that has more is none.
const (
	MaxArms   = 64
	MaxRounds = 100_000
)

// Header begins every result.
type Header struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// Probe is the version of the program that made it.
	Probe string    `json:"probe"`
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
	// Incomplete says why this is not all that was asked for. Empty: it is.
	Incomplete string `json:"incomplete,omitempty"`
	// Arms are what was compared, in the order in which rounds list their blocks.
	Arms []Arm `json:"arms"`
}

// Role says what part an arm has in a comparison.
type Role string

// Roles. Requests of the two baseline arms are the same in all but name: where these two differ, it is by noise.
const (
	RoleBaseline Role = "baseline" // A: what variants are compared with
	RoleControl  Role = "control"  // A'
	RoleVariant  Role = "variant"
)

// Names of the baseline's arms. No sandbox can have them.
const (
	NameBaseline = "(baseline)"
	NameControl  = "(control)"
)

// An Arm is one of the things compared.
type Arm struct {
	Name string `json:"name"` // the variant's sandbox
	Role Role   `json:"role"`
}

// Validate says what is wrong with h as the header of a result of a kind.
func (h Header) Validate(kind string) error {
	if h.APIVersion != APIVersion || h.Kind != kind {
		return fmt.Errorf("it is a %.60q of %.60q, not a %s of %s", h.Kind, h.APIVersion, kind, APIVersion)
	}
	if h.End.Before(h.Start) {
		return errors.New("it ends before it starts")
	}
	if len(h.Arms) == 0 || len(h.Arms) > MaxArms {
		return fmt.Errorf("it has %d arms, not 1 to %d", len(h.Arms), MaxArms)
	}
	names := make(map[string]bool, len(h.Arms))
	for _, a := range h.Arms {
		switch a.Role {
		case RoleBaseline, RoleControl, RoleVariant:
		default:
			return fmt.Errorf("arm %.60q has the unknown role %.60q", a.Name, a.Role)
		}
		if a.Name == "" || names[a.Name] {
			return fmt.Errorf("arm %.60q has no name of its own", a.Name)
		}
		names[a.Name] = true
	}
	return nil
}
