// Package readme keeps the README true: its console blocks are run, its flag tables are made from the commands.
//
// A console block is fenced by ```console. Lines that begin with "$ " are commands, "> " continues one, and what follows is
// what the command prints. All commands of a file run in one shell, in order. A block fenced in any other way is not run.
package readme

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A Step is one command of a console block.
type Step struct {
	Line    int    // of the command in the file, from 1
	Command string // without prompts
	Want    string // what it prints, up to Normalize; lines without a newline at the end

	end int // line after its output
}

// Parse returns the steps of a Markdown text. A console block that does not begin with a command, or that does not end, is an
// error.
func Parse(markdown string) ([]Step, error) {
	var steps []Step
	inside, opened := false, 0
	continues := false
	for i, line := range strings.Split(markdown, "\n") {
		n := i + 1
		switch {
		case !inside:
			if strings.TrimSpace(line) == "```console" {
				inside, opened = true, len(steps)
			}
		case strings.HasPrefix(line, "```"):
			inside, continues = false, false
		case strings.HasPrefix(line, "$ "):
			steps = append(steps, Step{Line: n, Command: line[2:], end: n + 1})
			continues = true
		case len(steps) == opened:
			return nil, fmt.Errorf("line %d: a console block begins with a command, \"$ \"", n)
		case continues && strings.HasPrefix(line, "> "):
			last := &steps[len(steps)-1]
			last.Command += "\n" + line[2:]
			last.end = n + 1
		default:
			last := &steps[len(steps)-1]
			last.Want += line + "\n"
			last.end, continues = n+1, false
		}
	}
	if inside {
		return nil, fmt.Errorf("the last console block has no end")
	}
	for i := range steps {
		steps[i].Want = strings.TrimRight(steps[i].Want, "\n")
	}
	return steps, nil
}

// Fill returns the text with the output of each of its steps replaced.
func Fill(markdown string, steps []Step, outputs []string) string {
	lines := strings.Split(markdown, "\n")
	for i, s := range slices.Backward(steps) {
		first := s.Line + strings.Count(s.Command, "\n") // index of the line after the command
		var output []string
		if got := strings.TrimRight(outputs[i], "\n"); got != "" {
			output = strings.Split(got, "\n")
		}
		lines = slices.Concat(lines[:first], output, lines[s.end-1:])
	}
	return strings.Join(lines, "\n")
}

// A pattern is something that differs between two good runs, and what stands for it.
type pattern struct {
	*regexp.Regexp
	as string
}

// patterns are in order: what an earlier one replaced, a later one does not see.
func patterns() []pattern {
	return []pattern{
		{regexp.MustCompile(`sha256:[0-9a-f]{8,64}`), "DIGEST"},
		{regexp.MustCompile(`\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`), "TIME"},
		{regexp.MustCompile(`\bv\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?`), "VERSION"},
		{regexp.MustCompile(`\b(\d{1,3}\.){3}\d{1,3}(:\d+)?\b`), "ADDRESS"},
		{regexp.MustCompile(`\bsb-[a-z0-9]{6}\b`), "NAME"},
		{regexp.MustCompile(`-[bcdfghjklmnpqrstvwxz2456789]{8,10}-[bcdfghjklmnpqrstvwxz2456789]{5}\b`), "-POD"}, // Kubernetes' safe alphabet
		{regexp.MustCompile(`\b[a-z2-7]{20}\b`), "KEY"},
		{regexp.MustCompile(`\b\d+( +Routed)\b`), "REQUESTS$1"}, // the demo sends some again
		{regexp.MustCompile(`\bT7\d{5}C\b`), "DRIVER"},          // HotROD's
		{regexp.MustCompile(`\b(\d+(\.\d+)?(ms|s|m|h|d))+\b`), "DURATION"},
		{regexp.MustCompile(`[ \t]+`), " "}, // columns are as wide as their widest word
		{regexp.MustCompile(`(?m) $`), ""},
	}
}

// Normalize replaces all that differs between two good runs of a command.
func Normalize(output string) string {
	for _, p := range patterns() {
		output = p.ReplaceAllString(output, p.as)
	}
	return strings.TrimRight(output, "\n")
}
