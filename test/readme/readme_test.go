package readme_test

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/command"
	"github.com/kubectl-sandbox/kubectl-sandbox/test/readme"
)

var update = flag.Bool("update", false, "write the tables of flags and values into the documents")

const (
	root  = "../.."
	chart = "charts/sandbox/"
	guide = "plugin/README.md"
)

// documents are those that a user is led to.
func documents() []string {
	return []string{"README.md", guide, "plugin/experiment/README.md", chart + "README.md", "webhook/README.md"}
}

const text = "# Title\n\n```sh\nnot run\n```\n\n```console\n$ one\nfirst\nsecond\n\n$ two \\\n>   --flag\n> three\n```\n\n" +
	"prose\n\n```console\n$ silent\n```\n"

func TestParse(t *testing.T) {
	steps, err := readme.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range steps {
		got = append(got, s.Command+"|"+s.Want)
	}
	want := []string{"one|first\nsecond", "two \\\n  --flag\nthree|", "silent|"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if steps[0].Line != 8 || steps[2].Line != 20 {
		t.Errorf("lines are %d and %d, want 8 and 20", steps[0].Line, steps[2].Line)
	}
	for _, bad := range []string{"```console\noutput\n```\n", "```console\n$ x\n", "```console\n$ x\n```\n```console\n> x\n```\n"} {
		if steps, err := readme.Parse(bad); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", bad, steps)
		}
	}
}

func TestFill_ReplacesOutputAndNothingElse(t *testing.T) {
	steps, err := readme.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	filled := readme.Fill(text, steps, []string{"new\n", "more\nlines\n", "spoke\n"})
	want := strings.NewReplacer("first\nsecond\n\n", "new\n", "> three\n", "> three\nmore\nlines\n", "$ silent\n", "$ silent\nspoke\n").Replace(text)
	if filled != want {
		t.Errorf("got\n%s\nwant\n%s", filled, want)
	}
	again, err := readme.Parse(filled)
	if err != nil || len(again) != len(steps) || again[1].Want != "more\nlines" {
		t.Errorf("filled text reads as %v, %v", again, err)
	}
}

func TestNormalize(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"driver-pr-42-6c9f7d8b5d-x2x9z  Running  12s", "driver-pr-42-7f8b9c4d5f-b8k2l Running   1m3s", true},
		{"image sha256:" + strings.Repeat("a", 64), "image sha256:" + strings.Repeat("b", 64), true},
		{"expires 2026-01-02T03:04:05Z", "expires 2027-01-02T03:04:05+01:00", true},
		{"curl 10.96.0.12:8080", "curl 10.97.1.1:8080", true},
		{"key abcdefghij234567abcd", "key zyxwvutsrq765432zyxw", true},
		{"sandbox/sb-abc234 forked", "sandbox/sb-zyx765 forked", true},
		{"driver-pr-42 Running", "customer-pr-42 Running", false},
		{"2 pods ready", "3 pods ready", false},
		{"HTTP/1.1 200 OK", "HTTP/1.1 503 Service Unavailable", false},
		{"key pr-42", "key pr-43", false},
	} {
		if got := readme.Normalize(tt.a) == readme.Normalize(tt.b); got != tt.same {
			t.Errorf("%q and %q are the same: %t; they become\n%q\n%q", tt.a, tt.b, got, readme.Normalize(tt.a), readme.Normalize(tt.b))
		}
	}
}

