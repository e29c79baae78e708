package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/open"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// commandEnded is the exit code of the command that `open` ran; it becomes the plugin's own.
type commandEnded struct{ code int }

func (e *commandEnded) Error() string {
	return fmt.Sprintf("the command ended with exit code %d", e.code)
}

// endGrace is how long a command may take to end after SIGTERM.
const endGrace = 10 * time.Second

// runCommand runs the command with the sandbox's address in its environment.
func (f *openFlags) runCommand(ctx context.Context, p *open.Proxy) error {
	key, _ := p.Key(f.name)
	cmd := exec.CommandContext(ctx, f.command[0], f.command[1:]...) //nolint:gosec // it is the caller's own
	cmd.Stdin, cmd.Stdout, cmd.Stderr = f.screen.In, f.screen.Out, f.screen.ErrOut
	cmd.Env = append(os.Environ(), sandbox.EnvURL+"="+f.plainURL(p), sandbox.EnvName+"="+f.name, sandbox.EnvKey+"="+key,
		sandbox.EnvBaggage+"="+p.Carriers.Member+"="+key)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // on an interrupt, the terminal also signals it
	cmd.WaitDelay = endGrace
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return &commandEnded{128 + int(status.Signal())} // as shells have it
		}
		return &commandEnded{exit.ExitCode()}
	case cmd.ProcessState != nil && cmd.ProcessState.Success():
		return nil // it exited with 0 after the signal
	}
	return &plan.Problem{What: fmt.Sprintf("can't run %s: %v", plan.Quote(f.command), err), Err: err}
}

// browse opens an address in the caller's browser.
func browse(ctx context.Context, url string) error {
	words := []string{"xdg-open"}
	switch runtime.GOOS {
	case "darwin":
		words = []string{"open"}
	case "windows":
		words = []string{"rundll32", "url.dll,FileProtocolHandler"}
	}
	return exec.CommandContext(ctx, words[0], append(words[1:], url)...).Start() //nolint:gosec // a fixed program, and our own address
}
