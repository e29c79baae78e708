package stats

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Budget is a bound on a metric of a variant: METRIC <= Scale × baseline + Offset. What lies on a bound has no probability, so
// "<" and "<=" mean the same.
type Budget struct {
	Metric Metric
	Scale  float64 // 0: an absolute budget
	Offset float64 // seconds, or a share of requests
	text   string
}

// String returns the budget as it was given, without spaces.
func (b Budget) String() string { return b.text }

func (b Budget) contrast() contrast { return contrast{metric: b.Metric, scale: b.Scale} }

// ParseBudgets reads budgets separated by commas, such as
//
//	p95<200ms, errors<1%, p99<=baseline+10%, p50<=baseline+20ms, errors<=baseline+0.5%
//
// Metrics are p50, p90, p95, p99 and errors. Percent of a latency are of the baseline's; percent of errors are points: with a
// baseline that fails 1 % of requests, errors<=baseline+0.5% allows 1.5 %.
func ParseBudgets(s string) ([]Budget, error) {
	var budgets []Budget
	for word := range strings.SplitSeq(s, ",") {
		b, err := parseBudget(word)
		if err != nil {
			return nil, fmt.Errorf("budget %q: %w", strings.TrimSpace(word), err)
		}
		budgets = append(budgets, b)
	}
	return budgets, nil
}

func parseBudget(s string) (Budget, error) {
	s = strings.Join(strings.Fields(s), "")
	if s == "" {
		return Budget{}, fmt.Errorf("is empty: write one such as p95<200ms")
	}
	metric, limit, ok := strings.Cut(s, "<")
	if !ok {
		return Budget{}, fmt.Errorf("has no bound: write METRIC<LIMIT, such as p95<200ms or p95<=baseline+10%%")
	}
	b := Budget{Metric: Metric(metric), text: s}
	if known := []Metric{P50, P90, P95, P99, Errors}; !slices.Contains(known, b.Metric) {
		return Budget{}, fmt.Errorf("unknown metric %q: use p50, p90, p95, p99 or errors", metric)
	}
	limit = strings.TrimPrefix(limit, "=")
	var err error
	if rest, ok := strings.CutPrefix(limit, "baseline"); ok {
		err = b.relative(rest)
	} else {
		err = b.absolute(limit)
	}
	return b, err
}

func (b *Budget) absolute(limit string) error {
	percent, isPercent, err := parseLimit(limit)
	switch {
	case err != nil:
		return err
	case b.Metric == Errors && !isPercent:
		return fmt.Errorf("%q is not a share of requests: write one such as 1%%", limit)
	case b.Metric == Errors && (percent <= 0 || percent > 100):
		return fmt.Errorf("%s can't be shown of any number of requests: allow more than 0%%, such as 0.1%%, and at most 100%%", limit)
	case b.Metric == Errors:
		b.Offset = percent / 100
	case isPercent:
		return fmt.Errorf("%s of what? Write baseline+%s, or a duration such as 200ms", limit, limit)
	case percent <= 0:
		return fmt.Errorf("no request takes %s: write a longer duration", limit)
	default:
		b.Offset = percent
	}
	return nil
}

func (b *Budget) relative(margin string) error {
	b.Scale = 1
	if margin == "" {
		return nil
	}
	if margin[0] != '+' && margin[0] != '-' {
		return fmt.Errorf("baseline is followed by %q: write + or - and a margin, such as baseline+10%%", margin)
	}
	v, isPercent, err := parseLimit(margin[1:])
	if err != nil {
		return err
	}
	if v < 0 {
		return fmt.Errorf("%q has two signs", margin)
	}
	if margin[0] == '-' {
		v = -v
	}
	switch {
	case b.Metric == Errors && !isPercent:
		return fmt.Errorf("%q is not a share of requests: write one such as baseline+1%%", margin)
	case b.Metric == Errors && math.Abs(v) >= 100:
		return fmt.Errorf("%s leaves nothing to check: write less than 100%%", margin)
	case b.Metric == Errors:
		b.Offset = v / 100
	case isPercent && v <= -100:
		return fmt.Errorf("no request takes 100%% less than the baseline: write less")
	case isPercent:
		b.Scale = 1 + v/100
	default:
		b.Offset = v
	}
	return nil
}

// parseLimit returns a number of percent, or of seconds.
func parseLimit(s string) (v float64, isPercent bool, err error) {
	const most = 1e6 // percent: beyond, a slip of the keyboard
	if number, ok := strings.CutSuffix(s, "%"); ok {
		v, err = strconv.ParseFloat(number, 64)
		if err != nil || math.IsNaN(v) || math.Abs(v) > most {
			return 0, true, fmt.Errorf("%q is not a percentage", s)
		}
		return v, true, nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil && s != "0" {
		return 0, false, fmt.Errorf("%s has no unit: write %sms, or %s%%", s, s, s)
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, false, fmt.Errorf("%q is neither a duration, such as 200ms, nor percent, nor baseline with a margin", s)
	}
	return d.Seconds(), false, nil
}

// quantilesOf returns the latency metrics that are always reported, or that budgets name.
func quantilesOf(budgets []Budget) []Metric {
	var metrics []Metric
	for _, c := range contrastsOf(budgets) {
		if c.metric != Errors && !slices.Contains(metrics, c.metric) {
			metrics = append(metrics, c.metric)
		}
	}
	return metrics
}

// contrastsOf returns what is compared for every variant: its differences, and what budgets need beyond them.
func contrastsOf(budgets []Budget) []contrast {
	var contrasts []contrast
	for _, m := range compared() {
		contrasts = append(contrasts, contrast{metric: m, scale: 1})
	}
	for _, b := range budgets {
		if c := b.contrast(); !slices.Contains(contrasts, c) {
			contrasts = append(contrasts, c)
		}
	}
	return contrasts
}
