// Package judge compares the measurements of a load check with its budgets, at the check's interim and final looks.
// Probe and plugin both call it, so that the probe stops when the plugin has enough.
package judge

import (
	"slices"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/stats"
)

// alpha is the probability, over all looks, variants and metrics of a check, that an interval misses the truth.
const alpha = 0.05

// DefaultBudgets are the budgets of a load check that names none.
const DefaultBudgets = "p95<=baseline+10%, errors<=baseline+1%"

// Looks returns the numbers of rounds after which a load check is evaluated: a third, two thirds, and all of the
// planned ones.
func Looks(planned int) []int {
	looks := []int{(planned + 1) / 3, (2*planned + 1) / 3, planned}
	return slices.Compact(slices.DeleteFunc(looks, func(n int) bool { return n < 1 }))
}

// Load judges a result by the look at which it ends. A run that ends between two looks is judged as at the later one.
// It may spend that look's share of alpha early, because something other than the measurements ended the run.
func Load(l result.Load, budgets []stats.Budget) (*stats.Judgement, error) {
	looks := Looks(l.Planned)
	at := slices.IndexFunc(looks, func(n int) bool { return n >= len(l.Rounds) })
	spent := stats.Options{Alpha: alpha, Budgets: budgets, Seed: l.Seed}
	if at >= 0 {
		fractions := make([]float64, len(looks))
		for i, n := range looks {
			fractions[i] = float64(n) / float64(l.Planned)
		}
		alphas, err := stats.Spend(alpha, fractions...)
		if err != nil {
			return nil, err
		}
		spent.Alpha = alphas[at]
	}
	return stats.Judge(Run(l), spent)
}

// Run converts a result to the input of package stats: the two baseline arms, and the variants in the result's order.
func Run(l result.Load) stats.Run {
	var run stats.Run
	for i, a := range l.Arms {
		arm := stats.Arm{Name: a.Name, Blocks: make([]stats.Sample, len(l.Rounds))}
		for k, r := range l.Rounds {
			arm.Blocks[k] = sample(r.Blocks[i])
		}
		switch a.Role {
		case result.RoleBaseline:
			run.A = arm
		case result.RoleControl:
			run.Again = arm
		default:
			run.Variants = append(run.Variants, arm)
		}
	}
	return run
}

func sample(b result.Block) stats.Sample {
	s := stats.Sample{Requests: int64(b.Sent), Errors: int64(b.Failed())}
	for _, c := range b.Latencies {
		s.Latency = append(s.Latency, stats.Bucket{Value: time.Duration(c.Micros) * time.Microsecond, Count: c.N})
	}
	return s
}
