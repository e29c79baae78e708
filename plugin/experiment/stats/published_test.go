package stats

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"gonum.org/v1/gonum/stat"
)

const z95 = 1.959964

// Newcombe, Statistics in Medicine 17, 1998, 857-872, table I, method 3.
func TestWilsonAsPublished(t *testing.T) {
	for _, tt := range []struct {
		failed, of, low, high float64
	}{
		{81, 263, 0.2553, 0.3662},
		{15, 148, 0.0624, 0.1605},
		{0, 20, 0, 0.1611},
		{1, 29, 0.0061, 0.1718},
	} {
		got := wilson(tt.failed/tt.of, tt.of, z95)
		if math.Abs(got.Low-tt.low) > 0.00005 || math.Abs(got.High-tt.high) > 0.00005 {
			t.Errorf("%g of %g: got [%.4f, %.4f], published [%.4f, %.4f]", tt.failed, tt.of, got.Low, got.High, tt.low, tt.high)
		}
	}
}

// Newcombe, Statistics in Medicine 17, 1998, 873-890, table II, method 10.
func TestNewcombeAsPublished(t *testing.T) {
	for _, tt := range []struct {
		a, n, b, m, low, high float64
	}{
		{56, 70, 48, 80, 0.0524, 0.3339},
		{9, 10, 3, 10, 0.1705, 0.8090},
		{6, 7, 2, 7, 0.0582, 0.8062},
		{5, 56, 0, 29, -0.0381, 0.1926},
		{0, 10, 0, 20, -0.1611, 0.2775},
		{0, 10, 0, 10, -0.2775, 0.2775},
		{10, 10, 0, 20, 0.6791, 1},
		{10, 10, 0, 10, 0.6075, 1},
	} {
		got := newcombe(tt.a/tt.n, tt.n, tt.b/tt.m, tt.m, z95)
		if math.Abs(got.Low-tt.low) > 0.00005 || math.Abs(got.High-tt.high) > 0.00005 {
			t.Errorf("%g/%g - %g/%g: got [%.4f, %.4f], published [%.4f, %.4f]", tt.a, tt.n, tt.b, tt.m, got.Low, got.High, tt.low, tt.high)
		}
	}
}

// The spending function at five equal looks, alpha 0.05 in both directions, as the program of Reboussin, DeMets, Kim and Lan
// (Controlled Clinical Trials 21, 2000) prints it.
func TestSpendAsPublished(t *testing.T) {
	looks, err := Spend(0.05, 0.2, 0.4, 0.6, 0.8, 1)
	if err != nil {
		t.Fatal(err)
	}
	spent := 0.0
	for i, want := range []float64{1.0762e-06, 7.8830e-04, 7.6161e-03, 2.4424e-02, 5.0000e-02} {
		spent += looks[i]
		if math.Abs(spent/want-1) > 2e-3 {
			t.Errorf("look %d: spent %.4e, published %.4e", i+1, spent, want)
		}
	}
}

// The survival of seven mice: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, tables 2.1 and 2.2. The standard error
// of the median comes to 37.83 as replicates grow in number.
func TestBootstrapOfTheMedianAsPublished(t *testing.T) {
	var mice []Sample
	for _, days := range []time.Duration{94, 197, 16, 38, 99, 141, 23} {
		mice = append(mice, Sample{Latency: []Bucket{{Value: days * time.Second, Count: 10}}})
	}
	median := replicate(mice, []Metric{P50}, draw(len(mice), 1)).metrics[P50]
	if median.estimate != 94 {
		t.Errorf("median %g, published 94", median.estimate)
	}
	if se := stat.StdDev(median.draws, nil); math.Abs(se-37.83) > 1 {
		t.Errorf("standard error of the median %.2f, published 37.83", se)
	}
}

// Several treatments with one control: Dunnett, Biometrics 20, 1964, table II, two-sided, 95 %, infinitely many degrees of freedom.
func TestMaxTAsPublished(t *testing.T) {
	for variants, want := range map[int]float64{1: 1.96, 2: 2.21, 4: 2.44, 6: 2.57, 9: 2.69} {
		t.Run(fmt.Sprint(variants), func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 1))
			b := &bootstrap{blocks: 1e6}
			family := map[contrast]studentized{}
			for arm := range variants + 1 {
				normal := replicated{draws: make([]float64, replicates)}
				for r := range normal.draws {
					normal.draws[r] = random.NormFloat64()
				}
				b.arms = append(b.arms, armStats{metrics: map[Metric]replicated{P95: normal}})
				if arm > 0 {
					family[contrast{arm, 0, P95, 1}] = studentized{se: math.Sqrt2}
				}
			}
			// The quantile of so many replicates has a standard error of about 0.04.
			if got := b.maxT(family, 0.05); math.Abs(got-want) > 0.13 {
				t.Errorf("%d comparisons: %.3f, published %.2f", variants, got, want)
			}
		})
	}
}
