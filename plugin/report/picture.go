package report

import (
	"fmt"
	"math"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
)

// Size of a picture, in its own units.
const (
	width  = 640
	height = 120
)

// A picture compares the distribution of a variant's latencies with the baseline's: the share of requests over time,
// on a logarithmic axis.
type picture struct {
	Width, Height     int
	Baseline, Variant string // paths
	Ticks             []tick
}

// A tick is a position on the axis of time.
type tick struct {
	X     int
	Label string
}

// draw draws shares beside those of the baseline; nil if there is nothing to draw.
func draw(l *experiment.LoadReport, shares []float64) *picture {
	if l == nil || len(shares) == 0 || len(l.Baseline) != len(shares) || len(l.Again) != len(shares) || len(l.Edges) != len(shares)+1 || !(l.Edges[0] > 0) {
		return nil
	}
	baseline := make([]float64, len(shares))
	most := 0.0
	for i := range shares {
		baseline[i] = (l.Baseline[i] + l.Again[i]) / 2
		most = max(most, baseline[i], shares[i])
	}
	if most == 0 {
		return nil
	}
	p := &picture{Width: width, Height: height, Baseline: steps(baseline, most, true), Variant: steps(shares, most, false)}
	from, to := math.Log(l.Edges[0]), math.Log(l.Edges[len(l.Edges)-1])
	last := -width
	for decade := math.Floor(math.Log10(l.Edges[0])); decade < 7; decade++ {
		for _, m := range []float64{1, 2, 5} {
			at := m * math.Pow(10, decade)
			x := int((math.Log(at) - from) / (to - from) * width)
			if x < 0 || x > width-30 || x-last < 60 {
				continue
			}
			last = x
			p.Ticks = append(p.Ticks, tick{x, milliseconds(at)})
		}
	}
	return p
}

func milliseconds(ms float64) string {
	switch {
	case ms >= 1000:
		return fmt.Sprintf("%g s", ms/1000)
	case ms >= 1:
		return fmt.Sprintf("%g ms", ms)
	}
	return fmt.Sprintf("%g \u00b5s", ms*1000)
}

// steps returns the path of a row of bars; if closed, it is an area.
func steps(shares []float64, most float64, closed bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "M0 %d", height)
	for i, s := range shares {
		fmt.Fprintf(&b, "V%.1fH%.1f", height-s/most*(height-4), float64(i+1)*width/float64(len(shares)))
	}
	fmt.Fprintf(&b, "V%d", height)
	if closed {
		b.WriteString("Z")
	}
	return b.String()
}

// loadOf returns how a load check measured; nil for other checks.
func loadOf(r *experiment.Report, check string) *experiment.LoadReport {
	for i := range r.Checks {
		if r.Checks[i].Name == check {
			return r.Checks[i].Load
		}
	}
	return nil
}
