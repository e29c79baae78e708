package stats

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// String formats the difference as in reports: "p95 +82 ms [74, 91]", or "errors +2.0 points [1.5, 2.6]".
func (d Difference) String() string {
	unit, size := unitOf(d.Metric, max(math.Abs(d.Low), math.Abs(d.High)))
	estimate, low, high := d.Estimate/size, d.Low/size, d.High/size
	// Show the decimals that the width of the interval makes meaningful.
	decimals := 0
	if half := (high - low) / 2; half > 0 {
		decimals = min(max(0, -int(math.Floor(math.Log10(half/3)))), 3)
	}
	return fmt.Sprintf("%s %s %s [%s, %s]", d.Metric, number(estimate, decimals, "+"), unit, number(low, decimals, ""), number(high, decimals, ""))
}

// Level formats a budget's metric itself, with its interval: "p95 212 ms [204, 221]".
func Level(o *Outcome) string {
	d := Difference{Metric: o.Budget.Metric, Interval: Interval{
		Estimate: o.Value, Low: o.Value - (o.Excess.Estimate - o.Excess.Low), High: o.Value + (o.Excess.High - o.Excess.Estimate),
	}}
	return strings.Replace(d.String(), "+", "", 1)
}

// number formats v, without a sign if it rounds to 0.
func number(v float64, decimals int, plus string) string {
	scale := math.Pow10(decimals)
	v = math.Round(v*scale) / scale
	if v == 0 {
		v, plus = 0, ""
	}
	return fmt.Sprintf("%"+plus+".*f", decimals, v)
}

func unitOf(m Metric, largest float64) (unit string, size float64) {
	switch {
	case m == Errors:
		return "points", 0.01
	case largest >= 1:
		return "s", 1
	case largest >= 1e-3:
		return "ms", 1e-3
	default:
		return "µs", 1e-6
	}
}

// Distribution returns what to draw of arms' latencies: bins of equal width on a logarithmic axis, common to all arms, by their
// edges, one more than bins; and for each arm the share of its answered requests in each. Without any latency it returns nil.
func Distribution(arms []Arm, bins int) (edges []time.Duration, shares [][]float64) {
	var least, greatest time.Duration
	for b := range latencies(arms) {
		v := max(b.Value, time.Microsecond) // an axis of logarithms has no 0
		if least == 0 || v < least {
			least = v
		}
		greatest = max(greatest, v)
	}
	if least == 0 || bins < 1 {
		return nil, nil
	}
	from, to := math.Log(float64(least)), math.Log(float64(greatest)+1)
	for i := range bins + 1 {
		edges = append(edges, time.Duration(math.Round(math.Exp(from+(to-from)*float64(i)/float64(bins)))))
	}
	for _, arm := range arms {
		share, total := make([]float64, bins), 0.0
		for b := range latencies([]Arm{arm}) {
			i, found := slices.BinarySearch(edges, max(b.Value, time.Microsecond))
			if !found {
				i--
			}
			share[min(max(i, 0), bins-1)] += float64(b.Count)
			total += float64(b.Count)
		}
		for i := range share {
			share[i] /= max(total, 1)
		}
		shares = append(shares, share)
	}
	return edges, shares
}

// latencies yields all buckets of arms that hold a request.
func latencies(arms []Arm) func(yield func(Bucket) bool) {
	return func(yield func(Bucket) bool) {
		for _, arm := range arms {
			for _, s := range arm.Blocks {
				for _, b := range s.Latency {
					if b.Count > 0 && !yield(b) {
						return
					}
				}
			}
		}
	}
}
