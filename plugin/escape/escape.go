// Package escape makes text that comes from a cluster, or from what runs there, harmless to whoever reads it: on a
// terminal, and in Markdown. Whoever may write an object, or a test its log, chooses that text.
package escape

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Line returns text as one line that does nothing to a terminal: as Terminal does, and line feeds and tabs are
// written out as well.
func Line(s string) string {
	return strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(Terminal(s))
}

// Terminal returns text in which whatever is not seen is written out: control characters, with which escape sequences
// begin (title, clipboard, cursor), characters that change the direction or are invisible, and bytes that are no
// text. Line feeds and tabs stay.
func Terminal(s string) string {
	if strings.IndexFunc(s, acts) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case !acts(r):
			b.WriteString(s[:n])
		default:
			for _, unit := range utf16.AppendRune(nil, r) {
				fmt.Fprintf(&b, `\u%04x`, unit) // as JSON does
			}
		}
		s = s[n:]
	}
	return b.String()
}

// acts reports whether a character does something other than be seen. The joiners are parts of words and of emoji.
func acts(r rune) bool {
	const nonJoiner, joiner, softHyphen = '\u200c', '\u200d', '\u00ad'
	switch r {
	case '\n', '\t', nonJoiner, joiner, softHyphen:
		return false
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// Markdown returns text that stands in a line of Markdown as it is: it is no markup, ends no cell of a table,
// mentions nobody, refers to nothing and is no link, which pages such as GitHub's make of what merely looks like one.
func Markdown(s string) string {
	const apart = "\u200b" // of no width, and no part of any name or address
	www := regexp.MustCompile(`(?i)(www)\.`)
	s = www.ReplaceAllString(Terminal(s), "$1"+apart+".")
	return strings.NewReplacer(
		"\\", "\\\\", "|", "\\|", "`", "\\`", "*", "\\*", "_", "\\_", "[", "\\[", "]", "\\]", "~", "\\~", "$", "\\$",
		"&", "&amp;", "<", "&lt;", ">", "&gt;", "\n", " ", "\r", " ",
		"@", "@"+apart, "#", "\\#"+apart, "://", ":"+apart+"//",
	).Replace(s)
}

// Code returns text as a span of code in Markdown, which it can't end.
func Code(s string) string {
	return "`" + strings.ReplaceAll(Line(s), "`", "'") + "`"
}

// Block returns lines as a block of code in Markdown, with a fence that is longer than any in them.
func Block(lines []string) string {
	shown := slices.Clone(lines)
	fence := "```"
	for i, l := range lines {
		shown[i] = Line(l)
		for strings.Contains(shown[i], fence) {
			fence += "`"
		}
	}
	return fence + "text\n" + strings.Join(shown, "\n") + "\n" + fence
}

// Writer returns a writer that passes on what Terminal makes of the text. What it writes is JSON still where the text
// is: of what JSON may hold as it is, it writes out what JSON may hold written out.
func Writer(w io.Writer) io.Writer { return &writer{to: w} }

type writer struct {
	to io.Writer

	mu   sync.Mutex
	part []byte // the beginning of a character whose end is still to come
}

// Write implements io.Writer.
func (w *writer) Write(text []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := append(w.part, text...)
	whole := len(all) - partial(all)
	w.part = slices.Clone(all[whole:])
	if _, err := io.WriteString(w.to, Terminal(string(all[:whole]))); err != nil {
		return 0, err
	}
	return len(text), nil
}

// partial returns how many bytes at the end begin a character and do not end it.
func partial(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if end := text[len(text)-n:]; utf8.RuneStart(end[0]) {
			if utf8.FullRune(end) {
				return 0
			}
			return n
		}
	}
	return 0
}
