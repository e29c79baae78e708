package result

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"time"
)

// Load is what a load check measured.
//
// Its design is one of randomized complete blocks. Time is divided into rounds of a few seconds, and rounds into
// cycles. In a cycle, each arm has one turn of equally many requests at the same rate, in random order. Whatever
// disturbs the cluster for longer than a cycle disturbs all arms alike, and rounds are what a block bootstrap
// resamples. In the same round, all arms are sent the same requests.
type Load struct {
	Header
	// Seed of the random order of turns: the same one gives the same order.
	Seed uint64 `json:"seed"`
	// Rate is the planned number of requests a second, in total: only the arm that has its turn gets requests.
	Rate float64 `json:"rate"`
	// Turn is the number of consecutive requests to an arm.
	Turn int `json:"turn"`
	// Round is the length of a round, in seconds.
	Round float64 `json:"roundSeconds"`
	// Timeout is the time limit of a request from its scheduled time, in seconds.
	Timeout float64 `json:"timeoutSeconds"`
	// WarmUp is the number of rounds that were run before the measurement.
	WarmUp int `json:"warmUpRounds"`
	// Planned is the number of rounds to be measured. Fewer are a complete result if a look settled the budgets.
	Planned int `json:"plannedRounds"`
	// Settled means that the probe ended at a look before the last, because more requests would have changed no
	// verdict.
	Settled bool `json:"settled,omitempty"`
	// Lateness is how late requests were sent, over all arms: it shows a probe that lacks CPU.
	Lateness Histogram `json:"lateness"`
	// List is what was sent.
	List List `json:"list"`
	// Totals is indexed by arm.
	Totals []Total `json:"totals"`
	Rounds []Round `json:"rounds"`
}

// A Round is a period in which all arms had equally many turns.
type Round struct {
	// Start is its scheduled start, in seconds since the first measured round.
	Start float64 `json:"startSeconds"`
	// Blocks is indexed by arm.
	Blocks []Block `json:"blocks"`
}

// A Block is one arm's part of a round.
type Block struct {
	Sent int `json:"sent"`
	// Latencies run from the scheduled time of a request, whether or not it could be sent then, to the answer's last
	// byte. So no request is left out because others were slow. Requests that timed out are included with the
	// timeout. Those that failed otherwise are not, since failing fast is not being fast.
	Latencies Histogram `json:"latencies"`
	// Errors counts the requests that failed, including those that timed out.
	Errors map[ErrorClass]int `json:"errors,omitempty"`
}

// Failed returns the number of requests that failed.
func (b Block) Failed() int {
	n := 0
	for _, c := range b.Errors {
		n += c
	}
	return n
}

// ErrorClass says how a request failed.
type ErrorClass string

// Error classes. The first that applies counts.
const (
	ErrorSandbox   ErrorClass = "sandbox"   // a router answered, in place of a fork: x-sandbox-error
	ErrorServer    ErrorClass = "server"    // status 500 or more
	ErrorStatus    ErrorClass = "status"    // status 4xx, to a request that the baseline in the warm-up never answered so
	ErrorTimeout   ErrorClass = "timeout"   // no whole answer in time
	ErrorTransport ErrorClass = "transport" // no connection, or one that broke; an answer that is none, or too large
)

// ErrorClasses returns all of them, in order of precedence.
func ErrorClasses() []ErrorClass {
	return []ErrorClass{ErrorSandbox, ErrorServer, ErrorStatus, ErrorTimeout, ErrorTransport}
}

// A Total sums up an arm's answers in all measured rounds.
type Total struct {
	// Sent is the number of requests that were sent to the arm, including those of the warm-up and of discarded
	// rounds.
	Sent int `json:"sent"`
	// Statuses counts answers by status.
	Statuses map[int]int `json:"statuses,omitempty"`
	// ServedBy counts answers by their x-sandbox-served-by: by pod, and "" for those without.
	ServedBy map[string]int `json:"servedBy,omitempty"`
	// Others counts answers by pods that did not fit into ServedBy.
	Others int `json:"others,omitempty"`
	// Examples are a few of the requests that failed.
	Examples []Failure `json:"examples,omitempty"`
}

