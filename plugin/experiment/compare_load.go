package experiment

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/judge"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/stats"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

const (
	// bins is the number of bars in a picture of latencies.
	bins = 48
	// maxExamples bounds how many failed requests a report lists for a variant.
	maxExamples = 4
)

// loadComparison is the result of a load check.
type loadComparison struct {
	result result.Load
	judged *stats.Judgement
}

func readLoad(p *suite.Probe, log io.Reader) (Comparison, []result.Arm, error) {
	r, err := result.ReadLoad(log)
	if err != nil {
		return nil, nil, err
	}
	judged, err := judge.Load(r, p.Budgets)
	if err != nil {
		return nil, nil, err
	}
	return &loadComparison{r, judged}, r.Arms, nil
}

func (l *loadComparison) unusable() string { return "" }

// Sent implements Comparison.
func (l *loadComparison) Sent(variant string) *route.Sent {
	var s route.Sent
	t := l.result.Totals[armOf(l.result.Arms, variant)]
	s.Begun = uint64(max(0, t.Sent)) //nolint:gosec // a count
	for _, n := range t.Statuses {
		s.Answered += uint64(max(0, n)) //nolint:gosec // a count
	}
	s.Begun = max(s.Begun, s.Answered)
	return &s
}

func (l *loadComparison) failures(variant string, e *Evidence, d *doubts) []Reason {
	failures := l.missedBudgets(variant, d)
	switch {
	case e.Passed == nil || e.Baseline == nil:
		d.add(NotCounted, "the outcome of requests at workloads that are not forked is unknown: the webhook did not report it")
	case e.PassedMissing != "":
		d.add(NotCounted, "the outcome of requests at workloads that are not forked is unknown: the routers of %s did not report it",
			e.PassedMissing)
	}
	d.lost(bystandersEnded(e))
	return failures
}

// Fill implements Comparison.
func (l *loadComparison) Fill(r *Report, check string, variants []suite.Variant) {
	var shares [][]float64
	for i := range r.Checks {
		if c := &r.Checks[i]; c.Name == check {
			c.Load, shares = l.report()
		}
	}
	for _, v := range variants {
		r.Variant(v.Name).Result(check).Measured = l.measured(v.Name, shares)
	}
}

// of returns the comparison of a variant.
func (l *loadComparison) of(variant string) *stats.Comparison {
	i := slices.IndexFunc(l.judged.Variants, func(c stats.Comparison) bool { return c.Variant == variant })
	return &l.judged.Variants[i]
}

// missedBudgets returns the budgets that a variant missed, and adds to d the reasons why others are undecided.
func (l *loadComparison) missedBudgets(variant string, d *doubts) (failures []Reason) {
	if l.result.Incomplete != "" {
		d.add(NotFinished, "the check was not done: %s", l.result.Incomplete)
	}
	if refused := l.refusals(); refused != "" {
		d.block(NothingCompared, "%s", refused)
	}
	c := l.of(variant)
	noisy := false
	for _, o := range c.Outcomes {
		switch {
		case o.Verdict == stats.Fail && l.late(&o) > 0:
			d.add(TooNoisy, "%s, and the check itself sent one in a hundred requests %s late or more, which falls on all of them: give its container more CPU, or a lower --rate",
				missed(c, &o), l.late(&o).Round(time.Millisecond))
		case o.Verdict == stats.Fail:
			failures = append(failures, because(BudgetMissed, missed(c, &o)))
		case o.Reason == stats.Noisy && !noisy:
			noisy = true // which is the same of every budget
			d.add(TooNoisy, "%s", l.noise())
		case o.Reason == stats.Few:
			d.add(TooFew, "too few requests were answered to measure %s%s", o.Budget.Metric, afterSettling(o.Settle))
		case o.Reason == stats.Close:
			d.add(TooClose, "%s can't be distinguished from %s%s", describeOutcome(c, &o), o.Budget, afterSettling(o.Settle))
		}
	}
	return failures
}

// baselineStatuses counts the answers of the baseline's two arms.
func (l *loadComparison) baselineStatuses() map[int]int {
	all := map[int]int{}
	for i, a := range l.result.Arms {
		if a.Role != result.RoleVariant {
			for status, n := range l.result.Totals[i].Statuses {
				all[status] += n
			}
		}
	}
	return all
}

// refusals describes that the baseline answered only refusals and errors, so that nothing else was measured; empty if
// it did not.
func (l *loadComparison) refusals() string {
	statuses := l.baselineStatuses()
	for status := range statuses {
		if status < 400 {
			return ""
		}
	}
	if len(statuses) == 0 {
		return ""
	}
	s := "the baseline answered every request by a refusal or an error (" + FormatStatuses(most(statuses)) + "), so the latencies are those of error pages"
	if l.result.List.Host != "" {
		s += "; the requests were recorded of " + l.result.List.Host + ": a recording may lack credentials (browsers leave them out), or be of other paths" +
			result.FormatLeftOut("; ", l.result.List.LeftOut)
	}
	return s
}

// maxStatuses bounds how many statuses a report lists per arm.
const maxStatuses = 12

// most returns the most frequent statuses.
func most(statuses map[int]int) map[int]int {
	out := map[int]int{}
	for _, s := range byCount(statuses) {
		if len(out) < maxStatuses {
			out[s] = statuses[s]
		}
	}
	return out
}

