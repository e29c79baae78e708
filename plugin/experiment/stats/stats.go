// Package stats is the arithmetic of load verdicts: from latencies and errors of variants and of two baseline arms to
// differences with confidence intervals, and from budgets to pass, fail or cannot tell. It is pure: chance comes from a seed
// that the caller gives, so the same measurements always give the same verdict.
//
// # Method
//
// All arms are measured at once, request by request in random order, over blocks of a few seconds. Whatever disturbs the
// machine for longer than an instant falls on all arms of a block alike, so blocks are what is resampled (the cluster
// bootstrap: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8), with the same blocks drawn for
// all arms: in a difference of two arms the common noise cancels. Intervals are estimate ± critical value × bootstrap standard
// error; Student's t with blocks-1 degrees of freedom stands in for the normal distribution.
//
// Intervals hold simultaneously, over all variants and metrics. For latencies the critical value is the bootstrap's quantile
// of the largest |t| (Westfall and Young, Resampling-Based Multiple Testing, 1993; Romano and Wolf, Journal of the American
// Statistical Association 100, 2005), which makes use of p50, p95 and p99 of variants with one baseline being correlated;
// never more than Bonferroni's. For errors it is Bonferroni's.
//
// A difference holds beyond the minutes that were measured as far as the machine's noise is the same for both arms; the interval of
// an arm's own metric, which an absolute budget is held against, speaks of those minutes.
//
// Looks before the end spend a part of the error rate ([Spend]), so intervals hold over all looks too (repeated confidence
// intervals: Jennison and Turnbull, Journal of the Royal Statistical Society B 51, 1989).
package stats

import (
	"fmt"
	"time"
)

// A Metric is what is compared: a quantile of latency in seconds, or the share of requests that failed, 0 to 1.
type Metric string

// The metrics. P90 is compared where a budget names it, the others always.
const (
	P50    Metric = "p50"
	P90    Metric = "p90"
	P95    Metric = "p95"
	P99    Metric = "p99"
	Errors Metric = "errors"
)

// compared returns the metrics whose differences are reported for every variant.
func compared() []Metric { return []Metric{P50, P95, P99, Errors} }

// quantile returns the probability of a latency metric, and 0 for Errors.
func (m Metric) quantile() float64 {
	switch m {
	case P50:
		return 0.50
	case P90:
		return 0.90
	case P95:
		return 0.95
	case P99:
		return 0.99
	default:
		return 0
	}
}

// A Bucket is how many requests took about as long as Value: one bucket of a histogram, by its middle, or one request.
type Bucket struct {
	Value time.Duration
	Count int64
}

// A Sample is what one arm did in one block.
type Sample struct {
	Requests int64    // sent
	Errors   int64    // of these, how many failed
	Latency  []Bucket // of those that were answered, in any order
}

// An Arm is a variant or a baseline, block by block in order of time. All arms of a run have as many blocks.
type Arm struct {
	Name   string
	Blocks []Sample
}

// A Run is one experiment under load. A and Again are two arms of the same baseline: what they differ in is noise.
type Run struct {
	A, Again Arm
	Variants []Arm
}

// Options are what a judgement depends on besides the measurements.
type Options struct {
	// Alpha is the chance, over all variants and metrics, of an interval that misses the truth: 0.05, or what Spend gives this look.
	Alpha float64
	// Budgets are compared with every variant.
	Budgets []Budget
	// Seed is the seed of the random numbers.
	Seed uint64
}

// An Interval is an estimate and the bounds of its confidence interval: seconds of latency, or a share of requests.
type Interval struct {
	Estimate, Low, High float64
}

// Excludes says whether v lies outside the interval.
func (i Interval) Excludes(v float64) bool { return v < i.Low || v > i.High }

// A Difference is how far a metric of a variant is above (worse than) the baseline's.
type Difference struct {
	Metric          Metric
	Value, Baseline float64 // estimates
	Interval                // of Value - Baseline
}

// Significant reports whether chance alone does not explain the difference.
func (d Difference) Significant() bool { return d.Excludes(0) }

// A Verdict is the result for a budget.
type Verdict string

// The verdicts.
const (
	Pass         Verdict = "pass"
	Fail         Verdict = "fail"
	Inconclusive Verdict = "inconclusive"
)

// A Reason says why a verdict is Inconclusive.
type Reason string

// The reasons.
const (
	Noisy Reason = "TooNoisy" // the two baseline arms disagree
	Few   Reason = "TooFew"   // too few requests to measure this metric
	Close Reason = "TooClose" // the limit lies within the interval
)

