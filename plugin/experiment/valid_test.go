package experiment

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
)

// constants returns the values of the constants of a type in a file.
func constants(t *testing.T, file, kind string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	ast.Inspect(parsed, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); !ok || name.Name != kind || len(spec.Values) == 0 {
			return true
		}
		value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		values = append(values, value)
		return true
	})
	slices.Sort(values)
	return values
}

func texts[T ~string](values []T) []string {
	var all []string
	for _, v := range values {
		all = append(all, string(v))
	}
	slices.Sort(all)
	return all
}

// What a report may hold is what this package writes: a new code that is not listed would make reports unreadable.
func TestValidate_KnowsAllThereIs(t *testing.T) {
	for kind, tt := range map[string]struct {
		file string
		got  []string
	}{
		"Code": {"verdict.go", texts(Codes())}, "Fault": {"fault.go", texts(Faults())}, "Kind": {"suite/check.go", texts(suite.Kinds())},
	} {
		if want := constants(t, tt.file, kind); len(want) == 0 || !slices.Equal(tt.got, want) {
			t.Errorf("%s: listed are %q, there are %q", kind, tt.got, want)
		}
	}
}

func TestValidate(t *testing.T) {
	report := func() *Report {
		r := NewReport(&suite.Run{ID: "r"}, RequireAny, []suite.Check{{Name: "smoke", Kind: suite.E2E}}, []suite.Variant{{Name: "a"}}, false)
		r.Variants[0].Results[0].Verdict = Verdict{Failed, []Reason{{Code: TestFailed, Fault: FaultVariant}}}
		return r
	}
	if err := report().Validate(); err != nil {
		t.Error(err)
	}
	for want, change := range map[string]func(*Report){
		`require "" is neither any nor all`:                           func(r *Report) { r.Require = "" },
		`outcome "passed\x1b[m" is none of`:                           func(r *Report) { r.Outcome = "passed\x1b[m" },
		`variant "a": outcome "PASSED" is none of`:                    func(r *Report) { r.Variants[0].Outcome = "PASSED" },
		`variant "a", check "smoke": outcome "<b>" is none of`:        func(r *Report) { r.Variants[0].Results[0].Outcome = "<b>" },
		`variant "a", check "smoke": code "x" of a reason is none`:    func(r *Report) { r.Variants[0].Results[0].Reasons[0].Code = "x" },
		`variant "a", check "smoke": fault "you" of a reason is none`: func(r *Report) { r.Variants[0].Results[0].Reasons[0].Fault = "you" },
		`check "smoke": kind "unit" is none of`:                       func(r *Report) { r.Checks[0].Kind = "unit" },
		`variant "a" has no result of check "smoke"`:                  func(r *Report) { r.Variants[0].Results = nil },
	} {
		r := report()
		change(r)
		if err := r.Validate(); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
