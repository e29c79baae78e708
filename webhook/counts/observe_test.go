package counts

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func TestObservedOf_IsBounded(t *testing.T) {
	runs := map[string]Run{}
	for i := range 20 {
		var keys []string
		for j := range sandbox.MaxObserve {
			keys = append(keys, fmt.Sprintf("k-%02d-%02d", 19-i, j))
		}
		runs[fmt.Sprint(i)] = Run{time.Unix(int64(i), 0), keys}
	}
	all := ObservedOf(runs)
	if len(all) != maxObserved || !slices.IsSorted(all) || !slices.Contains(all, "k-19-00") || slices.Contains(all, "k-00-00") {
		t.Errorf("%d keys, from %s to %s", len(all), all[0], all[len(all)-1])
	}
}

// A router that starts to observe a key again counts from zero; nothing is lost or counted twice.
func TestFoldObserved_TellsTurns(t *testing.T) {
	sum, marked, r := route.Observed{}, Observations{}, Run{Keys: []string{"k"}}
	for i, step := range []struct {
		total route.Observation
		want  uint64
	}{
		{route.Observation{Requests: 5, Turn: 1}, 5}, {route.Observation{Requests: 5, Turn: 1}, 5}, {route.Observation{Requests: 7, Turn: 1}, 7},
		{route.Observation{Requests: 2, Turn: 4}, 9}, {route.Observation{Requests: 7, Turn: 1}, 9}, {route.Observation{Requests: 3, Turn: 4}, 10},
	} {
		foldObserved(sum, marked, Observations{web: {"a": {"k": step.total}}}, r, nobody)
		if got := sum["k"][web].Requests; got != step.want {
			t.Errorf("step %d: %d, want %d", i, got, step.want)
		}
	}
}
