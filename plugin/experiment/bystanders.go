package experiment

import (
	"fmt"
	"maps"
	"slices"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/stats"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

// BystanderMargin is the share by which a bystander may fail more of a variant's requests than of the baseline's.
const BystanderMargin = 0.01

const (
	// bystanderAlpha is the probability, over all bystanders of all variants, of reporting one that does not fail
	// more.
	bystanderAlpha = 0.05
	// plenty is the number of the baseline's requests from which it is notable that none of the variant's arrived.
	plenty = 10
)

// A BystanderRow is a workload that a variant does not fork, with the outcome of a check's requests there: those with
// the variant's key, and the same number with the baseline's, sent over the same time.
type BystanderRow struct {
	Workload string  `json:"workload"` // KIND/NAME
	Variant  Passing `json:"variant"`
	Baseline Passing `json:"baseline"`
	Excess   *Excess `json:"excess,omitempty"` // where both sent any
	Fails    bool    `json:"fails,omitempty"`  // surely more than the margin
	Note     string  `json:"note,omitempty"`   // what is worth to know of it, and no failure
}

// Passing is the number of requests to a workload, and how many of them failed there.
type Passing struct {
	Requests uint64 `json:"requests"`
	Failed   uint64 `json:"failed"`
}

// An Excess is the difference between the shares of the variant's and of the baseline's requests that failed, with
// its interval.
type Excess struct {
	Estimate float64 `json:"estimate"`
	Low      float64 `json:"low"`
	High     float64 `json:"high"`
}

// Share returns the share of requests that failed.
func (p Passing) Share() float64 {
	if p.Requests == 0 {
		return 0
	}
	return float64(p.Failed) / float64(p.Requests)
}

// Bystanders compares, for each workload that is not forked, the outcome of a variant's requests with that of the
// baseline's. A workload fails more if the whole interval of the difference is above margin. The intervals hold
// simultaneously over all workloads of all variants (Bonferroni). They assume independent requests. The margin
// absorbs that failures come in bursts, which hit both arms of an interleaved check.
//
// It returns nil if the observations are unknown.
func Bystanders(e *Evidence, variants int, margin float64) []BystanderRow {
	if e.Passed == nil || e.Baseline == nil {
		return nil
	}
	all := maps.Clone(e.Passed)
	maps.Copy(all, e.Baseline)
	for _, f := range slices.Concat(e.Before.Forks, e.After.Forks) {
		delete(all, f.Workload)
	}
	alpha := bystanderAlpha / float64(max(1, len(all))*max(1, variants))
	rows := make([]BystanderRow, 0, len(all))
	for _, label := range slices.Sorted(maps.Keys(all)) {
		b := BystanderRow{Workload: workloadOf(label), Variant: passedOf(e.Passed[label]), Baseline: passedOf(e.Baseline[label])}
		switch v, base := b.Variant, b.Baseline; {
		case v.Requests > 0 && base.Requests > 0:
			i := stats.RateDifference(v.Failed, v.Requests, base.Failed, base.Requests, alpha)
			b.Excess = &Excess{i.Estimate, i.Low, i.High}
			b.Fails = i.Low > margin
		case base.Requests >= plenty:
			b.Note = fmt.Sprintf("%s got no request of the variant's, and %d of the baseline's", b.Workload, base.Requests)
		case v.Requests >= plenty:
			b.Note = fmt.Sprintf("%s got %d requests of the variant's, and none of the baseline's", b.Workload, v.Requests)
		}
		rows = append(rows, b)
	}
	return rows
}

// bystandersEnded returns the pods of observed workloads whose routers ended, and may have lost observations.
func bystandersEnded(e *Evidence) (pods []string) {
	for _, label := range slices.Sorted(maps.Keys(e.Before.Elsewhere)) {
		if e.Passed[label].Requests+e.Baseline[label].Requests > 0 {
			pods = append(pods, ended(e.Before.Elsewhere[label], e.After.Elsewhere[label], e.After.Ended)...)
		}
	}
	return pods
}

// passedOf bounds the failures by the requests: a window may end between the two.
func passedOf(o route.Observation) Passing {
	return Passing{Requests: o.Requests, Failed: min(o.Failed, o.Requests)}
}

// BystanderReasons returns the reasons for which bystanders keep a variant from passing.
func BystanderReasons(rows []BystanderRow) (reasons []Reason) {
	for _, b := range rows {
		if b.Fails {
			reasons = append(reasons, because(Bystander, b.String()))
		}
	}
	return reasons
}

// String describes the bystander, as "deployment/route fails 4.2 % of the variant's requests, and 0.1 % of the
// baseline's: +4.1 points [3.0, 5.4]".
func (b BystanderRow) String() string {
	switch {
	case b.Note != "":
		return b.Note
	case b.Excess == nil:
		return fmt.Sprintf("%s got %d requests of the variant's, and %d of the baseline's", b.Workload, b.Variant.Requests, b.Baseline.Requests)
	}
	return fmt.Sprintf("%s fails %.1f %% of the variant's requests, and %.1f %% of the baseline's: %+.1f points [%.1f, %.1f]",
		b.Workload, 100*b.Variant.Share(), 100*b.Baseline.Share(), 100*b.Excess.Estimate, 100*b.Excess.Low, 100*b.Excess.High)
}