func TestShell_IsOneSession(t *testing.T) {
	s, err := readme.NewShell(t.Context(), t.TempDir(), append(os.Environ(), "GREETING=hello"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ command, out, err string }{
		{"name=world", "", ""},
		{"echo $GREETING \\\n  $name; echo more >&2", "hello world\nmore\n", ""},
		{"cat", "", ""}, // has no input: the next command is not eaten
		{"echo half; false", "half\n", "exit code 1"},
		{"cat <<'X'\n$name\nX", "$name\n", ""},
	} {
		out, err := s.Run(tt.command)
		if out != tt.out || (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
			t.Errorf("%q printed %q, %v; want %q, %s", tt.command, out, err, tt.out, tt.err)
		}
	}
	if _, err := s.Run("exit 3"); err == nil {
		t.Error("a shell that ended goes on")
	}
	_ = s.Close()
}

func TestFlags_TellOfEveryFlagOfACommandsOwn(t *testing.T) {
	root := &cobra.Command{Use: "sandbox"}
	root.PersistentFlags().String("context", "", "shared")
	fork := &cobra.Command{Use: "fork TYPE/NAME", Short: "Fork a workload", Run: func(*cobra.Command, []string) {}}
	fork.Flags().StringP("output", "o", "", "One of: a|b")
	fork.Flags().Bool("wait", true, "Wait")
	fork.Flags().String("template", "", "kubectl's")
	fork.Flags().String("secret", "", "x")
	if err := fork.Flags().MarkHidden("secret"); err != nil {
		t.Fatal(err)
	}
	root.AddCommand(fork, &cobra.Command{Use: "hidden", Hidden: true, Run: func(*cobra.Command, []string) {}})
	want := "#### `sandbox fork TYPE/NAME`\n\nFork a workload.\n\n| flag | default | meaning |\n|---|---|---|\n" +
		"| `-o`, `--output` |  | One of: a\\|b |\n| `--wait` | `true` | Wait |\n\n"
	if got := readme.Flags(root); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestREADME_TablesOfFlagsAreTheCommands(t *testing.T) {
	content := read(t, guide)
	want, err := readme.WithFlags(content, readme.Flags(command.New(genericiooptions.NewTestIOStreamsDiscard())))
	if err != nil {
		t.Fatal(err)
	}
	holds(t, guide, content, want)
}

func TestREADME_TableOfValuesIsTheCharts(t *testing.T) {
	table, err := readme.Values([]byte(read(t, chart+"values.schema.json")), []byte(read(t, chart+"values.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	content := read(t, chart+"README.md")
	want, err := readme.WithValues(content, table)
	if err != nil {
		t.Fatal(err)
	}
	holds(t, chart+"README.md", content, want)
}

// holds compares a document with what it has to be; with -update it writes that.
func holds(t *testing.T, name, content, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(filepath.Join(root, name), []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if content != want {
		t.Errorf("the tables of %s are out of date: run `make docs`", name)
	}
}

func TestValues_AreInTheOrderOfTheSchema(t *testing.T) {
	schema := `{"properties": {"b": {"description": "second|letter"}, "a": {"description": "x", "properties": {"c": {"description": "third"}}}}}`
	got, err := readme.Values([]byte(schema), []byte("a: {c: [1]}\nb: hello"))
	want := "| value | default | meaning |\n|---|---|---|\n| `b` | `hello` | second\\|letter |\n| `a.c` | `[1]` | third |\n"
	if err != nil || got != want {
		t.Errorf("got\n%s\nwant\n%s\n%v", got, want, err)
	}
	if table, err := readme.Values([]byte(`{"properties": {"b": {}}}`), nil); err == nil {
		t.Errorf("a value without description: %s", table)
	}
}

func TestREADME_ConsoleBlocksCanBeRun(t *testing.T) {
	steps, err := readme.Parse(read(t, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if len(steps) == 0 {
		t.Error("has no console block")
	}
}

// The README is one page.
func TestREADME_IsShort(t *testing.T) {
	if n := strings.Count(read(t, "README.md"), "\n"); n > 250 {
		t.Errorf("%d lines, want at most 250: what users look up belongs into a document beside what it describes", n)
	}
}

// Each link leads to a file that is there and, where it names one, to a heading that is there.
func TestREADME_LinksLeadSomewhere(t *testing.T) {
	for _, name := range documents() {
		for _, l := range regexp.MustCompile(`\]\(([^):#]*)(?:#([^)]+))?\)`).FindAllStringSubmatch(read(t, name), -1) {
			target := name
			if l[1] != "" {
				target = filepath.Join(filepath.Dir(name), l[1])
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s: link to %s: %v", name, l[1], err)
			} else if l[2] != "" && !slices.Contains(anchors(read(t, target)), l[2]) {
				t.Errorf("%s: %s has no heading #%s", name, target, l[2])
			}
		}
	}
}

// anchors are the names by which a document's headings are linked to, as GitHub makes them.
func anchors(markdown string) []string {
	var names []string
	for _, h := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(markdown, -1) {
		plain := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(h[1]), "")
		names = append(names, strings.ReplaceAll(plain, " ", "-"))
	}
	return names
}

func TestREADME_NamesTargetsThatMakeHas(t *testing.T) {
	makefile := read(t, "Makefile")
	for _, name := range documents() {
		for _, m := range regexp.MustCompile("(?:`|^|\\$ )make ([a-z0-9-]+)").FindAllStringSubmatch(read(t, name), -1) {
			if !regexp.MustCompile(`(?m)^` + m[1] + `:`).MatchString(makefile) {
				t.Errorf("%s: make %s: the Makefile has no such target", name, m[1])
			}
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
