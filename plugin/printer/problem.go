package printer

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
)

// Problem prints a Problem and its hint. called is the prefix, such as "error: ".
func Problem(w io.Writer, called string, p *plan.Problem, globals Globals) {
	fmt.Fprintf(w, "%s%s\n", called, p.What)
	for _, line := range p.Lines {
		fmt.Fprintf(w, "  %s\n", line)
	}
	if len(p.Fix) == 0 {
		return
	}
	say := p.Hint
	if say != "" {
		say += ": "
	}
	fmt.Fprintf(w, "hint: %s%s\n", say, globals.fix(p))
}

// Failure prints a Problem as a status.Error. notices are the lines that the command printed before it failed.
func Failure(w io.Writer, p *plan.Problem, exit int, globals Globals, notices []string) {
	e := status.Error{
		TypeMeta: metav1.TypeMeta{APIVersion: status.APIVersion, Kind: status.KindError},
		Code:     p.Reason(), ExitStatus: exit, Object: p.About(), Message: p.What, Details: p.Lines, Notices: notices,
	}
	if len(p.Fix) > 0 {
		e.Advice, e.Command = p.Hint, globals.fix(p)
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(e) // strings always encode, and there is nowhere to report that stderr is closed
}

// Warn prints a warning in kubectl's format for warnings of an API server.
func Warn(w io.Writer, format string, args ...any) {
	fmt.Fprintf(w, "Warning: "+format+"\n", args...)
}

// Unreached warns that requests with a sandbox's key do not reach all its forks, with the command that fixes it.
func Unreached(w io.Writer, all []operate.Unreached, globals Globals) {
	for _, u := range all {
		Warn(w, "sandbox %s is %s: %s", u.Sandbox, u.State, u.Message)
		if len(u.Fix) > 0 {
			fmt.Fprintf(w, "hint: %s\n", globals.Command(u.Fix))
		}
	}
}

// Globals are the flags, as arguments, by which the caller chose cluster, user and namespace. Commands that are
// printed repeat them, so that they can be pasted.
type Globals []string

// Command formats a command with the flags.
func (g Globals) Command(words []string) string { return plan.Quote(g.Add(words)) }

// fix returns the command of a Problem for pasting; empty if it has none.
func (g Globals) fix(p *plan.Problem) string {
	fix := p.Fix
	if len(fix) > 0 && fix[0] == "kubectl" {
		if p.Admin {
			g = slices.DeleteFunc(slices.Clone(g), identifies)
		}
		fix = g.Add(fix)
	}
	return plan.Quote(fix)
}

// identifies reports whether a flag identifies the user, and not the cluster or namespace.
func identifies(flag string) bool {
	name, _, _ := strings.Cut(flag, "=")
	return slices.Contains([]string{
		"--user", "--as", "--as-uid", "--as-group", "--client-certificate", "--client-key",
	}, name)
}

// Add returns a kubectl command with those of the flags that it does not set itself.
func (g Globals) Add(words []string) []string {
	out := append([]string(nil), words...)
	for _, flag := range g {
		name, _, _ := strings.Cut(flag, "=")
		if len(words) > 1 && words[1] == "config" && name != "--kubeconfig" {
			continue // it is about the file; what else was chosen may be what is wrong
		}
		if !sets(words, name) {
			out = append(out, flag)
		}
	}
	return out
}

// sets reports whether a kubectl command sets a flag.
func sets(words []string, flag string) bool {
	return slices.ContainsFunc(words, func(w string) bool {
		return w == flag || strings.HasPrefix(w, flag+"=") ||
			flag == "--namespace" && (w == "-n" || w == "-A" || w == "--all-namespaces")
	})
}
