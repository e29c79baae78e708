// Package env resolves the environment of a container as the kubelet does when it starts the container: from envFrom, env and the
// Services of the namespace, with the references $(NAME) between them. It is pure: what variables are taken from is given to it.
package env

import (
	"strings"
	"unicode/utf8"
)

// A token is a part of a text: a reference $(NAME), or what the kubelet makes of anything else.
type token struct {
	raw  string // as it is written
	text string // what the kubelet makes of it, unless it is a reference
	name string // of the variable that a reference names
	ref  bool
}

// tokens splits s. The raw parts together are s.
func tokens(s string) []token {
	var all []token
	for s != "" {
		at := strings.IndexByte(s, '$')
		if at < 0 || at == len(s)-1 { // a "$" at the end stands for itself
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

// operator reads the token at the "$" that s begins with, after which something follows.
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
	// The kubelet reads a rune here, so that a byte which is none becomes the replacement character.
	r, size := utf8.DecodeRuneInString(s[1:])
	return token{raw: s[:1+size], text: "$" + string(r)}
}

// Expand returns s with its references replaced by what value returns for their names. As for the kubelet, "$$" is an escaped "$",
// and a reference for which there is no value stays as it is written.
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

// References returns the names of the variables that s refers to, in order, each once.
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

// Rewrite returns s with its references replaced by what text returns for their names; those for which it returns none, and
// everything else, stay as they are written.
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
