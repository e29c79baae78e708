package architecture_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/architecture"
)

func TestNothingIsTooLarge(t *testing.T) {
	list := exec.Command("git", "ls-files", "-co", "--exclude-standard", "*.go")
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for name := range strings.Lines(string(out)) {
		name = strings.TrimSpace(name)
		content, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // deleted, and not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		files[name] = content
	}
	if len(files) < 300 {
		t.Fatalf("only %d files are listed", len(files))
	}
	problems, err := architecture.Sizes(files)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Error(p)
	}
}

func TestSizes(t *testing.T) {
	function := func(name string, lines int) string {
		return "func " + name + "() {\n" + strings.Repeat("\n", lines-2) + "}\n"
	}
	methods := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "func (t *T[A]) M%d() {}\nfunc (t T[A]) m%d() {}\n", i, i)
		}
		return b.String()
	}
	for name, tt := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"all at their limits": {map[string]string{
			"p/a.go": function("F", 70) + methods(25), "p/a_test.go": function("F", 100), "test/x/a.go": function("F", 100),
		}, nil},
		"a function":           {map[string]string{"p/a.go": function("F", 71)}, []string{"p/a.go: F has 71 lines, more than 70"}},
		"a function of a test": {map[string]string{"test/x/a.go": function("F", 101)}, []string{"test/x/a.go: F has 101 lines, more than 100"}},
		"a type":               {map[string]string{"p/a.go": methods(26)}, []string{"type p.T has 26 exported methods, more than 25"}},
		"a file":               {map[string]string{"p/a.go": strings.Repeat("\n", 500)}, []string{"p/a.go has 501 lines, more than 500"}},
		"a package": {map[string]string{
			"p/1.go": strings.Repeat("\n", 499), "p/2.go": strings.Repeat("\n", 499), "p/3.go": strings.Repeat("\n", 499), "p/4.go": strings.Repeat("\n", 499),
			"p/5.go": strings.Repeat("\n", 499), "p/6.go": strings.Repeat("\n", 499), "p/7.go": strings.Repeat("\n", 499), "p/8.go": "\n",
		}, []string{"package p has 3502 lines, more than 3500"}},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string][]byte{}
			for name, text := range tt.files {
				files[name] = []byte("package p\n" + text)
			}
			got, err := architecture.Sizes(files)
			if err != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}
