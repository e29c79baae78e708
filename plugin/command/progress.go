package command

import (
	"fmt"
	"io"

	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/util/term"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/escape"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
)

// A progress shows what a command waits for, on one line that is erased at the end. If the stream is not a terminal,
// it shows nothing.
type progress struct {
	out   io.Writer
	width int
	shown bool
}

func newProgress(out io.Writer) *progress {
	p := &progress{}
	tty := term.TTY{Out: out}
	if tty.IsTerminalOut() {
		p.out, p.width = out, 80
		if size := tty.GetSize(); size != nil && size.Width > 0 {
			p.width = int(size.Width)
		}
	}
	return p
}

// update replaces the line.
func (p *progress) update(line string) {
	if p.out == nil {
		return
	}
	line = escape.Line(line)
	if r := []rune(line); len(r) >= p.width {
		line = string(r[:p.width-1])
	}
	p.shown = true
	fmt.Fprintf(p.out, "\r\033[K%s", line)
}

// end erases the line.
func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.out, "\r\033[K")
		p.shown = false
	}
}

// A reporter prints what a use case reports while it runs.
type reporter struct {
	*tool
	dryRun cmdutil.DryRunStrategy
	wait   *progress // nil while nothing is waited for
}

// Warn prints a warning.
func (r *reporter) Warn(message string) { r.warn("%s", message) }

// RollsOut prints that a workload will roll out or, in a dry run, would.
func (r *reporter) RollsOut(w *plan.Workload, times int) {
	will, often := "will", "twice: for port names, and for routers"
	if r.dryRun != cmdutil.DryRunNone {
		will = "would"
	}
	if times == 1 {
		often = "once"
	}
	fmt.Fprintf(r.ErrOut, "%s %s roll out %s\n", w, will, often)
}

// Waiting shows what is waited for.
func (r *reporter) Waiting(what string) {
	switch {
	case what == "" && r.wait != nil:
		r.wait.end()
		r.wait = nil
	case what != "":
		if r.wait == nil {
			r.wait = r.progress()
		}
		r.wait.update(what)
	}
}

// Resumes prints that an experiment resumes.
func (r *reporter) Resumes(id string) {
	fmt.Fprintf(r.ErrOut, "experiment %s resumes where it was interrupted\n", id)
}
