package experiment

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// APIVersion and ReportKind identify a Report among other JSON.
const (
	APIVersion = "kubectl-sandbox.dev/v1"
	ReportKind = "ExperimentReport"
)

// A Report is what an experiment has found. It is what `-o json` prints and what the experiment's ConfigMap keeps.
type Report struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	ID         string          `json:"id"`
	Namespace  string          `json:"namespace"`
	Version    string          `json:"version"` // of the plugin that ran it
	Window     Window          `json:"window"`
	Require    string          `json:"require"` // RequireAny or RequireAll
	Outcome    Outcome         `json:"outcome"`
	Best       string          `json:"best,omitempty"` // variant that passed and comes first
	Summary    []string        `json:"summary"`        // sentences for people, the best variant's first
	Checks     []CheckReport   `json:"checks"`         // of the suite, in its order
	Variants   []VariantReport `json:"variants"`       // best first
	Reproduce  []string        `json:"reproduce,omitempty"`
	Trimmed    bool            `json:"trimmed,omitempty"` // details were left out, as the ConfigMap had no room for them
}

// What makes an experiment pass.
const (
	RequireAny = "any" // some variant passed
	RequireAll = "all" // every one did
)

// A CheckReport is a check of the suite.
type CheckReport struct {
	Name     string      `json:"name"`
	Kind     Kind        `json:"kind"`
	Required bool        `json:"required"`
	Source   string      `json:"source,omitempty"`
	Load     *LoadReport `json:"load,omitempty"` // of a built-in check of load
}

// A LoadReport is how a built-in check measured, and what it measured of the baseline.
type LoadReport struct {
	Rate     float64 `json:"rate"` // requests a second, to all arms together
	Seed     uint64  `json:"seed"`
	Rounds   int     `json:"rounds"` // measured, of those planned
	Planned  int     `json:"planned"`
	Settled  bool    `json:"settled,omitempty"` // it ended early, as every verdict was clear
	Took     float64 `json:"seconds"`           // without the warm-up
	Requests int64   `json:"requests"`          // to each arm
	// List is what was sent, and Statuses how often the baseline's two arms answered with which status.
	List     result.List `json:"list"`
	Statuses map[int]int `json:"statuses,omitempty"`
	// Agree says that the baseline's two arms do, and Control by how much they differ.
	Agree   bool         `json:"agree"`
	Control []Difference `json:"control,omitempty"`
	// Edges are those of the bars of a picture, in milliseconds, one more than bars; Baseline and Again the share of each of the two
	// arms' requests that took so long.
	Edges    []float64 `json:"edges,omitempty"`
	Baseline []float64 `json:"baseline,omitempty"`
	Again    []float64 `json:"again,omitempty"`
}

// A Measured is what a built-in check of load measured of a variant.
type Measured struct {
	Requests    int64            `json:"requests"`
	Statuses    map[int]int      `json:"statuses,omitempty"`    // as LoadReport.Statuses
	Differences []Difference     `json:"differences,omitempty"` // from the baseline
	Budgets     []BudgetReport   `json:"budgets,omitempty"`
	Shares      []float64        `json:"shares,omitempty"`   // as LoadReport.Baseline
	Examples    []result.Failure `json:"examples,omitempty"` // of requests that failed
}

// A Difference is by how much a metric is above the baseline's, with the interval that holds it, at 95 % for all of a check at once:
// seconds, or shares of requests.
type Difference struct {
	Metric   string  `json:"metric"`
	Value    float64 `json:"value"`
	Baseline float64 `json:"baseline"`
	Estimate float64 `json:"difference"`
	Low      float64 `json:"low"`
	High     float64 `json:"high"`
	Text     string  `json:"text"` // "p95 +82 ms [74, 91]"
}

