package experiment

import (
	"slices"
	"strings"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
)

func TestConclude_SaysItInSentences(t *testing.T) {
	checks := []suite.Check{{Name: "smoke", Kind: suite.E2E, Required: true}, {Name: "contract", Kind: suite.Contract, Required: true}, {Name: "load", Kind: suite.Load, Required: true}}
	var variants []suite.Variant
	for _, name := range []string{"a", "b", "slow", "broken", "both", "lost", "crashed", "away"} {
		variants = append(variants, suite.Variant{Name: name})
	}
	r := NewReport(&suite.Run{ID: "r1"}, RequireAny, checks, variants, false)
	for i := range r.Variants {
		for j := range r.Variants[i].Results {
			r.Variants[i].Results[j].Outcome = Passed
		}
	}
	fails := func(variant, check string, reasons ...Reason) *Result {
		x := r.Variant(variant).Result(check)
		x.Verdict = Verdict{Failed, reasons}
		return x
	}
	late := &Measured{Budgets: []BudgetReport{
		{Budget: "p95<=baseline+10%", Verdict: "fail", Found: "p95 +82 ms [74, 91]"}, {Budget: "errors<1%", Verdict: "pass", Found: "errors 0.1 %"},
	}}
	gone := &ContractReport{Findings: []result.Finding{
		{Operation: "GET /customer", Reason: result.ReasonFieldGone, Path: "/name"}, {Operation: "GET /customer", Reason: result.ReasonFieldGone, Path: "/id"},
		{Operation: "GET /other", Reason: result.ReasonNotServed},
	}}
	fails("slow", "load", because(BudgetMissed, "p95 +82 ms [74, 91] under load, and p95<=baseline+10% is allowed")).Measured = late
	fails("broken", "contract", because(ContractBroken, "breaks the contract of GET /customer: FieldGone /name")).Contract = gone
	fails("both", "contract", because(ContractBroken, "breaks the contract of GET /customer: FieldGone /name")).Contract = gone
	fails("both", "load", because(Bystander, "deployment/route fails 4.2 % of the variant's requests"))
	fails("crashed", "smoke", because(TestFailed, "container test exited with status 1\n"+strings.Repeat("x", 1000)))
	for _, c := range checks {
		r.Variant("lost").Result(c.Name).Verdict = Verdict{Inconclusive, []Reason{because(NotReached, "the key was last seen at deployment/frontend")}}
	}
	r.Variant("away").Verdict = Verdict{Inconclusive, []Reason{because(NotForked, "image api:d can't be pulled")}}
	r.Conclude()
	want := []string{
		"a and b passed all checks.",
		"lost can't be judged by smoke, contract and load: the key was last seen at deployment/frontend.",
		"slow fails: p95 +82 ms [74, 91] under load.",
		"broken breaks the contract of GET /customer.",
		"crashed fails: smoke, as container test exited with status 1.",
		"both breaks the contract of GET /customer, and fails: deployment/route fails 4.2 % of the variant's requests.",
	}
	for _, w := range want {
		if !slices.Contains(r.Summary, w) {
			t.Errorf("nothing says %q; what is said is\n%s", w, strings.Join(r.Summary, "\n"))
		}
	}
	if i := slices.Index(r.Summary, "away could not be forked: image api:d can't be pulled."); i < 0 || len(r.Summary) != len(want)+1 {
		t.Errorf("what is said is\n%s", strings.Join(r.Summary, "\n"))
	}
}

func TestConclude_RanksByWhatIsSure(t *testing.T) {
	for _, tt := range []struct {
		name        string
		low, high   float64 // of b's p95, above the baseline's
		best, other string
	}{
		{"faster", -0.02, -0.01, "b", "a"},
		{"perhaps faster", -0.02, 0.01, "a", "b"},
		{"slower within its budget", 0.01, 0.02, "a", "b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := []Outcome{Passed, Passed, Passed}
			r := concluded(RequireAny, all, all)
			r.Variant("a").Result("smoke").Outcome = ""
			r.Conclude() // b is done first, which is not to matter
			r.Variant("a").Result("smoke").Outcome = Passed
			r.Variant("a").Result("load").Measured = &Measured{Differences: []Difference{{Metric: "p95", Low: -0.01, High: 0.01}}}
			r.Variant("b").Result("load").Measured = &Measured{Differences: []Difference{{Metric: "p95", Low: tt.low, High: tt.high}}}
			r.Conclude()
			if r.Best != tt.best || r.Variants[1].Name != tt.other {
				t.Errorf("best %s, then %s", r.Best, r.Variants[1].Name)
			}
		})
	}
}
