// Package operate holds the use cases of the plugin, a file each. A use case takes options and the small interfaces
// that it needs of the cluster, and returns a result. It prints nothing and knows no flags.
package operate

import "github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"

// DryRun says how much of a use case really happens.
type DryRun int

const (
	// DryRunNone means that everything happens.
	DryRunNone DryRun = iota
	// DryRunClient means that the API server is only read from.
	DryRunClient
	// DryRunServer means that the API server does everything but store it.
	DryRunServer
)

// A Reporter receives what a use case has to say before it ends.
type Reporter interface {
	// Warn reports a warning.
	Warn(message string)
	// RollsOut announces how many times a workload will roll out, before it does.
	RollsOut(w *plan.Workload, times int)
	// Waiting reports what is waited for now; empty means that the wait has ended.
	Waiting(what string)
}

// Silent is a Reporter for use cases that run inside another.
type Silent struct{}

// Warn implements Reporter.
func (Silent) Warn(string) {}

// RollsOut implements Reporter.
func (Silent) RollsOut(*plan.Workload, int) {}

// Waiting implements Reporter.
func (Silent) Waiting(string) {}
