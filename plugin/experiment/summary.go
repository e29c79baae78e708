package experiment

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/stats"
)

// maxClause bounds quotations of a cluster or a test in a sentence, in characters.
const maxClause = 240

// Headline counts the variants by outcome, and names the best.
func (r *Report) Headline() string {
	var parts []string
	for _, o := range []Outcome{Passed, Failed, Inconclusive} {
		n := 0
		for _, v := range r.Variants {
			if v.Outcome == o {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, o))
		}
	}
	s := "experiment " + r.ID
	if r.Window.Ended.IsZero() {
		s += ", which has not ended yet"
	}
	s += ": " + strings.Join(parts, ", ")
	if r.Best != "" && len(r.Variants) > 1 {
		s += "; best: " + r.Best
	}
	return s
}

// summarize describes each variant in one sentence: "a passed all checks.", "b fails: p95 +82 ms [74, 91] under
// load.", "c breaks the contract of GET /customer.". Variants with the same text share a sentence, except those that
// fail.
func (r *Report) summarize() (sentences []string) {
	type sentence struct {
		of   []string
		what string
	}
	var said []sentence
	for i := range r.Variants {
		v := &r.Variants[i]
		what := v.said(r.Checks)
		same := slices.IndexFunc(said, func(s sentence) bool { return s.what == what })
		if same < 0 || v.Outcome == Failed {
			said, same = append(said, sentence{what: what}), len(said)
		}
		said[same].of = append(said[same].of, v.Name)
	}
	for _, s := range said {
		sentences = append(sentences, listed(s.of)+" "+s.what+".")
	}
	return sentences
}

// said describes the result of a variant.
func (v *VariantReport) said(checks []CheckReport) string {
	switch {
	case !v.Forked():
		return "could not be forked: " + clause(v.Reasons[0].Message)
	case v.Outcome == Failed:
		return v.faults(checks)
	case v.Outcome == Inconclusive:
		return v.doubts(checks)
	case v.passed() < len(checks):
		return "passed all checks that are required"
	}
	return "passed all checks"
}

// faults describes how a variant failed.
func (v *VariantReport) faults(checks []CheckReport) string {
	var broken, failed []string
	for _, c := range checks {
		x := v.Result(c.Name)
		if !c.Required || x.Outcome != Failed {
			continue
		}
		if x.Measured != nil {
			failed = append(failed, x.Measured.missed(c.Name)...)
		}
		for _, reason := range x.Reasons {
			switch reason.Code {
			case ContractBroken:
				if broken == nil {
					broken = x.Contract.operations()
				}
			case Bystander:
				failed = append(failed, clause(reason.Message))
			case TestFailed, TimedOut:
				failed = append(failed, c.Name+", as "+clause(reason.Message))
			}
		}
	}
	var said []string
	if len(broken) > 0 {
		said = append(said, "breaks the contract of "+listed(broken))
	}
	if len(failed) > 0 {
		said = append(said, "fails: "+strings.Join(failed, "; "))
	}
	return strings.Join(said, ", and ")
}

// missed describes the budgets that were missed.
func (m *Measured) missed(check string) (said []string) {
	for _, b := range m.Budgets {
		if b.Verdict == string(stats.Fail) {
			said = append(said, b.Found+" under "+check)
		}
	}
	return said
}

// operations returns the operations whose contract a variant breaks.
func (c *ContractReport) operations() []string {
	return named(operationsOf(c.Findings, breaks), "the service")
}

// doubts describes why there is no verdict on a variant.
func (v *VariantReport) doubts(checks []CheckReport) string {
	var in []string
	var why string
	for _, c := range checks {
		x := v.Result(c.Name)
		if c.Required && x.Outcome == Inconclusive {
			in = append(in, c.Name)
			if why == "" {
				why = x.Reasons[0].Message
			}
		}
	}
	if len(in) == 0 {
		return "can't be judged: " + clause(v.Reasons[0].Message)
	}
	return "can't be judged by " + listed(in) + ": " + clause(why)
}

// clause shortens somebody else's message to one short line.
func clause(s string) string {
	s, _, _ = strings.Cut(strings.TrimSpace(s), "\n")
	if r := []rune(s); len(r) > maxClause {
		s = string(r[:maxClause]) + "..."
	}
	return strings.TrimSuffix(s, ".")
}

// listed joins names as in a sentence.
func listed(names []string) string {
	const most = 5
	if n := len(names); n > most {
		names = append(slices.Clone(names[:most]), fmt.Sprintf("%d more", n-most))
	}
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}
