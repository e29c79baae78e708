package stats_test

import (
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/stats"
)

// A model is how a made arm behaves: a factor of latency, and the share of requests that fail.
type model struct{ slower, failing float64 }

// made returns a run of the given models, the first two of them the baselines', over blocks that differ by a noise all arms share.
func made(seed uint64, blocks, perBlock int, noise float64, models ...model) stats.Run {
	random := rand.New(rand.NewPCG(seed, 2))
	arms := make([]stats.Arm, len(models))
	for i := range arms {
		arms[i].Name = string(rune('a' + i))
		arms[i].Blocks = make([]stats.Sample, blocks)
	}
	for k := range blocks {
		weather := math.Exp(noise * random.NormFloat64())
		for i, m := range models {
			s := &arms[i].Blocks[k]
			for range perBlock {
				s.Requests++
				if random.Float64() < m.failing {
					s.Errors++
					continue
				}
				took := 100 * weather * m.slower * math.Exp(0.3*random.NormFloat64())
				s.Latency = append(s.Latency, stats.Bucket{Value: time.Duration(took * float64(time.Millisecond)), Count: 1})
			}
		}
	}
	return stats.Run{A: arms[0], Again: arms[1], Variants: arms[2:]}
}

func judge(t testing.TB, run stats.Run, budgets string) *stats.Judgement {
	t.Helper()
	o := stats.Options{Alpha: 0.05, Seed: 1}
	if budgets != "" {
		var err error
		if o.Budgets, err = stats.ParseBudgets(budgets); err != nil {
			t.Fatal(err)
		}
	}
	j, err := stats.Judge(run, o)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func same() model { return model{slower: 1} }

func TestVerdicts(t *testing.T) {
	run := made(1, 60, 50, 0.2, same(), same(), same(), model{slower: 1.8}, model{slower: 1, failing: 0.02}, model{slower: 1.1})
	j := judge(t, run, "p95<=baseline+10%, p95<=baseline+45ms, errors<1%, errors<=baseline+0.5%, p95<1s")
	if !j.Gate.Agree {
		t.Fatalf("equal baselines disagree: %v", j.Gate)
	}
	const pass, fail, unknown = stats.Pass, stats.Fail, stats.Inconclusive
	want := [][]stats.Verdict{
		{pass, pass, pass, pass, pass},
		{fail, fail, pass, pass, pass},
		{pass, pass, fail, fail, pass},
		{unknown, pass, pass, pass, pass}, // its truth is the limit
	}
	for v, comparison := range j.Variants {
		for i, o := range comparison.Outcomes {
			if o.Verdict != want[v][i] {
				t.Errorf("variant %s, %s: %s (%s), want %s: %+v", comparison.Variant, o.Budget, o.Verdict, o.Reason, want[v][i], o)
			}
		}
	}
	if o := j.Variants[3].Outcomes[0]; o.Reason != stats.Close || j.Clear {
		t.Errorf("at the limit: reason %q, clear %v", o.Reason, j.Clear)
	}
	if d := j.Variants[1].Differences[1]; d.Metric != stats.P95 || !d.Significant() || d.Excludes(0.8*d.Baseline) {
		t.Errorf("80 %% slower: %v of %g", d, d.Baseline)
	}
	if got := j.Variants[0].Differences[3]; got.Significant() || got.High <= 0 || got.Low >= 0 {
		t.Errorf("without any error the interval must have width: %v", got)
	}
}

// The arms share the machine's weather, which is far greater than the difference to be found.
func TestSharedNoiseCancels(t *testing.T) {
	variant := judge(t, made(2, 60, 50, 0.5, same(), same(), model{slower: 1.2}), "p50<1s").Variants[0]
	difference, own := variant.Differences[0], variant.Outcomes[0].Excess
	if difference.High-difference.Low > (own.High-own.Low)/2 {
		t.Errorf("the difference [%g, %g] is known hardly better than the variant's own p50, [%g, %g] about its limit",
			difference.Low, difference.High, own.Low, own.High)
	}
	if !difference.Significant() {
		t.Errorf("p50 is 20 %% up and not found: %v", difference)
	}
}

func TestBaselinesThatDisagree(t *testing.T) {
	j := judge(t, made(3, 60, 50, 0.2, same(), model{slower: 1.15}, model{slower: 3}), "p95<=baseline+10%")
	o := j.Variants[0].Outcomes[0]
	if j.Gate.Agree || j.Clear || o.Verdict != stats.Inconclusive || o.Reason != stats.Noisy {
		t.Errorf("agree %v, clear %v, outcome %+v", j.Gate.Agree, j.Clear, o)
	}
	if o.Settle != j.Gate.Settle || o.Settle <= 60*50 {
		t.Errorf("%d requests an arm would settle it, of 3000", o.Settle)
	}
	// A difference that is certain and of no matter.
	if j := judge(t, made(3, 60, 4000, 0, same(), model{slower: 1.008}, same()), ""); !j.Gate.Agree || !j.Gate.Differences[0].Significant() {
		t.Errorf("0.8 %%: %+v", j.Gate)
	}
}

func TestTooFewRequests(t *testing.T) {
	j := judge(t, made(4, 20, 10, 0.1, same(), same(), same()), "p99<=baseline+10%")
	o := j.Variants[0].Outcomes[0]
	if o.Reason != stats.Few || o.Settle != 1000 {
		t.Errorf("p99 of 200 requests: %+v", o)
	}
	for _, d := range j.Variants[0].Differences {
		if d.Metric == stats.P99 {
			t.Errorf("told of 200 requests: %v", d)
		}
	}
	if o := judge(t, made(4, 5, 100, 0.1, same(), same(), model{slower: 9}), "p50<=baseline+10%").Variants[0].Outcomes[0]; o.Verdict != stats.Inconclusive {
		t.Errorf("five blocks: %+v", o)
	}
	none := made(4, 20, 10, 0.1, same(), same(), same())
	none.Variants[0].Blocks = make([]stats.Sample, 20)
	if o := judge(t, none, "errors<1%").Variants[0].Outcomes[0]; o.Reason != stats.Few {
		t.Errorf("no request: %+v", o)
	}
}

// The number that is said to settle a verdict does.
func TestSettle(t *testing.T) {
	const budget = "p95<=baseline+10%"
	settled, n := 0, 0
	for seed := range uint64(12) {
		o := judge(t, made(seed, 30, 12, 0.2, same(), same(), same()), budget).Variants[0].Outcomes[0]
		if o.Reason != stats.Close || o.Settle == 0 {
			continue
		}
		n++
		again := judge(t, made(seed+100, 30, int(o.Settle/30)+1, 0.2, same(), same(), same()), budget).Variants[0].Outcomes[0]
		if again.Verdict != stats.Inconclusive {
			settled++
		}
	}
	if n < 6 || settled < n*6/10 {
		t.Errorf("%d of %d are settled by the number that was named", settled, n)
	}
}

func TestHistogramsGiveWhatRequestsGive(t *testing.T) {
	run := made(5, 30, 40, 0.2, same(), same(), model{slower: 1.3})
	binned := run
	for _, arm := range []*stats.Arm{&binned.A, &binned.Again, &binned.Variants[0]} {
		blocks := make([]stats.Sample, len(arm.Blocks))
		for k, s := range arm.Blocks {
			counts := map[time.Duration]int64{}
			for _, b := range s.Latency {
				counts[b.Value]++
			}
			blocks[k] = stats.Sample{Requests: s.Requests, Errors: s.Errors}
			for v, n := range counts {
				blocks[k].Latency = append(blocks[k].Latency, stats.Bucket{Value: v, Count: n})
			}
		}
		*arm = stats.Arm{Name: arm.Name, Blocks: blocks}
	}
	if a, b := judge(t, run, "p95<1s"), judge(t, binned, "p95<1s"); !reflect.DeepEqual(a, b) {
		t.Errorf("requests give %+v, their histogram %+v", a, b)
	}
}

// Failures of one bad moment must not pass for a trait of the variant.
func TestErrorsInOneBurst(t *testing.T) {
	run := made(6, 60, 50, 0.1, same(), same(), same())
	s := &run.Variants[0].Blocks[30]
	s.Errors, s.Latency = 30, s.Latency[:20]
	j := judge(t, run, "errors<=baseline+0.5%")
	if o := j.Variants[0].Outcomes[0]; o.Verdict != stats.Inconclusive {
		t.Errorf("30 failures of 3000, all in one block: %+v", o)
	}
}

func TestRunsThatCantBeCompared(t *testing.T) {
	good := func() stats.Run { return made(7, 12, 5, 0, same(), same(), same()) }
	for want, spoil := range map[string]func(*stats.Run){
		"no variant":       func(r *stats.Run) { r.Variants = nil },
		"no block":         func(r *stats.Run) { *r = made(7, 0, 0, 0, same(), same(), same()) },
		"11 blocks":        func(r *stats.Run) { r.Variants[0].Blocks = r.Variants[0].Blocks[1:] },
		"9 errors in 5":    func(r *stats.Run) { r.A.Blocks[0].Errors = 9 },
		"-1 requests of 0": func(r *stats.Run) { r.A.Blocks[0].Latency[0] = stats.Bucket{Count: -1} },
	} {
		run := good()
		spoil(&run)
		if _, err := stats.Judge(run, stats.Options{Alpha: 0.05}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := stats.Judge(good(), stats.Options{}); err == nil {
		t.Error("alpha 0 is taken")
	}
}

func TestSpend(t *testing.T) {
	looks, err := stats.Spend(0.05, 1./3, 2./3, 0.9)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, a := range looks {
		sum += a
	}
	if math.Abs(sum-0.05) > 1e-12 || looks[0] > looks[1] || looks[1] > looks[2] {
		t.Errorf("got %v", looks)
	}
	for _, fractions := range [][]float64{{0.5, 0.5}, {0, 1}, {0.5, 1.5}, {math.NaN()}} {
		if looks, err := stats.Spend(0.05, fractions...); err == nil {
			t.Errorf("%v: got %v", fractions, looks)
		}
	}
}

func TestDifferenceString(t *testing.T) {
	for want, d := range map[string]stats.Difference{
		"p95 +82 ms [74, 91]":              {Metric: stats.P95, Interval: stats.Interval{Estimate: 0.0822, Low: 0.0741, High: 0.0909}},
		"p50 -0.1 ms [-1.2, 0.9]":          {Metric: stats.P50, Interval: stats.Interval{Estimate: -0.00012, Low: -0.0012, High: 0.00091}},
		"p99 +1.20 s [1.15, 1.25]":         {Metric: stats.P99, Interval: stats.Interval{Estimate: 1.2, Low: 1.15, High: 1.25}},
		"p50 +12 µs [2, 22]":               {Metric: stats.P50, Interval: stats.Interval{Estimate: 12e-6, Low: 2e-6, High: 22e-6}},
		"errors +2.0 points [1.5, 2.6]":    {Metric: stats.Errors, Interval: stats.Interval{Estimate: 0.02, Low: 0.015, High: 0.026}},
		"errors 0.00 points [-0.20, 0.20]": {Metric: stats.Errors, Interval: stats.Interval{Low: -0.002, High: 0.002}},
		"p95 0.0 ms [-1.3, 1.2]":           {Metric: stats.P95, Interval: stats.Interval{Estimate: -0.00001, Low: -0.0013, High: 0.0012}},
	} {
		if got := d.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestDistribution(t *testing.T) {
	run := made(8, 10, 100, 0, same(), same(), model{slower: 4})
	edges, shares := stats.Distribution([]stats.Arm{run.A, run.Variants[0], {Name: "silent"}}, 30)
	if len(edges) != 31 || len(shares) != 3 || len(shares[0]) != 30 {
		t.Fatalf("%d edges, %d arms", len(edges), len(shares))
	}
	mean := func(share []float64) (sum, at float64) {
		for i, s := range share {
			sum += s
			at += s * float64(i)
		}
		return sum, at
	}
	sum, base := mean(shares[0])
	slowSum, slow := mean(shares[1])
	if math.Abs(sum-1) > 1e-9 || math.Abs(slowSum-1) > 1e-9 || slow < base+5 {
		t.Errorf("shares %g and %g, about bins %g and %g", sum, slowSum, base, slow)
	}
	if sum, _ := mean(shares[2]); sum != 0 {
		t.Errorf("an arm without requests has a share of %g", sum)
	}
	if edges, _ := stats.Distribution(nil, 30); edges != nil {
		t.Errorf("no arms: %v", edges)
	}
	one := stats.Arm{Blocks: []stats.Sample{{Requests: 1, Latency: []stats.Bucket{{Value: time.Second, Count: 1}}}}}
	if _, shares := stats.Distribution([]stats.Arm{one}, 10); math.Abs(shares[0][0]-1) > 1e-9 {
		t.Errorf("one request: %v", shares)
	}
}

// One verdict over twenty variants at the default size.
func BenchmarkJudge(b *testing.B) {
	models := make([]model, 22)
	for i := range models {
		models[i] = same()
	}
	run := made(9, 75, 200, 0.2, models...)
	budgets, err := stats.ParseBudgets("p95<=baseline+10%, p99<=baseline+20%, errors<=baseline+1%, p90<1s")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := stats.Judge(run, stats.Options{Alpha: 0.05, Budgets: budgets, Seed: 1}); err != nil {
			b.Fatal(err)
		}
	}
}
