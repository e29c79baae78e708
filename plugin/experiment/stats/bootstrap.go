package stats

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// Arms as a bootstrap numbers them.
const (
	armA = iota
	armAgain
	armBaseline // both together
	armVariants // the first of them
)

// replicates is how often blocks are drawn: enough for standard errors to be known to 2 %, and the 95 % quantile of the largest |t|
// to 1 %.
const replicates = 2000

// minBeyond is how many replicates must lie beyond a quantile of them for it to be taken at its word.
const minBeyond = 40

// An armStats is one arm with its metrics, as measured and in every replicate.
type armStats struct {
	requests, errors int64
	answered         int64 // requests with a latency
	metrics          map[Metric]replicated
}

// A replicated is a metric as measured and in every replicate.
type replicated struct {
	estimate float64
	// step is the distance between the values that were measured about the estimate: what its resolution hides.
	step  float64
	draws []float64
}

// A bootstrap is a run with replicates of all its metrics, for which the same blocks were drawn in all arms.
type bootstrap struct {
	blocks int
	arms   []armStats
}

// A contrast is a metric of an arm less scale times that of another: 1 for a difference, 0 for the arm's own, 1.1 to hold it to
// ten percent more.
type contrast struct {
	arm, base int
	metric    Metric
	scale     float64
}

func resample(run Run, quantiles []Metric, seed uint64) *bootstrap {
	blocks := len(run.A.Blocks)
	weights := draw(blocks, seed)
	pooled := Arm{Blocks: make([]Sample, blocks)}
	for k := range blocks {
		a, again := run.A.Blocks[k], run.Again.Blocks[k]
		pooled.Blocks[k] = Sample{
			Requests: a.Requests + again.Requests, Errors: a.Errors + again.Errors,
			Latency: slices.Concat(a.Latency, again.Latency),
		}
	}
	b := &bootstrap{blocks: blocks}
	for _, arm := range append([]Arm{run.A, run.Again, pooled}, run.Variants...) {
		b.arms = append(b.arms, replicate(arm.Blocks, quantiles, weights))
	}
	return b
}

// draw returns, for every replicate, how often each of n blocks is in it.
func draw(n int, seed uint64) [][]int64 {
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a simulation, to be repeated
	weights := make([][]int64, replicates)
	for r := range weights {
		weights[r] = make([]int64, n)
		for range n {
			weights[r][random.IntN(n)]++
		}
	}
	return weights
}

func replicate(blocks []Sample, quantiles []Metric, weights [][]int64) armStats {
	a := armStats{metrics: map[Metric]replicated{}}
	requests, failed := make([]int64, len(blocks)), make([]int64, len(blocks))
	once := make([]int64, len(blocks))
	for k, s := range blocks {
		requests[k], failed[k], once[k] = s.Requests, s.Errors, 1
		a.requests, a.errors = a.requests+s.Requests, a.errors+s.Errors
	}
	if a.requests > 0 {
		rate := replicated{estimate: float64(a.errors) / float64(a.requests), draws: make([]float64, len(weights))}
		for r, w := range weights {
			rate.draws[r] = rate.estimate
			if n := weighted(w, requests); n > 0 {
				rate.draws[r] = float64(weighted(w, failed)) / float64(n)
			}
		}
		a.metrics[Errors] = rate
	}
	t := newTable(blocks)
	a.answered = t.count(once)
	answered := make([]int64, len(weights))
	for r, w := range weights {
		answered[r] = t.count(w)
	}
	for _, m := range quantiles {
		p := m.quantile()
		if float64(a.answered)*min(p, 1-p) < minTail-1e-6 {
			continue
		}
		at, _ := t.quantile(once, a.answered, p, len(t.values)/2)
		q := replicated{estimate: t.values[at].Seconds(), step: t.step(at), draws: make([]float64, len(weights))}
		for r, w := range weights {
			q.draws[r] = q.estimate
			if i, ok := t.quantile(w, answered[r], p, at); ok {
				q.draws[r] = t.values[i].Seconds()
			}
		}
		a.metrics[m] = q
	}
	return a
}

// A table counts, for every latency that was measured, how many requests of each block took at most that long: by it a quantile
// of any mixture of blocks is found in the logarithm of the number of values.
type table struct {
	values []time.Duration // ascending
	below  [][]int64       // by value, by block
}

func newTable(blocks []Sample) table {
	var t table
	for _, s := range blocks {
		for _, b := range s.Latency {
			if b.Count > 0 {
				t.values = append(t.values, b.Value)
			}
		}
	}
	slices.Sort(t.values)
	t.values = slices.Compact(t.values)
	cells := make([]int64, len(t.values)*len(blocks))
	t.below = make([][]int64, len(t.values))
	for i := range t.below {
		t.below[i] = cells[i*len(blocks) : (i+1)*len(blocks)]
	}
	for k, s := range blocks {
		for _, b := range s.Latency {
			if b.Count > 0 {
				i, _ := slices.BinarySearch(t.values, b.Value)
				t.below[i][k] += b.Count
			}
		}
	}
	for i := 1; i < len(t.below); i++ {
		for k := range blocks {
			t.below[i][k] += t.below[i-1][k]
		}
	}
	return t
}

