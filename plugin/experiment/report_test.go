package experiment

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// concluded returns a report on variants a and b of which each check came out as said, "" being not run.
func concluded(require string, a, b []Outcome) *Report {
	checks := []suite.Check{{Name: "smoke", Required: true}, {Name: "load", Required: true}, {Name: "extra"}}
	r := NewReport(&suite.Run{ID: "r1"}, require, checks, []suite.Variant{{Name: "a", Sandbox: "r1-a"}, {Name: "b", Sandbox: "r1-b"}}, true)
	for i, outcomes := range [][]Outcome{a, b} {
		v := r.Variant([]string{"a", "b"}[i])
		v.Workloads = []string{"deployment/customer"}
		for j, o := range outcomes {
			v.Results[j].Outcome, v.Results[j].Requests = o, route.Totals{customer: {Fork: 1}}
			if o != Passed {
				v.Results[j].Reasons = []Reason{because(TestFailed, "it failed")}
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

func TestConclude_NeedsChecksOfOneFork(t *testing.T) {
	r := concluded(RequireAny, []Outcome{Passed, Passed, Passed}, []Outcome{Passed, Passed, Passed})
	state := func(uid, revision, digest string) *State {
		return &State{Forks: []ForkState{{
			Name: "customer-a", Workload: customer, UID: uid, Revision: revision, Pods: []ForkPod{{Images: []Image{{"app", "api:a", digest}}}},
		}}}
	}
	a := r.Variant("a")
	a.Describe(a.Result("smoke"), state("u1", "1", "sha256:aa"))
	for name, tt := range map[string]struct {
		check string
		then  *State
		want  Outcome
	}{
		"the same":             {"load", state("u1", "1", "sha256:aa"), Passed},
		"another revision":     {"load", state("u1", "2", "sha256:aa"), Inconclusive},
		"another digest":       {"load", state("u1", "1", "sha256:bb"), Inconclusive},
		"another fork":         {"load", state("u2", "1", "sha256:aa"), Inconclusive},
		"one not required":     {"extra", state("u1", "2", "sha256:aa"), Passed},
		"nothing known of one": {"load", &State{}, Passed},
	} {
		a.Result("load").Tested, a.Result("extra").Tested = nil, nil
		a.Describe(a.Result(tt.check), tt.then)
		r.Conclude()
		a = r.Variant("a")
		if a.Outcome != tt.want || tt.want == Inconclusive && a.Reasons[0].Code != ForkChanged {
			t.Errorf("%s: %+v", name, a.Verdict)
		}
	}
}

func TestEncode_LeavesDetailsOutAndVerdictsNever(t *testing.T) {
	r := concluded(RequireAny, []Outcome{Failed, Failed, Passed}, []Outcome{Passed, Passed, Passed})
	x := r.Variant("a").Result("smoke")
	for range 20 {
		x.Log = append(x.Log, strings.Repeat("<", 160))
		x.Bystanders = append(x.Bystanders, BystanderRow{Workload: "deployment/route"})
	}
	x.Contract = &ContractReport{Findings: make([]result.Finding, 20)}
	x.Measured = &Measured{Shares: make([]float64, 48)}
	x.Reasons[0].Message = strings.Repeat("y", 5000)
	whole := must(t, r, 1<<20)
	for _, most := range []int{len(whole) - 1, 12_000, 6_000, 2_500} {
		data := must(t, r, most)
		var short Report
		if err := json.Unmarshal(data, &short); err != nil {
			t.Fatal(err)
		}
		got := short.Variant("a").Result("smoke")
		if len(data) > most || !short.Trimmed || got.Outcome != Failed || got.Reasons[0].Code != TestFailed || short.Best != "b" {
			t.Errorf("%d of %d bytes: %+v", len(data), most, short)
		}
		if c := got.Contract; len(c.Findings)+c.More != 20 {
			t.Errorf("%d findings, and %d more", len(c.Findings), c.More)
		}
	}
	if len(x.Log) != 20 || r.Trimmed {
		t.Error("the report itself was changed")
	}
	if _, err := r.Encode(100); err == nil {
		t.Error("there is room for nothing, and no error")
	}
}

func must(t *testing.T, r *Report, most int) []byte {
	t.Helper()
	data, err := r.Encode(most)
	if err != nil {
		t.Fatal(err)
	}
	return data
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
