package audit

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Series are the values of one program's metrics, by name and labels: `name{a="b",c="d"}`.
type Series map[string]float64

// ParseMetrics reads counters and gauges from what /metrics answers.
func ParseMetrics(r io.Reader) (Series, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(r)
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	series := Series{}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			switch {
			case m.GetCounter() != nil:
				series[seriesName(name, m)] = m.GetCounter().GetValue()
			case m.GetGauge() != nil:
				series[seriesName(name, m)] = m.GetGauge().GetValue()
			case m.GetUntyped() != nil:
				series[seriesName(name, m)] = m.GetUntyped().GetValue()
			case m.GetHistogram() != nil:
				series[seriesName(name+"_count", m)] = float64(m.GetHistogram().GetSampleCount())
				series[seriesName(name+"_sum", m)] = m.GetHistogram().GetSampleSum()
			}
		}
	}
	return series, nil
}

func seriesName(name string, m *dto.Metric) string {
	if len(m.GetLabel()) == 0 {
		return name
	}
	var labels []string
	for _, l := range m.GetLabel() {
		labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
	}
	slices.Sort(labels)
	return name + "{" + strings.Join(labels, ",") + "}"
}

// Label returns the value of a label in the name of a series.
func Label(series, label string) string {
	_, rest, ok := strings.Cut(series, label+`="`)
	if !ok {
		return ""
	}
	value, _, _ := strings.Cut(rest, `"`)
	return value
}

// reconcileErrors counts failed reconciles by controller; controller-runtime logs each of them.
const reconcileErrors = "controller_runtime_reconcile_errors_total"

// failures are the counters that tell of failures of our own, beside reconcileErrors.
func failures() []string {
	return []string{
		"controller_runtime_reconcile_panics_total",
		"controller_runtime_terminal_reconcile_errors_total",
		"controller_runtime_webhook_panics_total",
		`sandbox_webhook_pods_total{outcome="failed"`,
	}
}

// A Reading is what a process counted when it was read first and last, and since when its log is known.
type Reading struct {
	Source
	First, Last Series
	Since, At   time.Time
}

// Metrics returns the findings of a reading. A failed reconcile is no finding here when the log told of it, where a test can announce
// it: so each is counted once, and none is missed because a line is.
func (l *Ledger) Metrics(r Reading) []Finding {
	var found []Finding
	add := func(format string, args ...any) {
		found = append(found, Finding{Source: r.Source, Kind: Metric, Time: r.At, Text: fmt.Sprintf(format, args...)})
	}
	for series, value := range r.Last {
		rose := value - r.First[series]
		switch {
		case strings.HasPrefix(series, reconcileErrors+"{"):
			if told := l.Reconciles(r.Source, Label(series, "controller"), r.Since); rose > float64(told) {
				add("%s rose by %v, and the log tells of %d", series, rose, told)
			}
		case strings.HasPrefix(series, "sandbox_webhook_reconcile_failing{"):
			if value > 0 {
				add("%s is %v: the last reconcile of as many objects failed", series, value)
			}
		case slices.ContainsFunc(failures(), func(name string) bool { return countsFailure(series, name) }):
			if rose > 0 {
				add("%s rose by %v", series, rose)
			}
		}
	}
	slices.SortFunc(found, func(a, b Finding) int { return strings.Compare(a.Text, b.Text) })
	return found
}

// countsFailure says whether a series is of a counter of failures().
func countsFailure(series, counter string) bool {
	name, labels, _ := strings.Cut(counter, "{")
	have, rest, _ := strings.Cut(series, "{")
	return have == name && strings.Contains(rest, labels)
}
