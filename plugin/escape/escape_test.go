package escape

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"plain, ünïcode 日本 ✅ µ\tand\nlines": "plain, ünïcode 日本 ✅ µ\tand\nlines",
		"\x1b]52;c;cm0gLXJm\x07":            `\u001b]52;c;cm0gLXJm\u0007`,
		"\x1b[2J\x1b[31mred":                `\u001b[2J\u001b[31mred`,
		"\u009b2J":                          `\u009b2J`,
		"\x9b2J":                            `\x9b2J`,
		"passed\rfailed\b\x7f\x00":          `passed\u000dfailed\u0008\u007f\u0000`,
		"\u202egnp.exe\u2069":               `\u202egnp.exe\u2069`,
		"a\u2028b":                          `a\u2028b`,
		"tag \U000e0041":                    `tag \udb40\udc41`,
		"\ufeffbom":                         `\ufeffbom`,
		"family 👨\u200d👩, नमस्ते, می\u200cخواهم": "family 👨\u200d👩, नमस्ते, می\u200cخواهم",
	} {
		if got := Terminal(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := Line("a\nb\tc\x1b"); got != `a\nb\tc\u001b` {
		t.Errorf("got %q", got)
	}
}

func TestMarkdown(t *testing.T) {
	for in, want := range map[string]string{
		"a <b> & c":            "a &lt;b&gt; &amp; c",
		"&lt;img src=x&gt;":    "&amp;lt;img src=x&amp;gt;",
		"@team, owner/repo#12": "@\u200bteam, owner/repo\\#\u200b12",
		"see https://evil/x":   "see https:\u200b//evil/x",
		"www.evil.test":        "www\u200b.evil.test",
		"[x](javascript:a)":    `\[x\](javascript:a)`,
		"`a` | *b* _c_ ~~d~~":  "\\`a\\` \\| \\*b\\* \\_c\\_ \\~\\~d\\~\\~",
		"a\nb\x1b\u202e":       `a b\\u001b\\u202e`,
	} {
		if got := Markdown(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := Code("a`b|c\n"); got != "`a'b|c\\n`" {
		t.Errorf("got %q", got)
	}
	if got := Block([]string{"``` x", "````"}); got != "`````text\n``` x\n````\n`````" {
		t.Errorf("got %q", got)
	}
}

// What comes in pieces is what it is as a whole.
func TestWriter_JoinsCharacters(t *testing.T) {
	const text = "ab\u202ecd✅\x1b[m\x9b\xe2\x80"
	want := Terminal(text[:len(text)-2])
	for size := 1; size < len(text); size++ {
		var b strings.Builder
		w := Writer(&b)
		for rest := text; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			piece := rest[:min(size, len(rest))]
			if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
		}
		if got := b.String(); got != want {
			t.Errorf("in pieces of %d: got %q, want %q", size, got, want)
		}
	}
}

func FuzzTerminal(f *testing.F) {
	for _, s := range []string{"", "plain", "\x1b]52;c;x\x07", "\xff\xfe", "\u202e", "a\tb\n", "\U000e0001"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Terminal(s)
		if !utf8.ValidString(got) {
			t.Fatalf("%q: %q is no text", s, got)
		}
		for _, r := range got {
			if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control)) {
				t.Fatalf("%q: %q lets %U through", s, got, r)
			}
		}
		if again := Terminal(got); again != got {
			t.Fatalf("%q: twice is %q, once %q", s, again, got)
		}
		if strings.ContainsAny(Line(s), "\n\t") {
			t.Fatalf("%q: %q is several lines", s, Line(s))
		}
	})
}

func FuzzWriter_JSONStaysJSON(f *testing.F) {
	for _, s := range []string{"", "\u009b", "\u202e", "\x7f", "\"\\u202e", "\u2028", "\U000e0001"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var in, out strings.Builder
		e := json.NewEncoder(&in)
		e.SetEscapeHTML(false)
		if err := e.Encode(s); err != nil {
			t.Fatal(err)
		}
		if _, err := Writer(&out).Write([]byte(in.String())); err != nil {
			t.Fatal(err)
		}
		var before, after string
		if err := json.Unmarshal([]byte(in.String()), &before); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(out.String()), &after); err != nil || after != before {
			t.Fatalf("%q became %q (%v)", before, after, err)
		}
	})
}

var (
	mention = regexp.MustCompile(`@[A-Za-z0-9]|#[0-9]|[A-Za-z]://|(?i)www\.`)
	bare    = regexp.MustCompile("(^|[^\\\\])(\\\\\\\\)*[`*\\[\\]|~$]")
)

func FuzzMarkdown(f *testing.F) {
	for _, s := range []string{"", "@a", "http://x", "<b>", "`", "\\`", "\\\\|", "a|b", "[x](y)", "#1", "wWw.x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Markdown(s)
		if strings.ContainsAny(got, "<>\n\r") || mention.MatchString(got) || bare.MatchString(got) {
			t.Fatalf("%q: %q is markup", s, got)
		}
		code := Code(s)
		if strings.Count(code, "`") != 2 || strings.Contains(code, "\n") {
			t.Fatalf("%q: %q is not one span of code", s, code)
		}
		block := strings.Split(Block([]string{s, s}), "\n")
		if len(block) != 4 || block[0] != block[3]+"text" || block[1] == block[3] || block[2] == block[3] {
			t.Fatalf("%q: %q is not one block of code", s, block)
		}
	})
}
