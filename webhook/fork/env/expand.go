// Package env resolves the environment of a container as the kubelet does at its start: from envFrom, env and the
// Services of the namespace, with references $(NAME) between them. It is pure: the caller provides the sources.
package env

import (
	"strings"
	"unicode/utf8"
)

// A token is a part of a text: a reference $(NAME), or anything else as the kubelet reads it.
type token struct {
	raw  string // as written
	text string // as the kubelet reads it, unless it is a reference
	name string // of the variable that a reference names
	ref  bool
}

// tokens splits s. The raw parts joined are s.
func tokens(s string) []token {
	var all []token
	for s != "" {
		at := strings.IndexByte(s, '$')
		if at < 0 || at == len(s)-1 { // a "$" at the end is literal
			return append(all, token{raw: s, text: s})
		}
		if at > 0 {
			all = append(all, token{raw: s[:at], text: s[:at]})
			s = s[at:]
		}
		t := operator(s)
		all = append(all, t)
		s = s[len(t.raw):]
	}
	return all
}

// operator parses the token at the "$" at the start of s, which has more bytes.
func operator(s string) token {
	switch s[1] {
	case '$':
		return token{raw: s[:2], text: "$"}
	case '(':
		if end := strings.IndexByte(s, ')'); end >= 0 {
			return token{raw: s[:end+1], name: s[2:end], ref: true}
		}
		return token{raw: s[:2], text: s[:2]}
	}
	// The kubelet reads a rune here, so an invalid byte becomes the replacement character.
	r, size := utf8.DecodeRuneInString(s[1:])
	return token{raw: s[:1+size], text: "$" + string(r)}
}

// Expand replaces the references in s by what value returns for their names. As for the kubelet, "$$" is an escaped
// "$", and a reference without a value stays as written.
func Expand(s string, value func(name string) (string, bool)) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for _, t := range tokens(s) {
		text := t.text
		if t.ref {
			text = t.raw
			if v, ok := value(t.name); ok {
				text = v
			}
		}
		b.WriteString(text)
	}
	return b.String()
}

// References returns the names of the variables that s refers to, in order, without duplicates.
func References(s string) []string {
	var names []string
	seen := map[string]bool{}
	for _, t := range tokens(s) {
		if t.ref && !seen[t.name] {
			seen[t.name] = true
			names = append(names, t.name)
		}
	}
	return names
}

// Rewrite replaces the references in s by what text returns for their names. References for which it returns none, and
// everything else, stay as written.
func Rewrite(s string, text func(name string) (string, bool)) string {
	var b strings.Builder
	for _, t := range tokens(s) {
		raw := t.raw
		if t.ref {
			if r, ok := text(t.name); ok {
				raw = r
			}
		}
		b.WriteString(raw)
	}
	return b.String()
}

// Reference returns the text that refers to a variable.
func Reference(name string) string { return "$(" + name + ")" }

// Literal returns the text that expands to s.
func Literal(s string) string { return strings.ReplaceAll(s, "$", "$$") }
