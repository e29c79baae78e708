package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/escape"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/printer"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
)

// An exitError sets the program's exit status. Without an error, nothing is printed.
type exitError struct {
	code int
	err  error
}

// Error returns the error's text.
func (e *exitError) Error() string { return fmt.Sprint(e.err) }

// Unwrap returns the error.
func (e *exitError) Unwrap() error { return e.err }

// Run executes `kubectl sandbox ARGS...`, prints its error, if any, and returns the exit status that package status
// documents.
func Run(ctx context.Context, cmd *cobra.Command, args []string) int {
	root := cmd.Root()
	if len(args) > 0 && (args[0] == cobra.ShellCompRequestCmd || args[0] == cobra.ShellCompNoDescRequestCmd) {
		root.SetArgs(append([]string{args[0], cmd.Name()}, args[1:]...)) // cobra answers these at the root only
	} else {
		root.SetArgs(append([]string{cmd.Name()}, args...))
	}
	ran, err := root.ExecuteContextC(ctx)
	notices := bufferedNotices(ran)
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
		// The interrupted call may have returned any error.
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
		printer.Failure(notices.or(escape.Writer(root.ErrOrStderr())), p, code, globals, notices.lines())
		return code
	}
	notices.release()
	if !silent {
		printer.Problem(escape.Writer(root.ErrOrStderr()), "error: ", p, globals)
	}
	return code
}

// problemOf converts any error to a Problem.
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

// asJSON reports whether the caller requests JSON. If the flags can't be parsed, -o may come after the wrong one, so
// the arguments are checked too.
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

// notices buffers what a command writes to standard error while it runs with -o json. If the command fails, standard
// error must be one object, which contains these lines.
type notices struct {
	screen io.Writer

	mu     sync.Mutex
	buffer bytes.Buffer
}

// Write buffers the text.
func (n *notices) Write(text []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.buffer.Write(text)
}

// release writes the buffered text.
func (n *notices) release() {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	_, _ = n.buffer.WriteTo(n.screen) // there is nowhere to say that stderr is closed
}

// or returns the underlying writer; w if nothing is buffered.
func (n *notices) or(w io.Writer) io.Writer {
	if n == nil {
		return w
	}
	return n.screen
}

// lines returns the buffered lines.
func (n *notices) lines() []string {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	text := strings.TrimSpace(n.buffer.String())
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// bufferNotices starts to buffer if the command is to print JSON. Commands that run until they are stopped are
// excluded: their notices can't wait for the end.
func (t *tool) bufferNotices(cmd *cobra.Command) {
	watch := cmd.Flags().Lookup("watch")
	if !asJSON(cmd, nil) || cmd.Name() == "open" || watch != nil && watch.Changed {
		return
	}
	n := &notices{screen: t.ErrOut}
	t.ErrOut = n
	cmd.SetErr(n)
}

// bufferedNotices returns the notices of a command that ran; nil if they were not buffered.
func bufferedNotices(ran *cobra.Command) *notices {
	if ran == nil {
		return nil
	}
	n, _ := ran.ErrOrStderr().(*notices)
	return n
}

// warningHandler writes the warnings of API servers to where the command's own notices go.
func (t *tool) warningHandler(before rest.WarningHandler) rest.WarningHandler {
	if _, held := t.ErrOut.(*notices); held {
		return rest.NewWarningWriter(t.ErrOut, rest.WarningWriterOptions{Deduplicate: true})
	}
	return before
}

// progress returns the line that shows what a command waits for. It bypasses the buffer.
func (t *tool) progress() *progress { return newProgress(t.screen.ErrOut) }
