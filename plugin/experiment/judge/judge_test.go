package judge_test

import (
	"slices"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/judge"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/stats"
)

func TestLooks(t *testing.T) {
	for planned, want := range map[int][]int{0: {}, 1: {1}, 2: {1, 2}, 3: {1, 2, 3}, 75: {25, 50, 75}, 80: {27, 53, 80}} {
		if got := judge.Looks(planned); !slices.Equal(got, want) {
			t.Errorf("%d rounds: %v, want %v", planned, got, want)
		}
	}
}

// load is a result of rounds in which each arm is sent 40 requests, of which the variant's take slower microseconds longer.
func load(rounds, planned int, slower int64) result.Load {
	l := result.Load{Planned: planned, Seed: 1}
	l.Arms = []result.Arm{
		{Name: result.NameBaseline, Role: result.RoleBaseline}, {Name: result.NameControl, Role: result.RoleControl},
		{Name: "a", Role: result.RoleVariant},
	}
	for k := range rounds {
		var r result.Round
		for arm := range l.Arms {
			b := result.Block{Sent: 40}
			for i := range int64(40) {
				micros := 20_000 + 500*i + 37*((int64(k)*7+i*3+int64(arm))%11)
				if arm == 2 {
					micros += slower
				}
				b.Latencies = append(b.Latencies, result.Count{Micros: micros, N: 1})
			}
			r.Blocks = append(r.Blocks, b)
		}
		l.Rounds = append(l.Rounds, r)
	}
	return l
}

func TestLoad(t *testing.T) {
	budgets, err := stats.ParseBudgets(judge.DefaultBudgets)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		slower int64
		want   stats.Verdict
	}{"equal": {0, stats.Pass}, "slower": {80_000, stats.Fail}} {
		var width float64
		for _, rounds := range []int{20, 40, 60} {
			j, err := judge.Load(load(rounds, 60, tt.slower), budgets)
			if err != nil {
				t.Fatal(err)
			}
			if got := j.Variants[0].Outcomes[0]; got.Verdict != tt.want {
				t.Errorf("%s after %d rounds: %s (%s), want %s", name, rounds, got.Verdict, got.Reason, tt.want)
			}
			d := j.Variants[0].Differences[1]
			if now := d.High - d.Low; width > 0 && now >= width {
				t.Errorf("%s after %d rounds: the interval is %g wide, and was %g", name, rounds, now, width)
			} else {
				width = now
			}
		}
	}
	// Cut off between two looks it is judged by what the next may spend, and so more widely than at its end.
	early, err := judge.Load(load(45, 60, 0), budgets)
	if err != nil {
		t.Fatal(err)
	}
	late, err := judge.Load(load(45, 45, 0), budgets)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := early.Variants[0].Differences[3], late.Variants[0].Differences[3]; a.High-a.Low < b.High-b.Low {
		t.Errorf("cut off %v, at its end %v", a, b)
	}
	if _, err := judge.Load(load(0, 60, 0), budgets); err == nil {
		t.Error("nothing was measured, and it was judged")
	}
}
