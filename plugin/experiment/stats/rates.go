package stats

import (
	"math"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// rateInterval returns the interval of a share of failed requests, or of a difference of two: scores, which have width even
// where no request failed. z is how many standard errors wide.
//
// Failures come in bursts, so blocks vary by more than independent requests would. As in Rao and Scott, Biometrics 48, 1992, the
// numbers of requests are divided by the design effect: the variance that replicates have over that of independent requests.
func (b *bootstrap) rateInterval(c contrast, z float64) Interval {
	x, base, _ := b.pair(c)
	n, m := float64(b.arms[c.arm].requests), float64(b.arms[c.base].requests)
	draws := make([]float64, len(x.draws))
	variance := x.estimate * (1 - x.estimate) / n
	if c.scale == 0 {
		copy(draws, x.draws)
	} else {
		variance += base.estimate * (1 - base.estimate) / m
		for r := range draws {
			draws[r] = x.draws[r] - base.draws[r]
		}
	}
	effect := 1.0
	if variance > 0 {
		effect = max(1, stat.Variance(draws, nil)/variance)
	}
	if c.scale == 0 {
		return wilson(x.estimate, n/effect, z)
	}
	return newcombe(x.estimate, n/effect, base.estimate, m/effect, z)
}

// RateDifference returns the interval, at confidence 1-alpha, of the difference of two shares: x of n, less y of m. It takes
// requests for independent of each other.
func RateDifference(x, n, y, m uint64, alpha float64) Interval {
	z := distuv.UnitNormal.Quantile(1 - alpha/2)
	return newcombe(float64(x)/float64(n), float64(n), float64(y)/float64(m), float64(m), z)
}

// wilson returns the score interval of a proportion p of n: Wilson, Journal of the American Statistical Association 22, 1927.
func wilson(p, n, z float64) Interval {
	z2 := z * z
	middle := (2*n*p + z2) / (2 * (n + z2))
	half := z * math.Sqrt(z2+4*n*p*(1-p)) / (2 * (n + z2))
	i := Interval{Estimate: p, Low: max(0, middle-half), High: min(1, middle+half)}
	if p == 0 {
		i.Low = 0 // what rounding leaves
	}
	if p == 1 {
		i.High = 1
	}
	return i
}

// newcombe returns the hybrid score interval of the difference p - q of independent proportions of n and of m: method 10 of
// Newcombe, Statistics in Medicine 17, 1998, 873-890.
func newcombe(p, n, q, m, z float64) Interval {
	a, b := wilson(p, n, z), wilson(q, m, z)
	d := p - q
	return Interval{
		Estimate: d,
		Low:      d - math.Hypot(p-a.Low, b.High-q),
		High:     d + math.Hypot(a.High-p, q-b.Low),
	}
}