// count returns how many requests there are in blocks of the given weights.
func (t table) count(weights []int64) int64 {
	if len(t.below) == 0 {
		return 0
	}
	return weighted(weights, t.below[len(t.below)-1])
}

// quantile returns the index of the least value that at least the share p of n requests do not exceed (definition 1 of Hyndman and
// Fan, The American Statistician 50, 1996), or false when n is 0. It looks about index near first.
func (t table) quantile(weights []int64, n int64, p float64, near int) (int, bool) {
	if n == 0 {
		return 0, false
	}
	need := int64(math.Ceil(p*float64(n) - 1e-9))
	reached := func(i int) bool { return weighted(weights, t.below[i]) >= need }
	low, high := 0, len(t.values)-1 // the last one is reached, whatever the weights
	step := 1 + len(t.values)/128
	if reached(near) {
		for high = near; high > low; step *= 2 {
			if probe := high - step; probe < low || !reached(probe) {
				low = max(low, probe+1)
				break
			}
			high -= step
		}
	} else {
		for low = near + 1; low < high; step *= 2 {
			if probe := low + step; probe > high || reached(probe) {
				high = min(high, probe)
				break
			}
			low += step + 1
		}
	}
	for low < high {
		middle := (low + high) / 2
		if reached(middle) {
			high = middle
		} else {
			low = middle + 1
		}
	}
	return low, true
}

// step returns the mean distance, in seconds, from a value to those beside it.
func (t table) step(i int) float64 {
	low, high := max(i-1, 0), min(i+1, len(t.values)-1)
	if low == high {
		return 0
	}
	return (t.values[high] - t.values[low]).Seconds() / float64(high-low)
}

func weighted(weights, counts []int64) int64 {
	counts = counts[:len(weights)]
	var sum int64
	for k, w := range weights {
		sum += w * counts[k]
	}
	return sum
}

// A studentized is a contrast of latencies with its standard error.
type studentized struct {
	estimate, se float64
}

func (b *bootstrap) studentize(c contrast) (s studentized, ok bool) {
	x, base, ok := b.pair(c)
	if !ok {
		return s, false
	}
	s.estimate = x.estimate - c.scale*base.estimate
	draws := make([]float64, len(x.draws))
	for r := range draws {
		draws[r] = x.draws[r] - c.scale*base.draws[r]
	}
	k := float64(b.blocks)
	// A rounded value is off by a uniform error, of variance step²/12; drawing n from n loses a factor of (n-1)/n.
	rounding := (x.step*x.step + c.scale*c.scale*base.step*base.step) / 12
	s.se = math.Sqrt(stat.Variance(draws, nil)*k/(k-1) + rounding)
	return s, true
}

func (b *bootstrap) pair(c contrast) (x, base replicated, ok bool) {
	x, okX := b.arms[c.arm].metrics[c.metric]
	base, okBase := b.arms[c.base].metrics[c.metric]
	return x, base, okX && (okBase || c.scale == 0) && b.blocks >= minBlocks
}

// intervals returns confidence intervals that miss a truth, any of them, with probability alpha at most. Contrasts for which
// there are too few blocks or requests have none.
func (b *bootstrap) intervals(family []contrast, alpha float64) map[contrast]Interval {
	latencies := map[contrast]studentized{}
	var rates []contrast
	for _, c := range family {
		if c.metric == Errors {
			if _, _, ok := b.pair(c); ok {
				rates = append(rates, c)
			}
		} else if s, ok := b.studentize(c); ok {
			latencies[c] = s
		}
	}
	all := len(latencies) + len(rates)
	intervals := map[contrast]Interval{}
	if all == 0 {
		return intervals
	}
	z := critical(alpha/float64(all), b.blocks)
	for _, c := range rates {
		intervals[c] = b.rateInterval(c, z)
	}
	t := min(z, b.maxT(latencies, alpha*float64(len(latencies))/float64(all)))
	for c, s := range latencies {
		intervals[c] = Interval{Estimate: s.estimate, Low: s.estimate - t*s.se, High: s.estimate + t*s.se}
	}
	return intervals
}

// critical returns what |t| exceeds with probability alpha.
func critical(alpha float64, blocks int) float64 {
	return -distuv.StudentsT{Sigma: 1, Nu: float64(blocks - 1)}.Quantile(alpha / 2)
}

// maxT returns what the largest |t| of a family exceeds with probability alpha; infinity where replicates can't tell.
func (b *bootstrap) maxT(family map[contrast]studentized, alpha float64) float64 {
	beyond := int(alpha * replicates)
	if beyond < minBeyond {
		return math.Inf(1)
	}
	largest := make([]float64, replicates)
	for c, s := range family {
		if s.se == 0 {
			continue
		}
		x, base, _ := b.pair(c)
		for r := range x.draws {
			d := x.draws[r] - s.estimate
			if c.scale != 0 {
				d -= c.scale * base.draws[r]
			}
			largest[r] = max(largest[r], math.Abs(d)/s.se)
		}
	}
	slices.Sort(largest)
	normal := distuv.UnitNormal.Survival(largest[replicates-1-beyond])
	return critical(2*normal, b.blocks)
}
