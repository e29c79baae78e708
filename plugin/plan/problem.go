// Package plan decides what a command writes. From workloads, options and the state of the namespace it plans objects
// and warnings, or returns a Problem. It is pure: it accesses no cluster, no clock and no file.
package plan

import (
	"context"
	"errors"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
)

// A Problem is a failure that the user can fix. It is printed as
//
//	error: WHAT
//	  LINES
//	hint: SAY: FIX
type Problem struct {
	// What is the failure: one lower-case line that begins with the object or the flag.
	What string
	// Lines are quoted lines that explain it, such as the end of a log; often none.
	Lines []string
	// Hint is what Fix does, in a few words; may be empty.
	Hint string
	// Fix is the command line that fixes it, as unquoted words. If it begins with "kubectl", printing adds the flags
	// by which the caller chose cluster and namespace, so that it can be pasted.
	Fix []string
	// Admin means that Fix is for somebody with rights that the caller lacks. The caller's own --as, --user and the
	// like are not added to it.
	Admin bool
	// Err is the underlying error, if any.
	Err error
	// Code is a stable reason for programs, defined in package status. If it is empty, Reason derives one from Err.
	Code string
	// Object is what the problem is about, as kubectl prints it. If it is empty, About reads it from the beginning of
	// What.
	Object string

	// Proposed is what Fix does, if the package that returned the problem can plan it: it does so before it proposes it.
	Proposed Proposal
}

// A Proposal is a planned alternative to what was refused.
type Proposal interface {
	// Command returns the command line that requests it, as unquoted words.
	Command() []string
}

// Reason returns the code of the problem: its own, or the reason of the API server's status in Err.
func (p *Problem) Reason() string {
	var beneath *Problem
	switch {
	case p.Code != "":
		return p.Code
	case errors.As(p.Err, &beneath):
		return beneath.Reason()
	case errors.Is(p.Err, context.Canceled):
		return status.CodeInterrupted
	case errors.Is(p.Err, context.DeadlineExceeded):
		return status.CodeTimedOut
	}
	if reason := apierrors.ReasonForError(p.Err); reason != "" {
		return string(reason)
	}
	return status.CodeRefused
}

// leadingObject matches the object that a message begins with: TYPE/NAME, or a quoted sandbox name.
var leadingObject = regexp.MustCompile(`^([a-z][a-z0-9.]*/[a-zA-Z0-9.-]+)|^(sandbox) "([^"]+)"`)

// About returns the object that the problem is about; empty if its message names none.
func (p *Problem) About() string {
	m := leadingObject.FindStringSubmatch(p.What)
	switch {
	case p.Object != "" || m == nil:
		return p.Object
	case m[2] != "":
		return m[2] + "/" + m[3]
	}
	return strings.TrimRight(m[1], ".-")
}

// Error returns p.What.
func (p *Problem) Error() string { return p.What }

// Unwrap returns p.Err.
func (p *Problem) Unwrap() error { return p.Err }

// Kubectl returns the words of "kubectl ARGS...", for Problem.Fix.
func Kubectl(args ...string) []string { return append([]string{"kubectl"}, args...) }

// Quote joins a command line so that a POSIX shell splits it into the same words.
func Quote(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = QuoteWord(w)
	}
	return strings.Join(quoted, " ")
}

// QuoteWord quotes a word of a command line for a POSIX shell, if that is needed.
func QuoteWord(w string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=,@%+"
	if w != "" && strings.Trim(w, plain) == "" {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}

// MaxHints bounds how many refusals are joined into one: each names one more thing to do first.
const MaxHints = 5
