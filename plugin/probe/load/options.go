// Package load measures how fast, and how often wrongly, variants and the baseline answer the same requests at the same rate.
//
// The load is open: requests are sent at their time, whether or not others were answered, and latencies run from that time (see
// G. Tene, "How NOT to Measure Latency", on coordinated omission). What is measured, and in which design, is said at result.Load.
package load

import (
	"errors"
	"fmt"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/stats"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/probe/request"
)

// Bounds of options.
const (
	maxRate    = 5000 // a second
	maxTurn    = 10_000
	maxBlock   = 100_000 // requests to an arm in a round
	maxTimeout = time.Minute
	maxRun     = 2 * time.Hour
	// maxAnswer bounds the body of an answer, in bytes.
	maxAnswer = 64 << 20
	// inFlight bounds the requests of an arm that wait for their answer: an arm that hangs takes no more from the others. Its further
	// requests wait for room, and their time runs.
	inFlight = 256
)

// An Arm is what is sent requests: variants here, which come with their key.
type Arm struct {
	Name string
	Key  string
}

// Options say what to measure. Client and Requests must be set.
type Options struct {
	Version  string
	Client   *request.Client
	Requests []request.Request
	List     result.List // where Requests are from
	Variants []Arm
	// BaselineKey is a key that nobody has forked anything for, so that the baseline's requests cost routers what those of variants
	// do, and can be told from everybody else's. Empty: they carry none.
	BaselineKey string
	// Budgets end the run at a look that settles them for every variant. None: it runs to its end.
	Budgets  []stats.Budget
	Rate     float64       // requests a second, in all
	Turn     int           // requests to an arm in a row: see result.Load
	Round    time.Duration // at least
	Duration time.Duration // of all rounds that are measured: at most, as rounds are not cut
	WarmUp   time.Duration // at least, before them
	Timeout  time.Duration // of a request
	Seed     uint64
	Every    time.Duration // how often what was measured so far is reported; zero: at the end alone
}

// Connections is how many connections a Client needs for so many variants.
func Connections(variants int) int { return (variants + 2) * inFlight }

// Validate says what is wrong with o, naming flags.
func (o Options) Validate() error {
	s := o.schedule()
	switch {
	case len(o.Requests) == 0:
		return errors.New("there is no request to send")
	case len(o.Variants)+2 > result.MaxArms:
		return fmt.Errorf("--variant: at most %d", result.MaxArms-2)
	case !(o.Rate > 0) || o.Rate > maxRate: // not a number is neither
		return fmt.Errorf("--rate: must be more than 0 and at most %d a second", maxRate)
	case o.Turn < 1 || o.Turn > maxTurn:
		return fmt.Errorf("--turn: must be 1 to %d requests", maxTurn)
	case o.Round <= 0 || s.block() > maxBlock:
		return fmt.Errorf("--round: must be more than 0, and at most %d requests to an arm", maxBlock)
	case o.Timeout <= 0 || o.Timeout > maxTimeout:
		return fmt.Errorf("--timeout: must be more than 0 and at most %v", maxTimeout)
	case o.WarmUp < 0 || o.Every < 0:
		return errors.New("--warm-up and --report-every: must not be negative")
	case o.Duration+o.WarmUp > maxRun || o.Duration < 0 || o.WarmUp > maxRun:
		return fmt.Errorf("--duration and --warm-up: at most %v together", maxRun)
	case s.measured < 1:
		return fmt.Errorf("--duration=%v: one round of %d arms takes %v", o.Duration, s.arms, s.round())
	case s.measured > result.MaxRounds:
		return fmt.Errorf("--round=%v: that makes %d rounds, more than %d", o.Round, s.measured, result.MaxRounds)
	}
	return nil
}

// arms returns the arms in the result's order, and their keys.
func (o Options) arms() ([]result.Arm, []string) {
	arms := []result.Arm{
		{Name: result.NameBaseline, Role: result.RoleBaseline}, {Name: result.NameControl, Role: result.RoleControl},
	}
	keys := []string{o.BaselineKey, o.BaselineKey}
	for _, v := range o.Variants {
		arms, keys = append(arms, result.Arm{Name: v.Name, Role: result.RoleVariant}), append(keys, v.Key)
	}
	return arms, keys
}

func (o Options) schedule() schedule {
	s := schedule{arms: len(o.Variants) + 2, requests: len(o.Requests), turn: o.Turn, cycles: 1, seed: o.Seed, rate: o.Rate}
	if cycle := s.round(); cycle > 0 {
		s.cycles = int(max(1, (o.Round+cycle-1)/cycle))
	}
	if round := s.round(); round > 0 {
		s.warmUp = int((o.WarmUp + round - 1) / round)
		s.measured = int(o.Duration / round)
	}
	return s
}