// An Outcome is the comparison of one variant with one budget.
type Outcome struct {
	Budget  Budget
	Verdict Verdict
	Reason  Reason // of Inconclusive
	// Value is the variant's, Limit what the budget comes to. Excess is the interval of Value - Limit: wholly below 0 passes,
	// wholly above fails. All are 0 when Reason is Few.
	Value, Limit float64
	Excess       Interval
	// Settle is how many requests an arm would settle an Inconclusive, with a chance of four in five if estimates stay as they
	// are; 0 where no feasible number would.
	Settle int64
}

// A Gate is the comparison of the two baseline arms.
type Gate struct {
	Agree       bool
	Differences []Difference // of Again against A
	// Settle is how many requests an arm would bring a disagreement of this size, if it is noise, down to what is tolerated.
	// If it is not - the arms reach different pods, say - more requests change nothing.
	Settle int64
}

// A Comparison compares one variant with the baseline.
type Comparison struct {
	Variant     string
	Requests    int64
	Differences []Difference // one a metric, without those that too few requests were sent for
	Outcomes    []Outcome    // one a budget
}

// A Judgement is the result of a run.
type Judgement struct {
	Gate     Gate
	Variants []Comparison
	// Clear means that the baseline arms agree, and that every variant has passed all budgets or failed one: more
	// requests would change no variant's verdict.
	Clear bool
}

const (
	// gateAlpha is the probability of reporting a difference between baseline arms that do not differ.
	gateAlpha = 0.01
	// toleratedLatency, a share of the baseline's, and toleratedErrors are differences between baseline arms too small to matter,
	// however certain: small against any budget worth setting.
	toleratedLatency = 0.01
	toleratedErrors  = 0.001
	// minBlocks is the number of blocks that an interval needs; with fewer, a block bootstrap is unreliable.
	minBlocks = 10
	// minTail is how many requests a quantile must have on either side.
	minTail = 10
)

// Judge compares every variant with both baseline arms taken together, and the baseline arms with each other. It fails for
// runs that can't be compared: without variants or blocks, or with arms of different numbers of blocks.
func Judge(run Run, o Options) (*Judgement, error) {
	if err := check(run, o); err != nil {
		return nil, err
	}
	b := resample(run, quantilesOf(o.Budgets), o.Seed)
	j := &Judgement{Gate: b.gate()}
	j.Clear = j.Gate.Agree

	wanted := contrastsOf(o.Budgets)
	var family []contrast
	for v := range run.Variants {
		for _, c := range wanted {
			c.arm, c.base = armVariants+v, armBaseline
			family = append(family, c)
		}
	}
	intervals := b.intervals(family, o.Alpha)
	for v, arm := range run.Variants {
		c := Comparison{Variant: arm.Name, Requests: b.arms[armVariants+v].requests}
		for _, m := range compared() {
			if i, ok := intervals[contrast{armVariants + v, armBaseline, m, 1}]; ok {
				c.Differences = append(c.Differences, b.difference(armVariants+v, armBaseline, m, i))
			}
		}
		passed, failed := true, false
		for _, budget := range o.Budgets {
			outcome := b.outcome(armVariants+v, budget, intervals, j.Gate)
			passed, failed = passed && outcome.Verdict == Pass, failed || outcome.Verdict == Fail
			c.Outcomes = append(c.Outcomes, outcome)
		}
		j.Clear = j.Clear && (passed || failed)
		j.Variants = append(j.Variants, c)
	}
	return j, nil
}

func check(run Run, o Options) error {
	if o.Alpha <= 0 || o.Alpha >= 1 {
		return fmt.Errorf("alpha is %g and must lie between 0 and 1", o.Alpha)
	}
	if len(run.Variants) == 0 {
		return fmt.Errorf("no variant to compare")
	}
	blocks := len(run.A.Blocks)
	if blocks == 0 {
		return fmt.Errorf("no block was measured")
	}
	for _, arm := range append([]Arm{run.A, run.Again}, run.Variants...) {
		if len(arm.Blocks) != blocks {
			return fmt.Errorf("arm %q has %d blocks, and the baseline %d", arm.Name, len(arm.Blocks), blocks)
		}
		for i, s := range arm.Blocks {
			if s.Errors < 0 || s.Errors > s.Requests {
				return fmt.Errorf("arm %q, block %d: %d errors in %d requests", arm.Name, i, s.Errors, s.Requests)
			}
			for _, bucket := range s.Latency {
				if bucket.Count < 0 || bucket.Value < 0 {
					return fmt.Errorf("arm %q, block %d: %d requests of %v", arm.Name, i, bucket.Count, bucket.Value)
				}
			}
		}
	}
	return nil
}
