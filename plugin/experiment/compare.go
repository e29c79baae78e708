package experiment

import (
	"cmp"
	"errors"
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
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

const (
	// bins is the number of bars in a picture of latencies.
	bins = 48
	// maxFindings and maxExamples bound what a report lists for a variant, because one ConfigMap has to hold it.
	maxFindings = 20
	maxExamples = 4
)

// A Compared is the result of a built-in check for all variants.
type Compared struct {
	load     *result.Load
	judged   *stats.Judgement
	contract *result.Contract
	broken   string // why there is neither
}

// ReadCompared reads the output of a built-in check. If the log holds no result, or one of other variants, the
// Compared records why.
func ReadCompared(c *Check, variants []Variant, log io.Reader) *Compared {
	out := &Compared{}
	var arms []result.Arm
	var err error
	if c.Probe.Contract {
		var r result.Contract
		if r, err = result.ReadContract(log); err == nil {
			out.contract, arms = &r, r.Arms
		}
	} else {
		var r result.Load
		if r, err = result.ReadLoad(log); err == nil {
			out.load, arms = &r, r.Arms
			if out.judged, err = judge.Load(r, c.Probe.Budgets); err != nil {
				out.load = nil
			}
		}
	}
	for _, v := range variants {
		if err == nil && !slices.ContainsFunc(arms, func(a result.Arm) bool { return a.Name == v.Name && a.Role == result.RoleVariant }) {
			err = errors.New("its result is not of variant " + v.Name)
			out.load, out.contract = nil, nil
		}
	}
	if err != nil {
		out.broken = err.Error()
	}
	return out
}

// Sent returns what the check sent to a variant; nil if that is unknown.
func (m *Compared) Sent(variant string) *route.Sent {
	var s route.Sent
	switch {
	case m.load != nil:
		t := m.load.Totals[m.arm(m.load.Arms, variant)]
		s.Begun = uint64(max(0, t.Sent)) //nolint:gosec // a count
		for _, n := range t.Statuses {
			s.Answered += uint64(max(0, n)) //nolint:gosec // a count
		}
		s.Begun = max(s.Begun, s.Answered)
	case m.contract != nil:
		arm := m.arm(m.contract.Arms, variant)
		for _, o := range m.contract.Operations {
			if len(o.Seen) > arm {
				for _, n := range o.Seen[arm].Statuses {
					s.Answered += uint64(max(0, n)) //nolint:gosec // a count
				}
			}
		}
		if s.Answered == 0 {
			return nil // gRPC's definitions have no statuses
		}
		s.Begun = s.Answered
	default:
		return nil
	}
	return &s
}

func (m *Compared) arm(arms []result.Arm, name string) int {
	return slices.IndexFunc(arms, func(a result.Arm) bool { return a.Name == name })
}

// Judge returns the verdict on a variant, from the result of the check, the evidence for the variant meanwhile, and
// the bystanders.
func (m *Compared) Judge(variant string, e *Evidence, bystanders []BystanderRow) Verdict {
	var d doubts
	d.job(&e.Job)
	switch {
	case e.Job.Failed && e.Job.TimedOut != "":
		d.block(NotFinished, "the check did not end within %s: raise that, or lower --duration", e.Job.TimedOut)
	case e.Job.Failed && e.Job.Broken == nil:
		d.block(NotRun, "the check itself failed: %s", failure(&e.Job).Message)
	case m.broken != "" && e.Job.Broken == nil:
		d.block(NotRun, "the check gave no usable result: %s", m.broken)
	}
	d.sandbox(e)
	total, by := e.counted()
	d.requests(e, total, by)
	var failures []Reason
	switch {
	case m.load != nil:
		failures = m.underLoad(variant, &d)
		switch {
		case e.Passed == nil || e.Baseline == nil:
			d.add(NotCounted, "the outcome of requests at workloads that are not forked is unknown: the webhook did not report it")
		case e.PassedMissing != "":
			d.add(NotCounted, "the outcome of requests at workloads that are not forked is unknown: the routers of %s did not report it", e.PassedMissing)
		}
		d.lost(bystandersEnded(e))
	case m.contract != nil:
		failures = m.breaches(variant, &d)
	}
	failures = append(failures, BystanderReasons(bystanders)...)
	if len(failures) > 0 && len(d.blocking) == 0 {
		return Verdict{Failed, append(failures, d.other...)}
	}
	if reasons := slices.Concat(d.blocking, d.other, failures); len(reasons) > 0 {
		return Verdict{Inconclusive, reasons}
	}
	return Verdict{Outcome: Passed}
}

// comparison returns the comparison of a variant.
func (m *Compared) comparison(variant string) *stats.Comparison {
	i := slices.IndexFunc(m.judged.Variants, func(c stats.Comparison) bool { return c.Variant == variant })
	return &m.judged.Variants[i]
}

// underLoad returns the budgets that a variant missed, and adds to d the reasons why others are undecided.
func (m *Compared) underLoad(variant string, d *doubts) (failures []Reason) {
	if m.load.Incomplete != "" {
		d.add(NotFinished, "the check was not done: %s", m.load.Incomplete)
	}
	if refused := m.refusals(); refused != "" {
		d.block(NothingCompared, "%s", refused)
	}
	c := m.comparison(variant)
	noisy := false
	for _, o := range c.Outcomes {
		switch {
		case o.Verdict == stats.Fail && m.late(&o) > 0:
			d.add(TooNoisy, "%s, and the check itself sent one in a hundred requests %s late or more, which falls on all of them: give its container more CPU, or a lower --rate",
				missed(c, &o), m.late(&o).Round(time.Millisecond))
		case o.Verdict == stats.Fail:
			failures = append(failures, because(BudgetMissed, missed(c, &o)))
		case o.Reason == stats.Noisy && !noisy:
			noisy = true // which is the same of every budget
			d.add(TooNoisy, "%s", m.noise())
		case o.Reason == stats.Few:
			d.add(TooFew, "too few requests were answered to measure %s%s", o.Budget.Metric, afterSettling(o.Settle))
		case o.Reason == stats.Close:
			d.add(TooClose, "%s can't be distinguished from %s%s", describeOutcome(c, &o), o.Budget, afterSettling(o.Settle))
		}
	}
	return failures
}

// baselineStatuses counts the answers of the baseline's two arms.
func (m *Compared) baselineStatuses() map[int]int {
	all := map[int]int{}
	for i, a := range m.load.Arms {
		if a.Role != result.RoleVariant {
			for status, n := range m.load.Totals[i].Statuses {
				all[status] += n
			}
		}
	}
	return all
}

// refusals describes that the baseline answered only refusals and errors, so that nothing else was measured; empty if
// it did not.
func (m *Compared) refusals() string {
	statuses := m.baselineStatuses()
	for status := range statuses {
		if status < 400 {
			return ""
		}
	}
	if len(statuses) == 0 {
		return ""
	}
	s := "the baseline answered every request by a refusal or an error (" + FormatStatuses(most(statuses)) + "), so the latencies are those of error pages"
	if m.load.List.Host != "" {
		s += "; the requests were recorded of " + m.load.List.Host + ": a recording may lack credentials (browsers leave them out), or be of other paths" +
			result.FormatLeftOut("; ", m.load.List.LeftOut)
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
func (m *Compared) late(o *stats.Outcome) time.Duration {
	late := m.load.Lateness.Quantile(0.99)
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

func (m *Compared) noise() string {
	var by []string
	for _, d := range m.judged.Gate.Differences {
		if d.Significant() {
			by = append(by, d.String())
		}
	}
	return fmt.Sprintf("too noisy: the baseline differs from itself by %s%s", none(strings.Join(by, ", ")), afterSettling(m.judged.Gate.Settle))
}

// breaches returns how a variant breaks the contract, per operation.
func (m *Compared) breaches(variant string, d *doubts) (failures []Reason) {
	if m.contract.Incomplete != "" {
		d.add(NotFinished, "the check was not done: %s", m.contract.Incomplete)
	}
	if !slices.ContainsFunc(m.contract.Operations, func(o result.Operation) bool { return o.Skipped == "" }) {
		d.block(NothingCompared, "no operation was looked at: %s", none(m.skipped()))
	}
	if silent := m.silentBaseline(); len(silent) > 0 {
		d.add(NothingCompared, "the baseline itself did not answer, so nothing could be compared with it: %s", some(silent))
	}
	if m.contract.Dropped > 0 {
		d.add(NotFinished, "%d findings more than the check has room for were left out: they may be of any variant", m.contract.Dropped)
	}
	by := map[string][]string{}
	operations := operationsOf(m.contract.Findings, func(f result.Finding) bool {
		if f.Arm != variant || f.Baseline || !breaks(f) {
			return false
		}
		what := string(f.Reason)
		if f.Path != "" {
			what += " " + f.Path
		}
		by[f.Operation] = append(by[f.Operation], what)
		return true
	})
	for i, o := range operations {
		if i == maxFindings {
			failures = append(failures, because(ContractBroken, fmt.Sprintf("breaks the contract of %d more operations", len(operations)-i)))
			break
		}
		of := "the contract"
		if o != "" {
			of += " of " + o
		}
		failures = append(failures, because(ContractBroken, fmt.Sprintf("breaks %s: %s", of, some(by[o]))))
	}
	return failures
}

// silentBaseline returns the operations that the baseline did not answer, or its document if that is missing.
func (m *Compared) silentBaseline() []string {
	return named(operationsOf(m.contract.Findings, func(f result.Finding) bool {
		return m.contract.Arms[m.arm(m.contract.Arms, f.Arm)].Role != result.RoleVariant && (f.Reason == result.ReasonNoAnswer || f.Reason == result.ReasonDocumentUnusable)
	}), "its own document")
}

// breaks reports whether callers of the variant would notice a finding. If no fork served a request, the routers'
// counts show that.
func breaks(f result.Finding) bool { return f.Reason != result.ReasonNotServed }

// operationsOf returns the operations of the findings that keep accepts, each once; "" means the service or document
// as a whole.
func operationsOf(findings []result.Finding, keep func(result.Finding) bool) (operations []string) {
	for _, f := range findings {
		if keep(f) && !slices.Contains(operations, f.Operation) {
			operations = append(operations, f.Operation)
		}
	}
	return operations
}

// named replaces the empty operation by whole.
func named(operations []string, whole string) []string {
	if i := slices.Index(operations, ""); i >= 0 {
		operations[i] = whole
	}
	return operations
}

func (m *Compared) skipped() string {
	var why []string
	for _, o := range m.contract.Operations {
		if o.Skipped != "" {
			why = append(why, o.Name+": "+o.Skipped)
		}
	}
	return some(why)
}

// Fill writes the result into the report: for the check as a whole, and for each of the variants.
func (m *Compared) Fill(r *Report, check string, variants []Variant) {
	var shares [][]float64
	for i := range r.Checks {
		if c := &r.Checks[i]; c.Name == check && m.load != nil {
			c.Load, shares = m.loadReport()
		}
	}
	for _, v := range variants {
		x := r.Variant(v.Name).Result(check)
		switch {
		case m.load != nil:
			x.Measured = m.measured(v.Name, shares)
		case m.contract != nil:
			x.Contract = m.found(v.Name)
		}
	}
}

// loadReport returns the report of a load check, and the distribution of each arm's latencies in the result's order;
// nil if there is none.
func (m *Compared) loadReport() (*LoadReport, [][]float64) {
	l := m.load
	r := &LoadReport{
		Rate: l.Rate, Seed: l.Seed, Rounds: len(l.Rounds), Planned: l.Planned, Settled: l.Settled,
		Took: math.Round(l.Round * float64(len(l.Rounds))), Agree: m.judged.Gate.Agree, Control: differences(m.judged.Gate.Differences),
		List: l.List, Statuses: most(m.baselineStatuses()),
	}
	run := judge.Run(*l)
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

func (m *Compared) measured(variant string, shares [][]float64) *Measured {
	c := m.comparison(variant)
	out := &Measured{Requests: c.Requests, Differences: differences(c.Differences)}
	for _, o := range c.Outcomes {
		b := BudgetReport{o.Budget.String(), string(o.Verdict), describeOutcome(c, &o), string(o.Reason), o.Settle}
		if o.Verdict == stats.Fail && m.late(&o) > 0 {
			b.Verdict, b.Reason = string(stats.Inconclusive), string(stats.Noisy)
		}
		out.Budgets = append(out.Budgets, b)
	}
	arm := m.arm(m.load.Arms, variant)
	out.Statuses = most(m.load.Totals[arm].Statuses)
	if len(shares) > arm {
		out.Shares = rounded(shares[arm])
	}
	examples := m.load.Totals[arm].Examples
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

func (m *Compared) found(variant string) *ContractReport {
	r := &ContractReport{Protocol: string(m.contract.Protocol)}
	for _, o := range m.contract.Operations {
		if o.Skipped == "" {
			r.Operations++
		} else if len(r.Skipped) < maxFindings {
			r.Skipped = append(r.Skipped, o.Name+": "+o.Skipped)
		}
	}
	for _, f := range m.contract.Findings {
		if f.Arm != variant || f.Baseline {
			continue
		}
		if len(r.Findings) < maxFindings {
			r.Findings = append(r.Findings, f)
		} else {
			r.More++
		}
	}
	r.More += m.contract.Dropped
	return r
}
