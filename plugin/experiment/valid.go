package experiment

import (
	"fmt"
	"slices"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
)

// Validate says what in a report is none of the values there are, or is missing. A report is read from a ConfigMap,
// which others may write; who shows or acts on an outcome relies on its being one.
func (r *Report) Validate() error {
	if !slices.Contains([]string{RequireAny, RequireAll}, r.Require) {
		return fmt.Errorf("require %q is neither %s nor %s", r.Require, RequireAny, RequireAll)
	}
	if err := (&Verdict{Outcome: r.Outcome}).validate(); err != nil {
		return err
	}
	for i := range r.Checks {
		if c := &r.Checks[i]; !slices.Contains(suite.Kinds(), c.Kind) {
			return fmt.Errorf("check %q: kind %q is none of %q", c.Name, c.Kind, suite.Kinds())
		}
	}
	for i := range r.Variants {
		v := &r.Variants[i]
		if err := v.validate(); err != nil {
			return fmt.Errorf("variant %q: %w", v.Name, err)
		}
		for j := range v.Results {
			if err := v.Results[j].validate(); err != nil {
				return fmt.Errorf("variant %q, check %q: %w", v.Name, v.Results[j].Check, err)
			}
		}
		for _, c := range r.Checks {
			if !slices.ContainsFunc(v.Results, func(x Result) bool { return x.Check == c.Name }) {
				return fmt.Errorf("variant %q has no result of check %q", v.Name, c.Name)
			}
		}
	}
	return nil
}

func (v *Verdict) validate() error {
	if outcomes := []Outcome{"", Passed, Failed, Inconclusive}; !slices.Contains(outcomes, v.Outcome) { // "": not yet
		return fmt.Errorf("outcome %q is none of %q", v.Outcome, outcomes[1:])
	}
	for _, reason := range v.Reasons {
		if !slices.Contains(Codes(), reason.Code) {
			return fmt.Errorf("code %q of a reason is none that this version knows", reason.Code)
		}
		if !slices.Contains(Faults(), reason.Fault) && reason.Fault != "" {
			return fmt.Errorf("fault %q of a reason is none of %q", reason.Fault, Faults())
		}
	}
	return nil
}

// Codes returns all codes of reasons.
func Codes() []Code {
	return []Code{
		TestFailed, TimedOut, BudgetMissed, ContractBroken, Bystander, NotFinished, NotRun, NotInjected,
		NotReported, NothingSent, OtherKey,
		NotReached, FellBack, Unanswered, Refused, RouterMissing, NotCounted, RouterLost,
		SandboxGone, ForkGone, ForkNotReady, ForkRestarted,
		ForkChanged, DigestMismatch, ForkUntested, TooNoisy, TooFew, TooClose,
		NothingCompared, NotForked, ChecksMissing,
	}
}

// Faults returns all that are known.
func Faults() []Fault { return []Fault{FaultVariant, FaultTest, FaultCluster, FaultProduct} }
