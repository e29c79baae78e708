package stats_test

import (
	"bufio"
	"compress/gzip"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/stats"
)

var (
	simulations = flag.Int("simulate", 0, "how many experiments to simulate of each kind and recording; 0: the short form")
	sizes       = flag.String("sizes", "", "requests an arm, as numbers with commas between; empty: the default size")
)

// The default size of a load check, and the experiment that is simulated: four variants, as a pull request's reviewer has them.
const (
	blocksInAll = 80
	inABlock    = 200 // requests an arm: a hundred a second, for two seconds
	variants    = 4
)

// A request is one of a recording.
type request struct {
	took   time.Duration
	failed bool
}

// recorded reads a recording: one line a request, in the order of sending, its microseconds, and "!" after them if it failed.
func recorded(t testing.TB, name string) []request {
	t.Helper()
	file, err := os.Open(filepath.Join("testdata", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unpacked, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var requests []request
	for lines := bufio.NewScanner(unpacked); lines.Scan(); {
		number, failed := strings.CutSuffix(lines.Text(), "!")
		us, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		requests = append(requests, request{time.Duration(us) * time.Microsecond, failed})
	}
	return requests
}

// experiment assigns a stretch of a recording to arms as a load check sends its requests: in groups of one request an arm, each in
// random order. So arms differ by chance alone, and all that the machine did while it recorded is in them, in its order.
func experiment(requests []request, perBlock int, change func(arm int, r request) request, random *rand.Rand) stats.Run {
	arms := make([]stats.Arm, variants+2)
	for i := range arms {
		arms[i] = stats.Arm{Name: fmt.Sprint(i), Blocks: make([]stats.Sample, blocksInAll)}
	}
	at := random.IntN(len(requests))
	for k := range blocksInAll {
		for range perBlock {
			for _, arm := range random.Perm(len(arms)) {
				r := change(arm, requests[at%len(requests)])
				at++
				s := &arms[arm].Blocks[k]
				s.Requests++
				if r.failed {
					s.Errors++
				} else {
					s.Latency = append(s.Latency, stats.Bucket{Value: r.took, Count: 1})
				}
			}
		}
	}
	return stats.Run{A: arms[0], Again: arms[1], Variants: arms[2:]}
}

func unchanged(_ int, r request) request { return r }

// first returns the first blocks of a run.
func first(r stats.Run, blocks int) stats.Run {
	cut := func(a stats.Arm) stats.Arm { return stats.Arm{Name: a.Name, Blocks: a.Blocks[:blocks]} }
	short := stats.Run{A: cut(r.A), Again: cut(r.Again)}
	for _, v := range r.Variants {
		short.Variants = append(short.Variants, cut(v))
	}
	return short
}

// sequential judges a run as a load check does: at every look, until it is clear or at its end.
func sequential(t testing.TB, run stats.Run, budgets []stats.Budget, seed uint64) (j *stats.Judgement, looks int) {
	fractions := []float64{1. / 3, 2. / 3, 1}
	alphas, err := stats.Spend(0.05, fractions...)
	if err != nil {
		t.Fatal(err)
	}
	for i, alpha := range alphas {
		blocks := int(fractions[i]*float64(len(run.A.Blocks)) + 0.5)
		if j, err = stats.Judge(first(run, blocks), stats.Options{Alpha: alpha, Budgets: budgets, Seed: seed}); err != nil {
			t.Fatal(err)
		}
		if looks = i + 1; j.Clear {
			break
		}
	}
	return j, looks
}

// A tally counts experiments by what came out. Those that failed or are inconclusive are variants.
type tally struct {
	variants             int
	alarms               int // some interval leaves out the truth, which is 0
	noisy                int // the baseline arms are said to disagree
	failed, inconclusive int
	found, stopped       int // p95 of variant 0 is above the baseline's; ended before the last look
}

func (c *tally) add(j *stats.Judgement, looks int) {
	alarm := false
	for v, comparison := range j.Variants {
		c.variants++
		for _, d := range comparison.Differences {
			alarm = alarm || d.Significant()
			if v == 0 && d.Metric == stats.P95 && d.Low > 0 {
				c.found++
			}
		}
		worst := stats.Pass
		for _, o := range comparison.Outcomes {
			if o.Verdict == stats.Fail || worst == stats.Pass {
				worst = o.Verdict
			}
		}
		switch worst {
		case stats.Fail:
			c.failed++
		case stats.Inconclusive:
			c.inconclusive++
		}
	}
	if alarm {
		c.alarms++
	}
	if !j.Gate.Agree {
		c.noisy++
	}
	if looks < 3 {
		c.stopped++
	}
}

// simulate runs n experiments over all processors. Each has a seed of its own, so a tally is the same wherever it is counted.
func simulate(t testing.TB, requests []request, n, perBlock int, change func(int, request) request, budgets []stats.Budget) tally {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var all tally
	next := make(chan uint64)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed := range next {
				random := rand.New(rand.NewPCG(seed, 1))
				j, looks := sequential(t, experiment(requests, perBlock, change, random), budgets, seed)
				mu.Lock()
				all.add(j, looks)
				mu.Unlock()
			}
		})
	}
	for i := range n {
		next <- uint64(i) //nolint:gosec // counts up from 0
	}
	close(next)
	wg.Wait()
	return all
}

