package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// A screen prints the demo's steps: numbered, with colours on a terminal only.
type screen struct {
	out    *os.File
	colour bool
	number int
	begun  time.Time
}

func newScreen(out *os.File) *screen {
	s := &screen{out: out}
	if info, err := out.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		s.colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return s
}

func (s *screen) step(what string) {
	s.number++
	s.begun = time.Now()
	fmt.Fprintf(s.out, "\n%s\n", s.bold(fmt.Sprintf("%d. %s", s.number, what)))
}

func (s *screen) say(format string, args ...any) {
	fmt.Fprintf(s.out, "   %s\n", strings.TrimRight(fmt.Sprintf(format, args...), "\n"))
}

func (s *screen) command(line string) { fmt.Fprintf(s.out, "\n   %s %s\n", s.dim("$"), s.cyan(line)) }

// output prints what a command printed, below it.
func (s *screen) output(text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(s.out, "     %s\n", strings.TrimRight(line, "\n"))
	}
}

func (s *screen) bold(text string) string  { return s.paint("1", text) }
func (s *screen) dim(text string) string   { return s.paint("2", text) }
func (s *screen) cyan(text string) string  { return s.paint("36", text) }
func (s *screen) green(text string) string { return s.paint("1;32", text) }

func (s *screen) paint(code, text string) string {
	if !s.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