func byCount(statuses map[int]int) []int {
	return slices.SortedFunc(maps.Keys(statuses), func(a, b int) int { return cmp.Or(cmp.Compare(statuses[b], statuses[a]), cmp.Compare(a, b)) })
}

// FormatStatuses lists how often each status was answered, the most frequent first: "200 (1200 times), 404 (3
// times)".
func FormatStatuses(statuses map[int]int) string {
	var parts []string
	for _, s := range byCount(statuses) {
		times := "times"
		if statuses[s] == 1 {
			times = "time"
		}
		parts = append(parts, fmt.Sprintf("%d (%d %s)", s, statuses[s], times))
	}
	return strings.Join(parts, ", ")
}

// lateShare is the share of an absolute budget that the probe's own lateness may take before a miss is not attributed
// to the variant.
const lateShare = 0.1

// late returns the lateness of the slowest hundredth of requests if it may explain why an absolute budget was missed.
// In differences from the baseline it cancels, because the baseline's requests were as late.
func (l *loadComparison) late(o *stats.Outcome) time.Duration {
	late := l.result.Lateness.Quantile(0.99)
	if o.Budget.Scale != 0 || o.Budget.Metric == stats.Errors || late.Seconds() < lateShare*o.Limit {
		return 0
	}
	return late
}

// missed describes by how much a budget was missed: "p95 +82 ms [74, 91] under load, and p95<=baseline+10% is
// allowed".
func missed(c *stats.Comparison, o *stats.Outcome) string {
	return fmt.Sprintf("%s under load, and %s is allowed", describeOutcome(c, o), o.Budget)
}

// describeOutcome describes a budget's metric: by its difference from the baseline or, for an absolute budget, by
// itself.
func describeOutcome(c *stats.Comparison, o *stats.Outcome) string {
	if i := slices.IndexFunc(c.Differences, func(d stats.Difference) bool { return d.Metric == o.Budget.Metric }); i >= 0 && o.Budget.Scale != 0 {
		return c.Differences[i].String()
	}
	return stats.Level(o)
}

func afterSettling(n int64) string {
	if n <= 0 {
		return ""
	}
	// The estimate is only good for two digits.
	scale := math.Pow10(max(0, int(math.Log10(float64(n)))-1))
	return fmt.Sprintf("; some %.0f requests an arm would settle it", math.Ceil(float64(n)/scale)*scale)
}

func (l *loadComparison) noise() string {
	var by []string
	for _, d := range l.judged.Gate.Differences {
		if d.Significant() {
			by = append(by, d.String())
		}
	}
	return fmt.Sprintf("too noisy: the baseline differs from itself by %s%s", none(strings.Join(by, ", ")), afterSettling(l.judged.Gate.Settle))
}

// report returns the report of a load check, and the distribution of each arm's latencies in the result's order.
func (l *loadComparison) report() (*LoadReport, [][]float64) {
	found, gate := &l.result, &l.judged.Gate
	r := &LoadReport{
		Rate: found.Rate, Seed: found.Seed, Rounds: len(found.Rounds), Planned: found.Planned, Settled: found.Settled,
		Took: math.Round(found.Round * float64(len(found.Rounds))), Agree: gate.Agree, Control: differences(gate.Differences),
		List: found.List, Statuses: most(l.baselineStatuses()),
	}
	run := judge.Run(*found)
	for _, b := range run.A.Blocks {
		r.Requests += b.Requests
	}
	edges, shares := stats.Distribution(append([]stats.Arm{run.A, run.Again}, run.Variants...), bins)
	for _, e := range edges {
		r.Edges = append(r.Edges, float64(e)/float64(time.Millisecond))
	}
	if len(shares) > 1 {
		r.Baseline, r.Again = rounded(shares[0]), rounded(shares[1])
	}
	return r, shares
}

func (l *loadComparison) measured(variant string, shares [][]float64) *Measured {
	c := l.of(variant)
	out := &Measured{Requests: c.Requests, Differences: differences(c.Differences)}
	for _, o := range c.Outcomes {
		b := BudgetReport{o.Budget.String(), string(o.Verdict), describeOutcome(c, &o), string(o.Reason), o.Settle}
		if o.Verdict == stats.Fail && l.late(&o) > 0 {
			b.Verdict, b.Reason = string(stats.Inconclusive), string(stats.Noisy)
		}
		out.Budgets = append(out.Budgets, b)
	}
	arm := armOf(l.result.Arms, variant)
	out.Statuses = most(l.result.Totals[arm].Statuses)
	if len(shares) > arm {
		out.Shares = rounded(shares[arm])
	}
	examples := l.result.Totals[arm].Examples
	out.Examples = examples[:min(len(examples), maxExamples)]
	return out
}

func differences(all []stats.Difference) (out []Difference) {
	for _, d := range all {
		out = append(out, Difference{string(d.Metric), d.Value, d.Baseline, d.Estimate, d.Low, d.High, d.String()})
	}
	return out
}

// rounded rounds to four decimals, which is what a picture shows.
func rounded(v []float64) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = math.Round(x*1e4) / 1e4
	}
	return out
}
