package stats

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Quantiles of weighted blocks, found in the table from anywhere, beside those of the requests written out.
func TestTableQuantile(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 300 {
		blocks := make([]Sample, 1+random.IntN(5))
		weights := make([]int64, len(blocks))
		var all []time.Duration
		for k := range blocks {
			weights[k] = int64(random.IntN(3))
			for range random.IntN(400) {
				b := Bucket{Value: time.Duration(random.IntN(1 + random.IntN(600))), Count: int64(random.IntN(3))}
				blocks[k].Latency = append(blocks[k].Latency, b)
				for range weights[k] * b.Count {
					all = append(all, b.Value)
				}
			}
		}
		table := newTable(blocks)
		if len(table.values) == 0 {
			continue
		}
		for _, p := range []float64{0.5, 0.95, 0.99} {
			i, ok := table.quantile(weights, table.count(weights), p, random.IntN(len(table.values)))
			if ok != (len(all) > 0) {
				t.Fatalf("found %v among %d requests", ok, len(all))
			}
			if !ok {
				continue
			}
			atMost, less := 0, 0
			for _, v := range all {
				if v <= table.values[i] {
					atMost++
				}
				if v < table.values[i] {
					less++
				}
			}
			if n := float64(len(all)); float64(atMost) < p*n-1e-6 || float64(less) >= p*n {
				t.Fatalf("p%g of %d requests: %v, which %d do not exceed and %d are below", 100*p, len(all), table.values[i], atMost, less)
			}
		}
	}
}
