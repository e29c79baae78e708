package experiment

import (
	"slices"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// concluded returns a report on variants a and b of which each check came out as said, "" being not run.
func concluded(require string, a, b []Outcome) *Report {
	checks := []Check{{Name: "smoke", Required: true}, {Name: "load", Required: true}, {Name: "extra"}}
	r := NewReport(&Run{ID: "r1"}, require, checks, []Variant{{Name: "a", Sandbox: "r1-a"}, {Name: "b", Sandbox: "r1-b"}}, true)
	for i, outcomes := range [][]Outcome{a, b} {
		v := r.Variant([]string{"a", "b"}[i])
		v.Workloads = []string{"deployment/customer"}
		for j, o := range outcomes {
			v.Results[j].Outcome, v.Results[j].Requests = o, route.Totals{customer: {Fork: 1}}
			if o != Passed {
				v.Results[j].Reasons = []Reason{{TestFailed, "it failed"}}
			}
		}
	}
	r.Conclude()
	return r
}

func TestConclude(t *testing.T) {
	all := []Outcome{Passed, Passed, Passed}
	for _, tt := range []struct {
		name, require string
		a, b          []Outcome
		want          Outcome
		best          string
	}{
		{"both passed", RequireAny, all, all, Passed, "a"},
		{"one passed", RequireAny, []Outcome{Failed, Passed, Passed}, all, Passed, "b"},
		{"one passed of all", RequireAll, []Outcome{Failed, Passed, Passed}, all, Failed, "b"},
		{"one can't be told of all", RequireAll, []Outcome{Inconclusive, Passed, Passed}, all, Inconclusive, "b"},
		{"all passed", RequireAll, all, all, Passed, "a"},
		{"none passed", RequireAny, []Outcome{Failed, Passed, Passed}, []Outcome{Passed, Failed, Passed}, Failed, ""},
		{"none passed, one can't be told", RequireAny, []Outcome{Failed, Passed, Passed}, []Outcome{Passed, Inconclusive, Passed}, Inconclusive, ""},
		{"what is not required does not matter", RequireAll, []Outcome{Passed, Passed, Failed}, all, Passed, "b"},
		{"not run", RequireAny, []Outcome{Passed, "", ""}, []Outcome{Failed, "", ""}, Inconclusive, ""},
		{"failed and inconclusive", RequireAny, []Outcome{Failed, Inconclusive, Passed}, []Outcome{Failed, Failed, Failed}, Failed, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := concluded(tt.require, tt.a, tt.b)
			if r.Outcome != tt.want || r.Best != tt.best {
				t.Errorf("got %s, best %q, want %s, best %q", r.Outcome, r.Best, tt.want, tt.best)
			}
			for _, v := range r.Variants {
				if (v.Outcome == Passed) != (len(v.Reasons) == 0) {
					t.Errorf("%s: %+v", v.Name, v.Verdict)
				}
			}
		})
	}
}

func TestConclude_NeedsEveryForkToBeReached(t *testing.T) {
	r := concluded(RequireAny, []Outcome{Passed, Passed, Passed}, []Outcome{Failed, Failed, Failed})
	r.Variant("a").Workloads = append(r.Variant("a").Workloads, "deployment/driver")
	r.Conclude()
	if v := r.Variant("a"); v.Outcome != Inconclusive || v.Reasons[0].Code != ForkUntested {
		t.Errorf("got %+v", v.Verdict)
	}
	if got := r.Losers(); !slices.Equal(got, []string{"r1-b"}) {
		t.Errorf("losers %v", got)
	}
}
