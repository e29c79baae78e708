// Package health decides whether a sandbox's requests reach its forks and, if not, why: a stable code, one sentence and
// the command that fixes it. It is pure: it reads no cluster and no clock. Every command, condition, Event and page
// about a fork renders a Report of this package and has no diagnosis of its own.
//
// If a fact is unknown, the Report says so and names no cause for it.
package health

import (
	"cmp"
	"slices"
	"strings"
)

// A Fault is who can fix a Cause.
type Fault string

// Faults.
const (
	// FaultApp is the program that runs, or its settings by its owner: image, command, variables, names of Secrets.
	FaultApp Fault = "app"
	// FaultCluster is a node, a quota, a policy, a registry that does not respond, or another controller.
	FaultCluster Fault = "cluster"
	// FaultProduct is kubectl-sandbox: its webhook, its routers, or the marks that `route` sets.
	FaultProduct Fault = "product"
)

// An Outlook is whether waiting helps.
type Outlook int

// Outlooks, in ascending order of severity.
const (
	// OutlookWaits is the normal course of a start or a rollout.
	OutlookWaits Outlook = iota
	// OutlookMayPass passes by itself within seconds if its cause did; if it lasts longer, report it as an error.
	OutlookMayPass
	// OutlookFinal lasts until somebody changes something.
	OutlookFinal
)

// A Cause is one reason why requests do not reach a fork, or why a pod does not serve or did not succeed.
type Cause struct {
	Code Code
	// Message is one sentence on one line, in lower case and without a period. It names the container, Service or pod. It
	// does not name the fork, nor one of the fork's own pods: the output prefixes these.
	Message string
	Fault   Fault
	Outlook Outlook

	// Say is what Fix does, in a few words. Both may be empty.
	Say string
	// Fix is a command as words, not quoted, without flags for cluster and namespace.
	Fix []string
	// Admin means that Fix needs rights that users of a sandbox usually lack.
	Admin bool

	// Pod and Container are where it happens; empty if that is no pod or container.
	Pod, Container string
	// ExitCode is the container's, if it ended.
	ExitCode *int32
	// Log is the log to read about it, if there is one.
	Log *LogRef

	// Path means that it is on the way to the fork, not in its pods.
	Path bool
	// Partial means that some requests reach the fork all the same.
	Partial bool

	switched bool // of a Service that `route` switched
}

// OK reports that there is no cause.
func (c Cause) OK() bool { return c.Code == "" }

// A LogRef identifies a container's log.
type LogRef struct {
	Pod, Container string
	Previous       bool // of the container's last run, not of the current one
}

// worst returns the Cause with the worst outlook, the first of several; zero if there is none.
func worst(causes []Cause) Cause {
	var found Cause
	for _, c := range causes {
		if !c.OK() && (found.OK() || c.Outlook > found.Outlook) {
			found = c
		}
	}
	return found
}

// maxNames bounds how many names a message lists.
const maxNames = 5

// names joins sorted names, and appends how many more there are than a message lists.
func names(all []string) string {
	all = slices.Sorted(slices.Values(all))
	if len(all) <= maxNames {
		return strings.Join(all, ", ")
	}
	return strings.Join(all[:maxNames], ", ") + " and " + count(len(all)-maxNames) + " more"
}

// firstLine returns the first line of a text from elsewhere, without surrounding space.
func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	return strings.TrimSpace(s)
}

// because joins a reason and a message from Kubernetes, either of which may be empty.
func because(reason, message string) string {
	message = firstLine(message)
	if reason == "" || message == "" || strings.HasPrefix(message, reason) {
		return cmp.Or(message, reason, "no reason is given")
	}
	return reason + ": " + message
}
