package command

import (
	"fmt"
	"io"

	"k8s.io/kubectl/pkg/util/term"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/escape"
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
