package stats_test

import (
	"math"
	"strings"
	"testing"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/stats"
)

func TestParseBudgets(t *testing.T) {
	for _, tt := range []struct {
		text          string
		metric        stats.Metric
		scale, offset float64
	}{
		{"p95<200ms", stats.P95, 0, 0.2},
		{" p99 <= 1.5s ", stats.P99, 0, 1.5},
		{"errors<1%", stats.Errors, 0, 0.01},
		{"p95<=baseline+10%", stats.P95, 1.1, 0},
		{"p90<=baseline-25%", stats.P90, 0.75, 0},
		{"p50<=baseline+20ms", stats.P50, 1, 0.02},
		{"p50 < baseline", stats.P50, 1, 0},
		{"errors<=baseline+0.5%", stats.Errors, 1, 0.005},
	} {
		budgets, err := stats.ParseBudgets(tt.text)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		b := budgets[0]
		if b.Metric != tt.metric || math.Abs(b.Scale-tt.scale) > 1e-12 || math.Abs(b.Offset-tt.offset) > 1e-12 {
			t.Errorf("%s: got %+v", tt.text, b)
		}
	}
	budgets, err := stats.ParseBudgets("p95<200ms, errors < 1%")
	if err != nil || len(budgets) != 2 || budgets[1].String() != "errors<1%" {
		t.Errorf("got %v, %v", budgets, err)
	}
}

func TestParseBudgetsSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "is empty",
		"p95<200ms,":              "is empty",
		"p95":                     "has no bound",
		"p95>200ms":               "has no bound",
		"p97<200ms":               `unknown metric "p97"`,
		"latency<200ms":           "unknown metric",
		"p95<200":                 "200 has no unit: write 200ms",
		"p95<10%":                 "write baseline+10%",
		"p95<0s":                  "no request takes",
		"p95<-5ms":                "no request takes",
		"p95<fast":                "is neither a duration",
		"p95<NaN%":                "not a percentage",
		"p95<=baseline10%":        "write + or -",
		"p95<=baseline+":          "is neither a duration",
		"p95<=baseline+-10%":      "two signs",
		"p95<=baseline-100%":      "100% less",
		"p95<=baseline*2":         "write + or -",
		"errors<1s":               "not a share of requests",
		"errors<=0%":              "allow more than 0%",
		"errors<=101%":            "at most 100%",
		"errors<=baseline+5ms":    "not a share of requests",
		"errors<=baseline+100%":   "less than 100%",
		"p95<200ms, p50<=baselin": `budget "p50<=baselin"`,
	} {
		budgets, err := stats.ParseBudgets(text)
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(want)) {
			t.Errorf("%q: got %v, %v, want %q", text, budgets, err, want)
		}
	}
}

func FuzzParseBudgets(f *testing.F) {
	for _, s := range []string{"p95<200ms", "errors<1%", "p99<=baseline+10%", "p50<=baseline-20ms, errors<=baseline+0.5%", "p95<1e300h", "<=", "p95<0x1p-2%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		budgets, err := stats.ParseBudgets(s)
		if err != nil {
			return
		}
		var words []string
		for _, b := range budgets {
			if b.Scale < 0 || b.Scale == 0 && b.Offset <= 0 || math.IsNaN(b.Offset) || math.IsInf(b.Offset, 0) || math.IsNaN(b.Scale) || math.IsInf(b.Scale, 0) {
				t.Errorf("%q: no request can be held to %+v", s, b)
			}
			words = append(words, b.String())
		}
		again, err := stats.ParseBudgets(strings.Join(words, ","))
		if err != nil || len(again) != len(budgets) {
			t.Fatalf("%q: its own text is read as %v, %v", s, again, err)
		}
		for i := range budgets {
			if again[i] != budgets[i] {
				t.Errorf("%q: %+v is read again as %+v", s, budgets[i], again[i])
			}
		}
	})
}