// A Failure is a request that failed.
type Failure struct {
	Request string     `json:"request"` // method, path and query
	Class   ErrorClass `json:"class"`
	Message string     `json:"message"`
}

// A Histogram is a set of durations, in microseconds, each to three significant digits. In JSON it is a list of pairs
// of a duration and its count, in ascending order.
type Histogram []Count

// A Count is how often a Histogram contains a duration.
type Count struct {
	Micros int64
	N      int64
}

// Len returns the number of durations.
func (h Histogram) Len() int64 {
	var n int64
	for _, c := range h {
		n += c.N
	}
	return n
}

// Quantile returns the least duration that at least the share p of all do not exceed; 0 for an empty histogram.
func (h Histogram) Quantile(p float64) time.Duration {
	need := int64(math.Ceil(p * float64(h.Len())))
	for _, c := range h {
		if need -= c.N; need <= 0 {
			return time.Duration(c.Micros) * time.Microsecond
		}
	}
	return 0
}

// All yields every duration, in ascending order.
func (h Histogram) All() iter.Seq[time.Duration] {
	return func(yield func(time.Duration) bool) {
		for _, c := range h {
			for range c.N {
				if !yield(time.Duration(c.Micros) * time.Microsecond) {
					return
				}
			}
		}
	}
}

// MarshalJSON writes c as a pair.
func (c Count) MarshalJSON() ([]byte, error) { return json.Marshal([2]int64{c.Micros, c.N}) }

// UnmarshalJSON reads a pair.
func (c *Count) UnmarshalJSON(b []byte) error {
	var pair []int64
	if err := json.Unmarshal(b, &pair); err != nil {
		return err
	}
	if len(pair) != 2 {
		return errors.New("a histogram's count is a pair")
	}
	c.Micros, c.N = pair[0], pair[1]
	return nil
}

// maxBlock bounds the requests in a block, because callers expand the histogram.
const maxBlock = 1_000_000

func (h Histogram) validate() error {
	last := int64(-1)
	var sum int64
	for _, c := range h {
		if c.Micros <= last || c.N <= 0 || c.N > maxBlock {
			return errors.New("a histogram is not of ascending durations and their counts")
		}
		last, sum = c.Micros, sum+c.N
	}
	if sum > maxBlock*MaxArms {
		return errors.New("a histogram has too many durations")
	}
	return nil
}

// Validate returns what is wrong with l, such as blocks that do not add up.
func (l Load) Validate() error {
	if err := l.Header.Validate(KindLoad); err != nil {
		return err
	}
	if err := l.Lateness.validate(); err != nil {
		return fmt.Errorf("lateness: %w", err)
	}
	if err := l.List.validate(); err != nil {
		return err
	}
	if len(l.Totals) != len(l.Arms) {
		return fmt.Errorf("it has totals of %d arms, and %d arms", len(l.Totals), len(l.Arms))
	}
	if l.Planned < len(l.Rounds) {
		return fmt.Errorf("it has %d rounds, and %d were planned", len(l.Rounds), l.Planned)
	}
	if len(l.Rounds) > MaxRounds {
		return fmt.Errorf("it has %d rounds, more than %d", len(l.Rounds), MaxRounds)
	}
	for i, r := range l.Rounds {
		if len(r.Blocks) != len(l.Arms) {
			return fmt.Errorf("round %d has %d blocks, and there are %d arms", i, len(r.Blocks), len(l.Arms))
		}
		for arm, b := range r.Blocks {
			if err := b.validate(); err != nil {
				return fmt.Errorf("round %d of arm %q: %w", i, l.Arms[arm].Name, err)
			}
		}
	}
	return nil
}

func (b Block) validate() error {
	if err := b.Latencies.validate(); err != nil {
		return err
	}
	for _, n := range b.Errors {
		if n < 0 || n > maxBlock {
			return errors.New("a count of errors is out of bounds")
		}
	}
	// Requests that failed have no latency, but for those that timed out.
	if b.Sent < 0 || b.Sent > maxBlock || int64(b.Sent) != b.Latencies.Len()+int64(b.Failed()-b.Errors[ErrorTimeout]) {
		return fmt.Errorf("of %d requests, %d have a latency and %d failed", b.Sent, b.Latencies.Len(), b.Failed())
	}
	return nil
}
