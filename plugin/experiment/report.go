package experiment

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// APIVersion and ReportKind identify a Report among other JSON.
const (
	APIVersion = "kubectl-sandbox.dev/v1"
	ReportKind = "ExperimentReport"
)

// A Report is the result of an experiment: what `-o json` prints and the experiment's ConfigMap stores.
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

// Values of --require: what makes an experiment pass.
const (
	RequireAny = "any" // some variant passed
	RequireAll = "all" // every one did
)

// A CheckReport is a check of the suite.
type CheckReport struct {
	Name     string      `json:"name"`
	Kind     suite.Kind  `json:"kind"`
	Required bool        `json:"required"`
	Source   string      `json:"source,omitempty"`
	Load     *LoadReport `json:"load,omitempty"` // of a built-in check of load
}

// A LoadReport is how a built-in load check measured, and what it measured of the baseline.
type LoadReport struct {
	Rate     float64 `json:"rate"` // requests a second, to all arms together
	Seed     uint64  `json:"seed"`
	Rounds   int     `json:"rounds"` // measured, of those planned
	Planned  int     `json:"planned"`
	Settled  bool    `json:"settled,omitempty"` // it ended early, as every verdict was clear
	Took     float64 `json:"seconds"`           // without the warm-up
	Requests int64   `json:"requests"`          // to each arm
	// List is what was sent. Statuses counts the statuses of the baseline's two arms.
	List     result.List `json:"list"`
	Statuses map[int]int `json:"statuses,omitempty"`
	// Agree means that the baseline's two arms do not differ more than by noise; Control is by how much they differ.
	Agree   bool         `json:"agree"`
	Control []Difference `json:"control,omitempty"`
	// Edges are those of the bars of a picture, in milliseconds, one more than bars. Baseline and Again are the
	// shares of the two arms' requests in each bar.
	Edges    []float64 `json:"edges,omitempty"`
	Baseline []float64 `json:"baseline,omitempty"`
	Again    []float64 `json:"again,omitempty"`
}

// A Measured is what a built-in load check measured of a variant.
type Measured struct {
	Requests    int64            `json:"requests"`
	Statuses    map[int]int      `json:"statuses,omitempty"`    // as LoadReport.Statuses
	Differences []Difference     `json:"differences,omitempty"` // from the baseline
	Budgets     []BudgetReport   `json:"budgets,omitempty"`
	Shares      []float64        `json:"shares,omitempty"`   // as LoadReport.Baseline
	Examples    []result.Failure `json:"examples,omitempty"` // of requests that failed
}

// A Difference is how far a metric is above the baseline's, with its interval, in seconds or shares of requests. All
// intervals of a check hold simultaneously at 95 %.
type Difference struct {
	Metric   string  `json:"metric"`
	Value    float64 `json:"value"`
	Baseline float64 `json:"baseline"`
	Estimate float64 `json:"difference"`
	Low      float64 `json:"low"`
	High     float64 `json:"high"`
	Text     string  `json:"text"` // "p95 +82 ms [74, 91]"
}

// A BudgetReport is the result for a budget: pass, fail or inconclusive; the finding ("p95 +82 ms [74, 91]"); why it
// is inconclusive, and how many requests per arm would settle it.
type BudgetReport struct {
	Budget  string `json:"budget"`
	Verdict string `json:"verdict"`
	Found   string `json:"found,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Settle  int64  `json:"settle,omitempty"`
}

// A ContractReport is the result of a built-in contract check for a variant.
type ContractReport struct {
	Protocol   string           `json:"protocol"`
	Operations int              `json:"operations"` // looked at
	Skipped    []string         `json:"skipped,omitempty"`
	Findings   []result.Finding `json:"findings,omitempty"` // those that the baseline has not
	More       int              `json:"more,omitempty"`     // findings that are left out
}

// A VariantReport is the result for one variant.
type VariantReport struct {
	Name    string `json:"name"`
	Sandbox string `json:"sandbox"`
	Given   int    `json:"given"`          // its place among those that were named, from 1
	Made    bool   `json:"made,omitempty"` // by the experiment
	// Workloads are the workloads that it forks, as command-line arguments.
	Workloads []string `json:"workloads,omitempty"`
	Images    []Image  `json:"images,omitempty"`
	Verdict
	Results []Result `json:"results"` // in the order of the suite
}

// A Result is the result of one check of one variant.
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

// Done reports whether the check has run.
func (r *Result) Done() bool { return r.Outcome != "" }

// NewReport returns the report of an experiment that has not started.
func NewReport(run *suite.Run, require string, checks []suite.Check, variants []suite.Variant, made bool) *Report {
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

// Record records the verdict of a check.
func (r *Result) Record(e *Evidence, v Verdict) {
	_, by := e.counted()
	r.Verdict, r.Sent, r.Requests = v, e.Sent, by
}

// Describe records, from a variant's sandbox, what the variant is and what a check of it has tested.
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

// Forked reports whether the variant's forks could be created.
func (v *VariantReport) Forked() bool {
	return !slices.ContainsFunc(v.Reasons, func(r Reason) bool { return r.Code == NotForked })
}

// Result returns the result of a check.
func (v *VariantReport) Result(check string) *Result {
	i := slices.IndexFunc(v.Results, func(r Result) bool { return r.Check == check })
	return &v.Results[i]
}

// Conclude derives the outcomes of variants and of the experiment from those of checks, ranks the variants, and
// writes the summary. Among equal outcomes, the variant that passed more checks comes first. Then comes the one with
// more metrics of load checks that are significantly better than the baseline's, less those that are significantly
// worse. Differences within chance do not count: such variants stay in the order in which they were named.
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

// gain returns the number of metrics under load in which the variant is significantly better than the baseline, less
// the number in which it is significantly worse.
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

// conclude returns a variant's verdict. It failed if a required check failed. It passed if all required checks
// passed, and a passing check reached each of its forks.
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

// testedOther names two checks that tested different forks: the variant was updated, rebased or recreated between
// them, so their verdicts do not add up. It is empty if all tested the same.
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

// Found reports whether any check has run to its end.
func (r *Report) Found() bool {
	return slices.ContainsFunc(r.Variants, func(v VariantReport) bool {
		return slices.ContainsFunc(v.Results, func(x Result) bool { return x.Done() })
	})
}

// NotForkedVerdict returns the verdict on a variant that could not be forked.
func NotForkedVerdict(err error) Verdict {
	return Verdict{Inconclusive, []Reason{because(NotForked, err.Error())}}
}

// QuotaVerdict returns the verdict on a check for which the namespace's quota had no room.
func QuotaVerdict(err error) Verdict {
	return Verdict{Inconclusive, []Reason{*broken(FaultCluster, string(health.QuotaExceeded), err.Error())}}
}

// Losers returns, among the sandboxes that the experiment created, those whose variants did not come first. If none
// passed, it returns those that failed: inconclusive ones still have to be examined.
func (r *Report) Losers() []string {
	var out []string
	for _, v := range r.Variants {
		if v.Made && v.Name != r.Best && (r.Best != "" || v.Outcome == Failed) {
			out = append(out, v.Sandbox)
		}
	}
	return out
}

// Took returns the length of the window.
func (w Window) Took() time.Duration {
	if w.Began.IsZero() || w.Ended.IsZero() {
		return 0
	}
	return w.Ended.Sub(w.Began).Round(100 * time.Millisecond)
}
