package stats

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/stat/distuv"
)

// Spend divides alpha, the chance of an interval that misses the truth at any look, over looks at growing fractions of the planned
// requests. What is spent up to each look is the function like O'Brien and Fleming's of Lan and DeMets, Biometrika 70, 1983,
// in both directions: next to nothing early, so that only what is plain ends a run early, and most of alpha is left for its end.
//
// Each look gets what was not spent before it. The chances of any looks, however they depend on one another, add up to alpha at
// most: that holds for every statistic, without the boundaries that recursive integration gives for one normal process alone.
// The last look gets all that is left, so it may come before its time.
func Spend(alpha float64, fractions ...float64) ([]float64, error) {
	spent, before := 0.0, 0.0
	var looks []float64
	for i, f := range fractions {
		if !(f > before && f <= 1) {
			return nil, fmt.Errorf("looks must come at growing fractions of the run, from above 0 to 1, and %g comes after %g", f, before)
		}
		upTo := alpha
		if i < len(fractions)-1 {
			upTo = obrienFleming(alpha, f)
		}
		looks = append(looks, upTo-spent)
		spent, before = upTo, f
	}
	return looks, nil
}

// obrienFleming returns how much of alpha is spent when a fraction of the requests is measured.
func obrienFleming(alpha, fraction float64) float64 {
	z := -distuv.UnitNormal.Quantile(alpha / 4)
	return 4 * distuv.UnitNormal.Survival(z/math.Sqrt(fraction))
}
