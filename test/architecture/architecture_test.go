package architecture_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/architecture"
)

const root = "../.."

func TestImportsPointOneWay(t *testing.T) {
	packages := list(t)
	if len(packages) == 0 {
		t.Fatal("go list names no package")
	}
	for _, problem := range architecture.Check(packages) {
		t.Error(problem)
	}
}

// The check finds what it is for.
func TestCheck(t *testing.T) {
	own := func(path string) string { return architecture.Module + "/" + path }
	for _, tt := range []struct {
		name string
		pkg  architecture.Package
		want string
	}{
		{"downwards", architecture.Package{ImportPath: own("plugin/command"), Imports: []string{own("plugin/plan"), own("webhook/route")}}, ""},
		{"within a layer", architecture.Package{ImportPath: own("webhook/fork/env"), Imports: []string{own("webhook/fork")}}, ""},
		{"a package without what lies below it", architecture.Package{ImportPath: own("webhook/preview"), Imports: []string{own("webhook/engine")}}, ""},
		{"what lies below a package", architecture.Package{ImportPath: own("webhook/preview"), Imports: []string{own("webhook/engine/http1")}},
			"must not import webhook/engine/http1"},
		{"within the engine", architecture.Package{ImportPath: own("webhook/engine/http2"), Imports: []string{own("webhook/engine/http1")}},
			"must not import webhook/engine/http1"},
		{"up", architecture.Package{ImportPath: own("plugin/plan"), Imports: []string{own("plugin/command")}}, "must not import plugin/command"},
		{"sideways", architecture.Package{ImportPath: own("plugin/plan"), Imports: []string{own("plugin/cluster")}}, "must not import plugin/cluster"},
		{"into the base of plans", architecture.Package{ImportPath: own("plugin/plan/routes"), Imports: []string{own("plugin/plan")}}, ""},
		{"from routing to its use", architecture.Package{ImportPath: own("plugin/plan/forks"), Imports: []string{own("plugin/plan/routes")}}, ""},
		{"from routing to forks", architecture.Package{ImportPath: own("plugin/plan/routes"), Imports: []string{own("plugin/plan/forks")}},
			"must not import plugin/plan/forks"},
		{"out of the base of plans", architecture.Package{ImportPath: own("plugin/plan"), Imports: []string{own("plugin/plan/policies")}},
			"must not import plugin/plan/policies"},
		{"from verdicts to the suite", architecture.Package{ImportPath: own("plugin/experiment"),
			Imports: []string{own("plugin/experiment/suite")}}, ""},
		{"from the suite to verdicts", architecture.Package{ImportPath: own("plugin/experiment/suite"),
			Imports: []string{own("plugin/experiment")}}, "must not import plugin/experiment"},
		{"webhook to plugin", architecture.Package{ImportPath: own("webhook/lifecycle"), Imports: []string{own("plugin/plan")}}, "must not import plugin/plan"},
		{"leaf", architecture.Package{ImportPath: own("webhook/sandbox"), Imports: []string{own("webhook/route")}}, "must not import webhook/route"},
		{"a room of a split layer", architecture.Package{ImportPath: own("plugin/cluster/jobs"), Imports: []string{own("plugin/cluster/read")}}, ""},
		{"another room of a split layer", architecture.Package{ImportPath: own("plugin/cluster/read"), Imports: []string{own("plugin/cluster/jobs")}},
			"must not import plugin/cluster/jobs"},
		{"from a split layer into its rooms", architecture.Package{ImportPath: own("plugin/cluster"), Imports: []string{own("plugin/cluster/read")}},
			"must not import plugin/cluster/read"},
		{"no place", architecture.Package{ImportPath: own("webhook/extra")}, "no place"},
		{"name", architecture.Package{ImportPath: own("webhook/certs/utils"), Name: "utils"}, "named for nothing"},
		{"pure", architecture.Package{ImportPath: own("webhook/inject"), Imports: []string{"net/http"}}, "is pure and must not import net/http"},
		{"pure, with a client", architecture.Package{ImportPath: own("webhook/inject"), Imports: []string{"k8s.io/client-go/rest"}}, "is pure"},
		{"router", architecture.Package{ImportPath: own("webhook/router"), Deps: []string{"k8s.io/apimachinery/pkg/types"}}, "without Kubernetes"},
		{"kubectl outside the plugin", architecture.Package{ImportPath: own("webhook/server"), Deps: []string{"k8s.io/kubectl/pkg/util"}}, "no part of the plugin"},
		{"kubectl in the plugin", architecture.Package{ImportPath: own("plugin/command"), Imports: []string{"k8s.io/kubectl/pkg/cmd/util"}}, ""},
		{"flags in a use case", architecture.Package{ImportPath: own("plugin/operate"), Imports: []string{"github.com/spf13/pflag"}},
			"leaves flags and printing"},
		{"flags in what prints", architecture.Package{ImportPath: own("plugin/printer"), Imports: []string{"github.com/spf13/cobra"}},
			"leaves flags to plugin/command"},
		{"a use case that prints", architecture.Package{ImportPath: own("plugin/operate"), Imports: []string{own("plugin/printer")}},
			"must not import plugin/printer"},
		{"API calls", architecture.Package{ImportPath: own("plugin/command"), Imports: []string{"k8s.io/client-go/kubernetes"}}, "leaves API calls"},
		{"manager", architecture.Package{ImportPath: own("webhook/lifecycle"), Imports: []string{"sigs.k8s.io/controller-runtime"}}, "set-up of controller-runtime"},
		{"interfaces of controller-runtime", architecture.Package{ImportPath: own("webhook/lifecycle"),
			Imports: []string{"sigs.k8s.io/controller-runtime/pkg/manager"}}, ""},
		{"not ours", architecture.Package{ImportPath: "example.com/x", Imports: []string{own("plugin/plan")}}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := strings.Join(architecture.Check([]architecture.Package{tt.pkg}), "; ")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestTopLevelIsFixed(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "git", "-C", root, "ls-tree", "--name-only", "HEAD")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-tree: %v", err)
	}
	fixed := []string{"cmd", "plugin", "webhook", "charts", "krew", "test", "go.mod", "go.sum", "Makefile", "README.md", "LICENSE"}
	for _, name := range strings.Fields(string(out)) {
		if !strings.HasPrefix(name, ".") && !slices.Contains(fixed, name) {
			t.Errorf("%s: the top level is fixed; files go where the layout has their job", name)
		}
	}
}

func list(t *testing.T) []architecture.Package {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Name,Imports,Deps", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var packages []architecture.Package
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p architecture.Package
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}
