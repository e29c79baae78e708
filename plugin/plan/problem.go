// Package plan decides what a command writes: from workloads, options and what is in the namespace it makes objects and
// warnings, or a Problem. It is pure: it neither reads nor writes a cluster, a clock or a file.
package plan

import (
	"context"
	"errors"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
)

// A Problem is a failure that whoever ran the command can mend. It is printed as
//
//	error: WHAT
//	  LINES
//	hint: SAY: FIX
type Problem struct {
	// What is wrong: lower case, one line, naming the object and the flag.
	What string
	// Lines are others' words that explain it, such as the end of a log; often none.
	Lines []string
	// Hint is what Fix does, in a few words; may be empty.
	Hint string
	// Fix is a command line that mends it, as words yet unquoted. Where it begins with "kubectl", the flags by which the
	// caller chose cluster and namespace are added as it is printed, so that it does the same when pasted.
	Fix []string
	// Admin says that Fix is for somebody else, with rights that the caller lacks: the caller's own --as, --user and the like are
	// not added to it.
	Admin bool
	// Err is the error beneath, if any.
	Err error
	// Code is a stable reason for programs, one of package status; empty: Reason derives it from Err.
	Code string
	// Object is what the problem is about, as kubectl prints it; empty: About reads it from What, which begins with it.
	Object string

	// proposed is the fork that Fix asks for, where it does: Forks plans it before it proposes it.
	proposed *proposal
}

// Reason returns the code of the problem: its own, or the reason of the API server's answer beneath it.
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

// leadingObject is the object that a message begins with: TYPE/NAME, or a sandbox by its name in quotation marks.
var leadingObject = regexp.MustCompile(`^([a-z][a-z0-9.]*/[a-zA-Z0-9.-]+)|^(sandbox) "([^"]+)"`)

// About returns the object that the problem is about; empty where its message names none.
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

// Quote writes a command line so that a POSIX shell reads the same words.
func Quote(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quoteWord(w)
	}
	return strings.Join(quoted, " ")
}

func quoteWord(w string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=,@%+"
	if w != "" && strings.Trim(w, plain) == "" {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}
