package stats

import (
	"math"
)

// gate compares the two baseline arms. They disagree if a difference is both certain and large enough to matter.
func (b *bootstrap) gate() Gate {
	g := Gate{Agree: true}
	var family []contrast
	for _, m := range compared() {
		family = append(family, contrast{armAgain, armA, m, 1})
	}
	intervals := b.intervals(family, gateAlpha)
	for _, c := range family {
		i, ok := intervals[c]
		if !ok {
			continue
		}
		d := b.difference(c.arm, c.base, c.metric, i)
		g.Differences = append(g.Differences, d)
		tolerated := toleratedErrors
		if c.metric != Errors {
			tolerated = toleratedLatency * d.Baseline
		}
		if size := math.Abs(d.Estimate); d.Significant() && size > tolerated {
			g.Agree = false
			// Noise shrinks with the root of the number of requests.
			g.Settle = max(g.Settle, b.more(c, size/tolerated))
		}
	}
	return g
}

func (b *bootstrap) difference(arm, base int, m Metric, i Interval) Difference {
	return Difference{Metric: m, Value: b.arms[arm].metrics[m].estimate, Baseline: b.arms[base].metrics[m].estimate, Interval: i}
}

func (b *bootstrap) outcome(arm int, budget Budget, intervals map[contrast]Interval, g Gate) Outcome {
	o := Outcome{Budget: budget}
	c := budget.contrast()
	c.arm, c.base = arm, armBaseline
	i, ok := intervals[c]
	if !ok {
		o.Verdict, o.Reason, o.Settle = Inconclusive, Few, b.fewest(budget.Metric)
		return o
	}
	x, base, _ := b.pair(c)
	o.Value = x.estimate
	o.Limit = c.scale*base.estimate + budget.Offset
	o.Excess = Interval{Estimate: i.Estimate - budget.Offset, Low: i.Low - budget.Offset, High: i.High - budget.Offset}
	switch {
	case !g.Agree:
		o.Verdict, o.Reason, o.Settle = Inconclusive, Noisy, g.Settle
	case o.Excess.Low > 0:
		o.Verdict = Fail
	case o.Excess.High < 0:
		o.Verdict = Pass
	default:
		o.Verdict, o.Reason = Inconclusive, Close
		o.Settle = b.settle(c, o.Excess)
	}
	return o
}

// settle returns how many requests an arm would take for an interval of the same middle to leave out 0, four times in five.
func (b *bootstrap) settle(c contrast, excess Interval) int64 {
	half := excess.High - excess.Estimate
	if excess.Estimate > 0 {
		half = excess.Estimate - excess.Low
	}
	const (
		power    = 0.84 // standard errors below which a normal deviate lies four times in five
		feasible = 10   // times the width: a hundred times the requests
	)
	z := critical(0.05, b.blocks)
	if ratio := half * (z + power) / z / math.Abs(excess.Estimate); ratio <= feasible {
		return b.more(c, max(ratio, 1))
	}
	return 0
}

// more returns how many requests an arm would shrink intervals to one part in ratio.
func (b *bootstrap) more(c contrast, ratio float64) int64 {
	return int64(math.Ceil(float64(b.arms[c.arm].requests) * ratio * ratio))
}

// fewest returns how many requests an arm must answer for a metric to be measured.
func (b *bootstrap) fewest(m Metric) int64 {
	p := m.quantile()
	if p == 0 {
		p = 0.5
	}
	return int64(math.Ceil(minTail/min(p, 1-p) - 1e-6))
}
