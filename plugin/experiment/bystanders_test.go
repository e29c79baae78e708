package experiment

import (
	"math/rand/v2"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
)

func passing(variant, baseline map[string]route.Observation) *Evidence {
	e := sound()
	e.Passed, e.Baseline = variant, baseline
	return e
}

func TestBystanders(t *testing.T) {
	type seen = map[string]route.Observation
	rows := Bystanders(passing(
		seen{"deployment.route": {Requests: 1000, Failed: 42}, "deployment.api": {Requests: 1000, Failed: 3}, "deployment.new": {Requests: 20}, "deployment.few": {Requests: 3}},
		seen{"deployment.route": {Requests: 1000, Failed: 1}, "deployment.api": {Requests: 1000}, customer: {Requests: 1000}, "deployment.gone": {Requests: 900}},
	), 1, BystanderMargin)
	want := []string{
		"deployment/api fails 0.3 % of the variant's requests, and 0.0 % of the baseline's: +0.3 points [-0.4, 1.2]",
		"deployment/few got 3 requests of the variant's, and 0 of the baseline's",
		"deployment/gone got no request of the variant's, and 900 of the baseline's",
		"deployment/new got 20 requests of the variant's, and none of the baseline's",
		"deployment/route fails 4.2 % of the variant's requests, and 0.1 % of the baseline's: +4.1 points [2.6, 6.1]",
	}
	if len(rows) != len(want) {
		t.Fatalf("got %v", rows)
	}
	for i, row := range rows {
		if row.String() != want[i] {
			t.Errorf("got %s, want %s", row, want[i])
		}
	}
	if r := BystanderReasons(rows); len(r) != 1 || r[0] != because(Bystander, want[4]) {
		t.Errorf("got %v", r)
	}
	if rows := Bystanders(passing(nil, seen{}), 1, BystanderMargin); rows != nil {
		t.Errorf("of what is not known: %v", rows)
	}
}

// At the edge of the margin, where every alarm is a false one, at most 5 % of experiments have any; and one that fails more by far is
// found.
func TestBystanders_FalseAlarms(t *testing.T) {
	const experiments, variants, workloads = 400, 3, 5
	for _, base := range []float64{0, 0.001, 0.02, 0.2} {
		for _, n := range []uint64{200, 2000} {
			rnd := rand.New(rand.NewPCG(1, n))
			draw := func(p float64) map[string]route.Observation {
				all := map[string]route.Observation{}
				for w := range workloads {
					o := route.Observation{Requests: n}
					for range n {
						if rnd.Float64() < p {
							o.Failed++
						}
					}
					all["deployment."+string(rune('a'+w))] = o
				}
				return all
			}
			alarms, found := 0, 0
			for range experiments {
				baseline, any := draw(base), false
				for range variants {
					any = any || len(BystanderReasons(Bystanders(passing(draw(base+BystanderMargin), baseline), variants, BystanderMargin))) > 0
				}
				if any {
					alarms++
				}
				if len(BystanderReasons(Bystanders(passing(draw(base+0.15), baseline), variants, BystanderMargin))) > 0 {
					found++
				}
			}
			if share := float64(alarms) / experiments; share > 0.05 {
				t.Errorf("failing %g of %d: %.1f %% false alarms", base, n, 100*share)
			}
			if share := float64(found) / experiments; share < 0.9 {
				t.Errorf("failing %g of %d: 15 points more are found in %.0f %%", base, n, 100*share)
			}
		}
	}
}
