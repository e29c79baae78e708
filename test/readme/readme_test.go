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

var update = flag.Bool("update", false, "write the table of flags into the README")

const (
	root = "../.."
	path = root + "/README.md"
)

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
	content := read(t)
	want, err := readme.WithFlags(content, readme.Flags(command.New(genericiooptions.NewTestIOStreamsDiscard())))
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if content != want {
		t.Error("the tables of flags are not those of the commands: run `make docs`")
	}
}

func TestREADME_ConsoleBlocksCanBeRun(t *testing.T) {
	steps, err := readme.Parse(read(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(steps) == 0 {
		t.Error("has no console block")
	}
}

func TestREADME_NamesFilesThatAreThere(t *testing.T) {
	links := regexp.MustCompile(`\]\(([^):#]+)\)`).FindAllStringSubmatch(read(t), -1)
	for _, l := range links {
		if _, err := os.Stat(filepath.Join(root, l[1])); err != nil {
			t.Errorf("link to %s: %v", l[1], err)
		}
	}
}

func TestREADME_NamesTargetsThatMakeHas(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	targets := regexp.MustCompile("(?:`|^|\\$ )make ([a-z0-9-]+)").FindAllStringSubmatch(read(t), -1)
	if len(targets) == 0 {
		t.Error("names no target")
	}
	for _, m := range targets {
		if !regexp.MustCompile(`(?m)^` + m[1] + `:`).Match(makefile) {
			t.Errorf("make %s: the Makefile has no such target", m[1])
		}
	}
}

func read(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
