package load

import (
	"iter"
	"math/rand/v2"
	"time"
)

// A schedule determines which request is sent to which arm and when, counted from the start and independent of
// answers.
type schedule struct {
	arms, requests   int
	turn             int // requests to an arm in a row
	cycles           int // turns of an arm in a round
	warmUp, measured int // rounds
	rate             float64
	seed             uint64
}

// A slot is the scheduled time of one request.
type slot struct {
	at      time.Duration // since the start
	round   int           // from 0 on, those of the warm-up included
	first   bool          // of its round
	arm     int
	request int
}

// at returns when the n-th request is due; zero if there is no rate.
func (s schedule) at(n int) time.Duration {
	if !(s.rate > 0) {
		return 0
	}
	return time.Duration(float64(n) / s.rate * float64(time.Second))
}

// block returns the number of requests to an arm in a round.
func (s schedule) block() int { return s.cycles * s.turn }

// round returns the length of a round.
func (s schedule) round() time.Duration { return s.at(s.arms * s.block()) }

// slots yields all slots in order of time.
func (s schedule) slots() iter.Seq[slot] {
	return func(yield func(slot) bool) {
		n := 0
		for round := range s.warmUp + s.measured {
			// A round's order depends only on seed and round.
			random := rand.New(rand.NewPCG(s.seed, uint64(round))) //nolint:gosec // an order, no secret
			for cycle := range s.cycles {
				// All arms are sent the same requests in a cycle, and each cycle continues in the list where the last
				// one ended.
				request := (round*s.cycles + cycle) * s.turn
				for place, arm := range random.Perm(s.arms) {
					for i := range s.turn {
						one := slot{at: s.at(n), round: round, first: cycle+place+i == 0, arm: arm, request: (request + i) % s.requests}
						if !yield(one) {
							return
						}
						n++
					}
				}
			}
		}
	}
}
