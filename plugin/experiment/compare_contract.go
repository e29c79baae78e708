package experiment

import (
	"fmt"
	"io"
	"slices"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// contractComparison is the result of a contract check.
type contractComparison struct{ result result.Contract }

func readContract(_ *suite.Probe, log io.Reader) (Comparison, []result.Arm, error) {
	r, err := result.ReadContract(log)
	return &contractComparison{r}, r.Arms, err
}

func (c *contractComparison) unusable() string { return "" }

// Sent implements Comparison.
func (c *contractComparison) Sent(variant string) *route.Sent {
	var s route.Sent
	arm := armOf(c.result.Arms, variant)
	for _, o := range c.result.Operations {
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
	return &s
}

// Fill implements Comparison.
func (c *contractComparison) Fill(r *Report, check string, variants []suite.Variant) {
	for _, v := range variants {
		r.Variant(v.Name).Result(check).Contract = c.found(v.Name)
	}
}

// failures returns how a variant breaks the contract, per operation.
func (c *contractComparison) failures(variant string, _ *Evidence, d *doubts) (failures []Reason) {
	if c.result.Incomplete != "" {
		d.add(NotFinished, "the check was not done: %s", c.result.Incomplete)
	}
	if !slices.ContainsFunc(c.result.Operations, func(o result.Operation) bool { return o.Skipped == "" }) {
		d.block(NothingCompared, "no operation was looked at: %s", none(c.skipped()))
	}
	if silent := c.silentBaseline(); len(silent) > 0 {
		d.add(NothingCompared, "the baseline itself did not answer, so nothing could be compared with it: %s", some(silent))
	}
	if c.result.Dropped > 0 {
		d.add(NotFinished, "%d findings more than the check has room for were left out: they may be of any variant", c.result.Dropped)
	}
	by := map[string][]string{}
	operations := operationsOf(c.result.Findings, func(f result.Finding) bool {
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
func (c *contractComparison) silentBaseline() []string {
	return named(operationsOf(c.result.Findings, func(f result.Finding) bool {
		return c.result.Arms[armOf(c.result.Arms, f.Arm)].Role != result.RoleVariant && (f.Reason == result.ReasonNoAnswer || f.Reason == result.ReasonDocumentUnusable)
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

func (c *contractComparison) skipped() string {
	var why []string
	for _, o := range c.result.Operations {
		if o.Skipped != "" {
			why = append(why, o.Name+": "+o.Skipped)
		}
	}
	return some(why)
}

func (c *contractComparison) found(variant string) *ContractReport {
	r := &ContractReport{Protocol: string(c.result.Protocol)}
	for _, o := range c.result.Operations {
		if o.Skipped == "" {
			r.Operations++
		} else if len(r.Skipped) < maxFindings {
			r.Skipped = append(r.Skipped, o.Name+": "+o.Skipped)
		}
	}
	for _, f := range c.result.Findings {
		if f.Arm != variant || f.Baseline {
			continue
		}
		if len(r.Findings) < maxFindings {
			r.Findings = append(r.Findings, f)
		} else {
			r.More++
		}
	}
	r.More += c.result.Dropped
	return r
}
