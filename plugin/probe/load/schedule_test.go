package load

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSchedule_IsBalanced(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := schedule{
			arms: rapid.IntRange(2, 6).Draw(t, "arms"), requests: rapid.IntRange(1, 7).Draw(t, "requests"),
			turn: rapid.IntRange(1, 4).Draw(t, "turn"), cycles: rapid.IntRange(1, 4).Draw(t, "cycles"),
			warmUp: rapid.IntRange(0, 2).Draw(t, "warmUp"), measured: rapid.IntRange(1, 3).Draw(t, "measured"),
			rate: rapid.Float64Range(0.5, 5000).Draw(t, "rate"), seed: rapid.Uint64().Draw(t, "seed"),
		}
		rounds := s.warmUp + s.measured
		sent := make([][][]int, rounds) // requests by round and arm
		for i := range sent {
			sent[i] = make([][]int, s.arms)
		}
		n, firsts := 0, 0
		last := time.Duration(-1)
		for one := range s.slots() {
			if one.at != s.at(n) || one.at <= last {
				t.Fatalf("request %d is due at %v, after %v; want %v", n, one.at, last, s.at(n))
			}
			if one.first {
				firsts++
			}
			sent[one.round][one.arm] = append(sent[one.round][one.arm], one.request)
			last = one.at
			n++
		}
		if firsts != rounds || n != rounds*s.arms*s.block() {
			t.Fatalf("%d requests in %d rounds, want %d in %d", n, firsts, rounds*s.arms*s.block(), rounds)
		}
		for round := range sent {
			for arm := range sent[round] {
				if len(sent[round][arm]) != s.block() || !slices.Equal(sent[round][arm], sent[round][0]) {
					t.Fatalf("round %d: arm %d is sent %v, and arm 0 %v", round, arm, sent[round][arm], sent[round][0])
				}
			}
		}
	})
}

// Each arm must follow each other one about as often, or what one leaves behind falls on its neighbour alone.
func TestSchedule_IsRandomAndTheSameForTheSameSeed(t *testing.T) {
	s := schedule{arms: 4, requests: 1, turn: 1, cycles: 500, measured: 4, rate: 100, seed: 7}
	order := func(s schedule) (arms []int) {
		for one := range s.slots() {
			arms = append(arms, one.arm)
		}
		return arms
	}
	first := order(s)
	if !slices.Equal(first, order(s)) {
		t.Error("the same seed gives another order")
	}
	var after [4][4]int
	for i := 1; i < len(first); i++ {
		after[first[i-1]][first[i]]++
	}
	for a := range after {
		for b, n := range after[a] {
			// 2,000 cycles: three of four steps are within a cycle, with 12 pairs, one leads to the next, with 16.
			if want := 2000*3/12 + 2000/16; a != b && (n < want*3/4 || n > want*5/4) {
				t.Errorf("arm %d follows arm %d %d times, want about %d", b, a, n, want)
			}
		}
	}
	s.seed++
	if slices.Equal(first, order(s)) {
		t.Error("another seed gives the same order")
	}
}
