package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/escape"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
)

// An exitError ends the program with another status than its error would; without an error, silently.
type exitError struct {
	code int
	err  error
}

// Error returns the error's text.
func (e *exitError) Error() string { return fmt.Sprint(e.err) }

// Unwrap returns the error.
func (e *exitError) Unwrap() error { return e.err }

// Run executes `kubectl sandbox ARGS...`, prints its error, if any, and returns the exit status, as package status documents it.
func Run(ctx context.Context, cmd *cobra.Command, args []string) int {
	root := cmd.Root()
	if len(args) > 0 && (args[0] == cobra.ShellCompRequestCmd || args[0] == cobra.ShellCompNoDescRequestCmd) {
		root.SetArgs(append([]string{args[0], cmd.Name()}, args[1:]...)) // cobra answers these at the root only
	} else {
		root.SetArgs(append([]string{cmd.Name()}, args...))
	}
	ran, err := root.ExecuteContextC(ctx)
	notices := heldNotices(ran)
	if err == nil {
		notices.release()
		return status.ExitOK
	}
	var p *plan.Problem
	var exit *exitError
	var ended *commandEnded
	silent := errors.As(err, &exit) && exit.err == nil || errors.Is(err, cmdutil.ErrExit)
	switch {
	case errors.As(err, &ended):
		notices.release()
		return ended.code // it has said itself what is wrong
	case silent && exit != nil:
		notices.release()
		return exit.code
	case ctx.Err() != nil && !errors.As(err, &p):
		// Whatever the call that it broke off made of it.
		p = &plan.Problem{What: "interrupted", Code: status.CodeInterrupted}
	default:
		p = problemOf(err)
	}
	code := status.ExitOf(p.Reason())
	if exit != nil {
		code = exit.code
	}
	globals := given(cmd.PersistentFlags())
	if !silent && asJSON(ran, args) {
		printFailure(notices.or(escape.Writer(root.ErrOrStderr())), p, code, globals, notices.lines())
		return code
	}
	notices.release()
	if !silent {
		printProblem(escape.Writer(root.ErrOrStderr()), "error: ", p, globals)
	}
	return code
}

// problemOf makes a Problem of any error.
func problemOf(err error) *plan.Problem {
	err = cluster.Explain(err)
	var p *plan.Problem
	if errors.As(err, &p) {
		return p
	}
	p = &plan.Problem{What: strings.TrimPrefix(strings.TrimSpace(err.Error()), "error: "), Err: err}
	if p.Reason() == status.CodeRefused { // nothing beneath says more
		p.Code = status.CodeFailed
	}
	return p
}

// printFailure prints a status.Error.
func printFailure(w io.Writer, p *plan.Problem, exit int, globals, notices []string) {
	e := status.Error{
		TypeMeta: metav1.TypeMeta{APIVersion: status.APIVersion, Kind: status.KindError},
		Code:     p.Reason(), ExitStatus: exit, Object: p.About(), Message: p.What, Details: p.Lines, Notices: notices,
	}
	if len(p.Fix) > 0 {
		e.Advice, e.Command = p.Say, commandOf(p, globals)
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(e) // strings always encode, and there is nowhere to report that stderr is closed
}

// asJSON says that the caller asks for JSON. Where the flags can't be parsed, -o may come after the one that is wrong: so the arguments
// are looked at as well.
func asJSON(ran *cobra.Command, args []string) bool {
	if ran != nil {
		if f := ran.Flags().Lookup("output"); f != nil && f.Changed {
			return f.Value.String() == "json"
		}
	}
	for i, a := range args {
		switch a {
		case "--":
			return false
		case "-ojson", "-o=json", "--output=json":
			return true
		case "-o", "--output":
			return i+1 < len(args) && args[i+1] == "json"
		}
	}
	return false
}

// notices holds back what a command writes to standard error while it runs with -o json: when it fails, all of standard error is one
// object, which holds these lines.
type notices struct {
	screen io.Writer

	mu   sync.Mutex
	held bytes.Buffer
}

// Write holds the text back.
func (n *notices) Write(text []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.held.Write(text)
}

// release writes what is held back.
func (n *notices) release() {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	_, _ = n.held.WriteTo(n.screen) // there is nowhere to say that stderr is closed
}

// or returns where the lines would go; w where nothing is held back.
func (n *notices) or(w io.Writer) io.Writer {
	if n == nil {
		return w
	}
	return n.screen
}

// lines returns what is held back.
func (n *notices) lines() []string {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	text := strings.TrimSpace(n.held.String())
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// holdNotices begins to hold back where the command is asked for JSON, but for commands that go on until they are stopped: what they
// have to say can't wait for their end.
func (t *tool) holdNotices(cmd *cobra.Command) {
	watch := cmd.Flags().Lookup("watch")
	if !asJSON(cmd, nil) || cmd.Name() == "open" || watch != nil && watch.Changed {
		return
	}
	n := &notices{screen: t.ErrOut}
	t.ErrOut = n
	cmd.SetErr(n)
}

// heldNotices returns what a command that ran holds back; nil: nothing.
func heldNotices(ran *cobra.Command) *notices {
	if ran == nil {
		return nil
	}
	n, _ := ran.ErrOrStderr().(*notices)
	return n
}

// warningHandler has the warnings of API servers go where a command's own go.
func (t *tool) warningHandler(before rest.WarningHandler) rest.WarningHandler {
	if _, held := t.ErrOut.(*notices); held {
		return rest.NewWarningWriter(t.ErrOut, rest.WarningWriterOptions{Deduplicate: true})
	}
	return before
}

// progress returns the line that shows what a command waits for, on the screen itself.
func (t *tool) progress() *progress { return newProgress(t.screen.ErrOut) }
