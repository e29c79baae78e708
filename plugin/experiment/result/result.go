// Package result defines what the built-in checks, which sandbox-probe runs in Jobs, print for the plugin:
// measurements and findings, never a verdict. A result is one line of the Job's log; see Write. A user's own Job is
// judged only by its exit status, whatever it prints.
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

// Bounds of valid results: a larger one is rejected.
const (
	MaxArms   = 64
	MaxRounds = 100_000
)

// Header is the common part of every result.
type Header struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	// Probe is the version of the program that wrote it.
	Probe string    `json:"probe"`
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
	// Incomplete is why parts of the result are missing; empty if it is complete.
	Incomplete string `json:"incomplete,omitempty"`
	// Arms are what was compared, in the order of the blocks in rounds.
	Arms []Arm `json:"arms"`
}

// Role is the part of an arm in a comparison.
type Role string

// Roles. Requests of the two baseline arms differ only in their arm's name, so any difference between these arms is
// noise.
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

// An Arm is one of the compared variants or baselines.
type Arm struct {
	Name string `json:"name"` // the variant's sandbox
	Role Role   `json:"role"`
}

// Validate returns what is wrong with h as the header of a result of that kind.
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
