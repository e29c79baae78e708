package experiment

import (
	"errors"
	"io"
	"slices"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// maxFindings bounds how many findings a report lists for a variant, because one ConfigMap has to hold it.
const maxFindings = 20

// A Comparison is the result of a built-in check for all variants.
type Comparison interface {
	// Sent returns what the check sent to a variant; nil if that is unknown.
	Sent(variant string) *route.Sent
	// Fill writes the result into the report: for the check as a whole, and for each of the variants.
	Fill(r *Report, check string, variants []suite.Variant)

	// unusable returns why the check's output is no result; empty if it is one.
	unusable() string
	// failures returns what a variant fails by, and adds to d the reasons why the rest can't be decided.
	failures(variant string, e *Evidence, d *doubts) []Reason
}

// ReadComparison reads the output of a built-in check. If the log holds no result, or one of other variants, the
// Comparison records why.
func ReadComparison(c *suite.Check, variants []suite.Variant, log io.Reader) Comparison {
	read := readLoad
	if c.Probe.Contract {
		read = readContract
	}
	found, arms, err := read(c.Probe, log)
	for _, v := range variants {
		if err == nil && !slices.Contains(arms, result.Arm{Name: v.Name, Role: result.RoleVariant}) {
			err = errors.New("its result is not of variant " + v.Name)
		}
	}
	if err != nil {
		return noComparison{err.Error()}
	}
	return found
}

// JudgeComparison returns the verdict on a variant, from the result of the check, the evidence for the variant
// meanwhile, and the bystanders.
func JudgeComparison(c Comparison, variant string, e *Evidence, bystanders []BystanderRow) Verdict {
	var d doubts
	d.job(&e.Job)
	switch {
	case e.Job.Failed && e.Job.TimedOut != "":
		d.block(NotFinished, "the check did not end within %s: raise that, or lower --duration", e.Job.TimedOut)
	case e.Job.Failed && e.Job.Broken == nil:
		d.block(NotRun, "the check itself failed: %s", failure(&e.Job).Message)
	case c.unusable() != "" && e.Job.Broken == nil:
		d.block(NotRun, "the check gave no usable result: %s", c.unusable())
	}
	d.sandbox(e)
	total, by := e.counted()
	d.requests(e, total, by)
	failures := append(c.failures(variant, e, &d), BystanderReasons(bystanders)...)
	if len(failures) > 0 && len(d.blocking) == 0 {
		return Verdict{Failed, append(failures, d.other...)}
	}
	if reasons := slices.Concat(d.blocking, d.other, failures); len(reasons) > 0 {
		return Verdict{Inconclusive, reasons}
	}
	return Verdict{Outcome: Passed}
}

// noComparison is the output of a check that is no result, or one of other variants.
type noComparison struct{ why string }

func (n noComparison) unusable() string                           { return n.why }
func (noComparison) Sent(string) *route.Sent                      { return nil }
func (noComparison) Fill(*Report, string, []suite.Variant)        {}
func (noComparison) failures(string, *Evidence, *doubts) []Reason { return nil }

// armOf returns the index of the arm of that name; -1 if there is none.
func armOf(arms []result.Arm, name string) int {
	return slices.IndexFunc(arms, func(a result.Arm) bool { return a.Name == name })
}