// A BudgetReport is what a budget came to: pass, fail or inconclusive, by what was found ("p95 +82 ms [74, 91]"), why it is
// inconclusive, and how many requests an arm would settle it.
type BudgetReport struct {
	Budget  string `json:"budget"`
	Verdict string `json:"verdict"`
	Found   string `json:"found,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Settle  int64  `json:"settle,omitempty"`
}

// A ContractReport is what a built-in check of contract found of a variant.
type ContractReport struct {
	Protocol   string           `json:"protocol"`
	Operations int              `json:"operations"` // looked at
	Skipped    []string         `json:"skipped,omitempty"`
	Findings   []result.Finding `json:"findings,omitempty"` // those that the baseline has not
	More       int              `json:"more,omitempty"`     // findings that are left out
}

// A VariantReport is what became of one variant.
type VariantReport struct {
	Name    string `json:"name"`
	Sandbox string `json:"sandbox"`
	Given   int    `json:"given"`          // its place among those that were named, from 1
	Made    bool   `json:"made,omitempty"` // by the experiment
	// Workloads are what it forks, as one types them.
	Workloads []string `json:"workloads,omitempty"`
	Images    []Image  `json:"images,omitempty"`
	Verdict
	Results []Result `json:"results"` // in the order of the suite
}

// A Result is what became of one check of one variant.
type Result struct {
	Check  string `json:"check"`
	Window Window `json:"window,omitzero"`
	Job    string `json:"job,omitempty"`
	Verdict
	Sent     *route.Sent  `json:"sent,omitempty"`     // by the check's router
	Requests route.Totals `json:"requests,omitempty"` // that came to the forks' workloads with the key
	Tested   []string     `json:"tested,omitempty"`   // the forks, their revisions and the digests that ran: the same, or something else
	Log      []string     `json:"log,omitempty"`      // the end of the test's, where it has not passed

	Measured   *Measured       `json:"measured,omitempty"`
	Bystanders []BystanderRow  `json:"bystanders,omitempty"` // workloads that a load check's requests passed, and that are not forked
	Contract   *ContractReport `json:"contract,omitempty"`
}

// Done says whether the check has run.
func (r *Result) Done() bool { return r.Outcome != "" }

// NewReport returns the report of an experiment that has not begun.
func NewReport(run *Run, require string, checks []Check, variants []Variant, made bool) *Report {
	r := &Report{APIVersion: APIVersion, Kind: ReportKind, ID: run.ID, Namespace: run.Namespace, Require: require}
	for _, c := range checks {
		r.Checks = append(r.Checks, CheckReport{Name: c.Name, Kind: c.Kind, Required: c.Required, Source: c.Source})
	}
	for i, v := range variants {
		vr := VariantReport{Name: v.Name, Sandbox: v.Sandbox, Given: i + 1, Made: made}
		for _, c := range checks {
			vr.Results = append(vr.Results, Result{Check: c.Name})
		}
		r.Variants = append(r.Variants, vr)
	}
	r.Conclude()
	return r
}

// Record writes down the verdict of a check.
func (r *Result) Record(e *Evidence, v Verdict) {
	_, by := e.counted()
	r.Verdict, r.Sent, r.Requests = v, e.Sent, by
}

// Describe takes what a variant is, and what a check of it has tested, from its sandbox.
func (v *VariantReport) Describe(x *Result, s *State) {
	if len(s.Forks) == 0 {
		return
	}
	v.Workloads, v.Images, x.Tested = nil, nil, nil
	for _, f := range s.Forks {
		x.Tested = append(x.Tested, f.identity())
		v.Workloads = append(v.Workloads, strings.Replace(f.Workload, ".", "/", 1))
		if len(f.Pods) > 0 {
			v.Images = append(v.Images, f.Pods[0].Images...)
		}
	}
}

// Variant returns that variant's part of the report.
func (r *Report) Variant(name string) *VariantReport {
	i := slices.IndexFunc(r.Variants, func(v VariantReport) bool { return v.Name == name })
	return &r.Variants[i]
}

// Forked says whether the variant's forks could be made.
func (v *VariantReport) Forked() bool {
	return !slices.ContainsFunc(v.Reasons, func(r Reason) bool { return r.Code == NotForked })
}

// Result returns what became of a check.
func (v *VariantReport) Result(check string) *Result {
	i := slices.IndexFunc(v.Results, func(r Result) bool { return r.Check == check })
	return &v.Results[i]
}

// Conclude makes the outcomes of variants and of the experiment from those of checks, ranks the variants, and says it all in a few
// sentences. Of two with the same outcome that is first which passed more checks, and then which is surely better than the baseline,
// or less surely worse, by more of what checks of load measured. What chance may have done ranks none: those are as they were named,
// whichever was done first.
func (r *Report) Conclude() {
	counts := map[Outcome]int{}
	for i := range r.Variants {
		v := &r.Variants[i]
		if v.Forked() {
			v.Verdict = v.conclude(r.Checks)
		}
		counts[v.Outcome]++
	}
	slices.SortFunc(r.Variants, func(a, b VariantReport) int {
		return cmp.Or(cmp.Compare(rank(a.Outcome), rank(b.Outcome)), cmp.Compare(b.passed(), a.passed()), cmp.Compare(b.gain(), a.gain()),
			cmp.Compare(a.Given, b.Given))
	})
	r.Best = ""
	if len(r.Variants) > 0 && r.Variants[0].Outcome == Passed {
		r.Best = r.Variants[0].Name
	}
	enough := counts[Passed] > 0
	if r.Require == RequireAll {
		enough = counts[Passed] == len(r.Variants) && enough
	}
	switch {
	case enough:
		r.Outcome = Passed
	case r.Require == RequireAll && counts[Failed] > 0, counts[Inconclusive] == 0:
		r.Outcome = Failed
	default:
		r.Outcome = Inconclusive
	}
	r.Summary = r.summarize()
}

func rank(o Outcome) int { return slices.Index([]Outcome{Passed, Inconclusive, Failed}, o) }

func (v *VariantReport) passed() int {
	n := 0
	for _, r := range v.Results {
		if r.Outcome == Passed {
			n++
		}
	}
	return n
}

// gain is by how many metrics under load the variant is surely better than the baseline, less those by which it is surely worse.
func (v *VariantReport) gain() (n int) {
	for _, x := range v.Results {
		if x.Measured == nil {
			continue
		}
		for _, d := range x.Measured.Differences {
			switch {
			case d.High < 0:
				n++
			case d.Low > 0:
				n--
			}
		}
	}
	return n
}

// conclude is a variant's verdict: it failed where a check that is required did; it passed where all of those passed, and each of
// its forks was reached by a check that passed.
func (v *VariantReport) conclude(checks []CheckReport) Verdict {
	var failures, doubts []Reason
	var missing []string
	reached := map[string]bool{}
	for _, c := range checks {
		r := v.Result(c.Name)
		why := func() Reason {
			reason := r.Reasons[0]
			reason.Message = "check " + c.Name + ": " + reason.Message
			return reason
		}
		switch {
		case r.Outcome == Passed:
			for workload, n := range r.Requests {
				reached[strings.Replace(workload, ".", "/", 1)] = reached[strings.Replace(workload, ".", "/", 1)] || n.Fork > 0
			}
		case !c.Required:
		case r.Outcome == Failed:
			failures = append(failures, why())
		case r.Outcome == Inconclusive:
			doubts = append(doubts, why())
		default:
			missing = append(missing, c.Name)
		}
	}
	if other := v.testedOther(checks); other != "" {
		doubts = append(doubts, because(ForkChanged, other))
	}
	if len(missing) > 0 {
		doubts = append(doubts, because(ChecksMissing, "not run: "+some(missing)))
	}
	switch {
	case len(failures) > 0:
		return Verdict{Failed, append(failures, doubts...)}
	case len(doubts) > 0:
		return Verdict{Inconclusive, doubts}
	}
	for _, w := range v.Workloads {
		if !reached[w] {
			doubts = append(doubts, because(ForkUntested, "no check that passed reached the fork of "+w))
		}
	}
	if len(doubts) > 0 || v.passed() == 0 {
		if len(doubts) == 0 {
			doubts = []Reason{because(ChecksMissing, "no check has passed")}
		}
		return Verdict{Inconclusive, doubts}
	}
	return Verdict{Outcome: Passed}
}

// testedOther says which two checks were not of the same: between them the variant was updated, rebased or made anew, and no two of its
// verdicts add up to one. Empty: all were.
func (v *VariantReport) testedOther(checks []CheckReport) string {
	var first *Result
	for _, c := range checks {
		x := v.Result(c.Name)
		switch {
		case !c.Required || len(x.Tested) == 0:
		case first == nil:
			first = x
		case !slices.Equal(first.Tested, x.Tested):
			return fmt.Sprintf("checks %s and %s tested different forks: %s, and %s", first.Check, x.Check, some(first.Tested), some(x.Tested))
		}
	}
	return ""
}

// Found says whether any check has run to its end.
func (r *Report) Found() bool {
	return slices.ContainsFunc(r.Variants, func(v VariantReport) bool {
		return slices.ContainsFunc(v.Results, func(x Result) bool { return x.Done() })
	})
}

// NotForkedVerdict is the verdict on a variant that could not be forked.
func NotForkedVerdict(err error) Verdict {
	return Verdict{Inconclusive, []Reason{because(NotForked, err.Error())}}
}

// QuotaVerdict is the verdict of a check for which a quota of the namespace had no room.
func QuotaVerdict(err error) Verdict {
	return Verdict{Inconclusive, []Reason{*broken(FaultCluster, string(health.QuotaExceeded), err.Error())}}
}

// Losers returns the sandboxes, among those that the experiment made, whose variants did not come first; where none passed, those that
// failed: what can't be told of the others is still to be looked into.
func (r *Report) Losers() []string {
	var out []string
	for _, v := range r.Variants {
		if v.Made && v.Name != r.Best && (r.Best != "" || v.Outcome == Failed) {
			out = append(out, v.Sandbox)
		}
	}
	return out
}

// Took is how long it was.
func (w Window) Took() time.Duration {
	if w.Began.IsZero() || w.Ended.IsZero() {
		return 0
	}
	return w.Ended.Sub(w.Began).Round(100 * time.Millisecond)
}