func percent(k, n int) float64 { return 100 * float64(k) / float64(max(n, 1)) }

// A scenario is what experiments are made of.
type scenario struct {
	name     string
	requests []request
	power    bool // whether a p95 that is 10 % up must be found at the default size
}

func scenarios(t testing.TB) []scenario {
	route := recorded(t, "route")
	return []scenario{
		{"route", route, true},
		{"route-bursts", inBursts(route), true},
		{"route-busy", recorded(t, "route-busy"), true},
		{"dispatch", recorded(t, "dispatch"), true},
		{"nginx", recorded(t, "nginx"), false},
	}
}

// inBursts returns requests of which one in a hundred fails, and half of those in bursts of forty on average: failures of a real
// service come when something is wrong, not one by one.
func inBursts(requests []request) []request {
	random := rand.New(rand.NewPCG(1, 3))
	failing := make([]request, len(requests))
	burst := false
	for i, r := range requests {
		if burst {
			burst = random.IntN(40) > 0
		} else {
			burst = random.IntN(2000) == 0
		}
		r.failed = r.failed || burst && random.IntN(2) == 0
		failing[i] = r
	}
	return failing
}

// slower makes variant 0 slower by a factor, at every quantile.
func slower(factor float64) func(int, request) request {
	return func(arm int, r request) request {
		if arm == 2 {
			r.took = time.Duration(factor * float64(r.took))
		}
		return r
	}
}

// Simulations of experiments on recorded latencies: how often equal variants raise an alarm, and how often one that is ten
// percent slower is found. The figures in README.md are of the long form, `make simulate`; the short one finds gross mistakes.
func TestSimulations(t *testing.T) {
	if *simulations == 0 {
		route := scenarios(t)[0]
		aa := simulate(t, route.requests, 6, inABlock/5, unchanged, budgets(t))
		power := simulate(t, route.requests, 3, inABlock/5, slower(1.5), budgets(t))
		if aa.alarms > 2 || aa.failed > 0 || power.found < 3 || power.failed < 3 {
			t.Errorf("of equal variants %+v, of one slower by half %+v", aa, power)
		}
		return
	}
	perBlocks := []int{inABlock}
	if *sizes != "" {
		perBlocks = nil
		for s := range strings.SplitSeq(*sizes, ",") {
			size, err := strconv.Atoi(s)
			if err != nil {
				t.Fatal(err)
			}
			perBlocks = append(perBlocks, size/blocksInAll)
		}
	}
	for _, s := range scenarios(t) {
		for _, perBlock := range perBlocks {
			t.Run(fmt.Sprintf("%s/%d", s.name, blocksInAll*perBlock), func(t *testing.T) {
				measure(t, s, *simulations, max(1, *simulations/4), perBlock)
			})
		}
	}
}

func budgets(t *testing.T) []stats.Budget {
	t.Helper()
	budgets, err := stats.ParseBudgets("p95<=baseline+10%, errors<=baseline+1%")
	if err != nil {
		t.Fatal(err)
	}
	return budgets
}

func measure(t *testing.T, s scenario, equal, unequal, perBlock int) {
	aa := simulate(t, s.requests, equal, perBlock, unchanged, budgets(t))
	t.Logf("%d of equal variants: %.2f %% alarms, %.2f %% baselines disagree, %.0f %% ended early; of their variants %.2f %% fail, %.2f %% inconclusive",
		equal, percent(aa.alarms, equal), percent(aa.noisy, equal), percent(aa.stopped, equal),
		percent(aa.failed, aa.variants), percent(aa.inconclusive, aa.variants))
	power := simulate(t, s.requests, unequal, perBlock, slower(1.1), budgets(t))
	t.Logf("%d with a variant slower by 10 %%: p95 found in %.1f %%", unequal, percent(power.found, unequal))
	if *sizes != "" {
		return
	}
	if aa.alarms > equal*5/100 {
		t.Errorf("%d alarms in %d experiments of equal variants", aa.alarms, equal)
	}
	if s.power && power.found < unequal*9/10 {
		t.Errorf("p95 that is 10 %% up found in %d of %d experiments", power.found, unequal)
	}
}
