package main

import (
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
)

func reported(variant string, outcome experiment.Outcome, check string, reasons ...experiment.Reason) *experiment.Report {
	v := experiment.Verdict{Outcome: outcome, Reasons: reasons}
	return &experiment.Report{Variants: []experiment.VariantReport{{Name: variant, Verdict: v, Results: []experiment.Result{{Check: check, Verdict: v}}}}}
}

func TestWanted_HoldsAVerdictToOutcomeCheckAndReason(t *testing.T) {
	slow := allWanted()[1]
	late := experiment.Reason{Code: experiment.BudgetMissed, Message: "p95 +80 ms [74, 86] under load"}
	for name, tt := range map[string]struct {
		report *experiment.Report
		right  bool
	}{
		"as it must be":         {reported("slow", experiment.Failed, load, late), true},
		"another outcome":       {reported("slow", experiment.Passed, load), false},
		"of another check":      {reported("slow", experiment.Failed, smoke, late), false},
		"for another code":      {reported("slow", experiment.Failed, load, experiment.Reason{Code: experiment.TestFailed, Message: "p95"}), false},
		"for another metric":    {reported("slow", experiment.Failed, load, experiment.Reason{Code: experiment.BudgetMissed, Message: "errors"}), false},
		"not there":             {reported("good", experiment.Passed, load), false},
		"failed without reason": {reported("slow", experiment.Failed, load), false},
	} {
		if wrong := slow.wrong(tt.report); (wrong == "") != tt.right {
			t.Errorf("%s: %q", name, wrong)
		}
	}
}

func TestCount_TellsAlarmsFromWhatCannotBeTold(t *testing.T) {
	r := reported("a", experiment.Inconclusive, load)
	difference := func(low, high float64) experiment.Difference { return experiment.Difference{Low: low, High: high} }
	r.Variants[0].Results[0].Measured = &experiment.Measured{Differences: []experiment.Difference{difference(-1, 1), difference(0, 2), difference(-1, 0)}}
	if got := count(r); len(got.alarms) != 0 || got.inconclusive != 1 {
		t.Errorf("intervals that hold 0: %+v", got)
	}
	r.Variants[0].Results[0].Measured.Differences = []experiment.Difference{difference(0.1, 2), difference(-3, -0.1)}
	if got := count(r); len(got.alarms) != 2 {
		t.Errorf("intervals above and below 0: %+v", got)
	}
	if got := count(reported("a", experiment.Failed, load)); len(got.alarms) != 1 || got.inconclusive != 0 {
		t.Errorf("a variant that failed: %+v", got)
	}
}
