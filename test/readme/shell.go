package readme

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// A Shell is one bash in which commands run one after the other, as in a terminal: what one sets the next one sees.
type Shell struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// NewShell starts a shell with the environment env in dir. It ends with ctx, or by Close.
func NewShell(ctx context.Context, dir string, env []string) (*Shell, error) {
	cmd := exec.CommandContext(ctx, "bash", "--noprofile", "--norc")
	cmd.Dir, cmd.Env = dir, env
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &Shell{cmd, in, bufio.NewReader(out)}
	// Both outputs in one, as a terminal shows them; no command reads the commands after it.
	if _, err := s.Run("exec 2>&1"); err != nil {
		return nil, err
	}
	return s, nil
}

// Run runs a command and returns what it printed. A command that fails is an error.
func (s *Shell) Run(command string) (string, error) {
	// A zero byte ends the output, another one the exit code.
	if _, err := fmt.Fprintf(s.in, "{ %s\n} </dev/null; printf '\\0%%d\\0' $?\n", command); err != nil {
		return "", err
	}
	out, err := s.out.ReadString(0)
	if err != nil {
		return out, fmt.Errorf("the shell ended: %w", err)
	}
	code, err := s.out.ReadString(0)
	if err != nil {
		return out, fmt.Errorf("the shell ended: %w", err)
	}
	out, code = strings.TrimSuffix(out, "\x00"), strings.TrimSuffix(code, "\x00")
	if code != "0" {
		return out, fmt.Errorf("exit code %s", code)
	}
	return out, nil
}

// Close ends the shell.
func (s *Shell) Close() error {
	if err := s.in.Close(); err != nil {
		return err
	}
	return s.cmd.Wait()
}
