package load

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/probe/request"
)

// Bounds of what is reported of an arm.
const (
	maxPods     = 50
	maxExamples = 2 // of an error class
	maxMessage  = 300
)

// digits is the number of significant digits of latencies in histograms.
const digits = 3

// A tally adds up outcomes. A round counts only once all its requests have ended: a truncated round would lack its
// slow requests.
type tally struct {
	schedule schedule
	requests []request.Request
	highest  int64 // microseconds
	open     map[int]*round
	sealed   map[int]result.Round
	lateness *hdrhistogram.Histogram
	totals   []result.Total
	refused  []baseline // by request
	unused   []*hdrhistogram.Histogram
}

// baseline is what the baseline answered to a request during the warm-up.
type baseline struct{ answered, refused bool }

// A round is a round that is not sealed yet.
type round struct {
	waits  int // for outcomes
	late   []int64
	blocks []block
}

type block struct {
	result.Block
	latencies *hdrhistogram.Histogram
	total     result.Total
}

func newTally(s schedule, requests []request.Request, timeout time.Duration) *tally {
	t := &tally{
		schedule: s, requests: requests, highest: max(2, 2*timeout.Microseconds()), open: map[int]*round{}, sealed: map[int]result.Round{},
		totals: make([]result.Total, s.arms), refused: make([]baseline, len(requests)),
	}
	t.lateness = t.histogram()
	for i := range t.totals {
		t.totals[i] = newTotal()
	}
	return t
}

func newTotal() result.Total {
	return result.Total{Statuses: map[int]int{}, ServedBy: map[string]int{}}
}

func (t *tally) histogram() *hdrhistogram.Histogram {
	if n := len(t.unused); n > 0 {
		h := t.unused[n-1]
		t.unused = t.unused[:n-1]
		return h
	}
	return hdrhistogram.New(1, t.highest, digits)
}

func (t *tally) add(o outcome) {
	t.totals[o.arm].Sent++
	if errors.Is(o.err, context.Canceled) { // the run was ended: its round stays open
		return
	}
	if o.round < t.schedule.warmUp {
		if b := &t.refused[o.request]; o.arm < 2 && o.err == nil { // the baseline's
			b.answered, b.refused = true, b.refused || refusal(o.answer.Status)
		}
		return
	}
	r := t.open[o.round]
	if r == nil {
		r = &round{waits: t.schedule.arms * t.schedule.block(), blocks: make([]block, t.schedule.arms)}
		for i := range r.blocks {
			r.blocks[i] = block{latencies: t.histogram(), total: newTotal(), Block: result.Block{Errors: map[result.ErrorClass]int{}}}
		}
		t.open[o.round] = r
	}
	r.waits--
	r.late = append(r.late, micros(o.late))
	t.count(&r.blocks[o.arm], o)
	if r.waits == 0 {
		t.seal(o.round, r)
	}
}

func (t *tally) count(b *block, o outcome) {
	b.Sent++
	if o.err == nil || o.answer.Status != 0 {
		b.total.Statuses[o.answer.Status]++
		served(&b.total, o.answer.ServedBy, 1)
	}
	class, message := t.class(o)
	if class == "" || class == result.ErrorTimeout {
		_ = b.latencies.RecordValue(min(micros(o.latency), t.highest)) // which is within its bounds
	}
	if class != "" {
		b.Errors[class]++
		example(&b.total, result.Failure{Request: limited(t.requests[o.request].Name()), Class: class, Message: limited(message)})
	}
}

// class returns how a request failed; empty if it did not.
func (t *tally) class(o outcome) (class result.ErrorClass, message string) {
	status := o.answer.Status
	known := t.refused[o.request]
	switch {
	case o.answer.Refused != "":
		return result.ErrorSandbox, o.answer.Refused
	case status >= 500:
		return result.ErrorServer, http.StatusText(status)
	case refusal(status) && known.answered && !known.refused:
		return result.ErrorStatus, http.StatusText(status) + ", and the baseline never answered so"
	case errors.Is(o.err, context.DeadlineExceeded):
		return result.ErrorTimeout, "no whole answer in time"
	case o.err != nil:
		return result.ErrorTransport, o.err.Error()
	}
	return "", ""
}

func refusal(status int) bool { return status >= 400 && status < 500 }

// seal closes a round: nothing more is added to it.
func (t *tally) seal(n int, r *round) {
	delete(t.open, n)
	done := result.Round{
		Start: (time.Duration(n-t.schedule.warmUp) * t.schedule.round()).Seconds(), Blocks: make([]result.Block, len(r.blocks)),
	}
	for i, b := range r.blocks {
		b.Latencies = distribution(b.latencies)
		b.latencies.Reset()
		t.unused = append(t.unused, b.latencies)
		done.Blocks[i] = b.Block
		merge(&t.totals[i], b.total)
	}
	for _, v := range r.late {
		_ = t.lateness.RecordValue(min(v, t.highest))
	}
	t.sealed[n] = done
}

// done returns the number of rounds that are sealed, up to the first that is not.
func (t *tally) done() int {
	n := len(t.sealed)
	for open := range t.open {
		n = min(n, open-t.schedule.warmUp)
	}
	return n
}

// fill copies the measurements so far into l. l shares nothing with t.
func (t *tally) fill(l *result.Load) {
	l.Rounds = make([]result.Round, 0, len(t.sealed))
	for _, n := range slices.Sorted(maps.Keys(t.sealed)) {
		l.Rounds = append(l.Rounds, t.sealed[n])
	}
	l.Lateness = distribution(t.lateness)
	l.Totals = make([]result.Total, len(t.totals))
	for i, total := range t.totals {
		l.Totals[i] = newTotal()
		merge(&l.Totals[i], total)
	}
}

func merge(into *result.Total, from result.Total) {
	into.Sent += from.Sent
	for status, n := range from.Statuses {
		into.Statuses[status] += n
	}
	for pod, n := range from.ServedBy {
		served(into, pod, n)
	}
	into.Others += from.Others
	for _, f := range from.Examples {
		example(into, f)
	}
}

func served(t *result.Total, pod string, n int) {
	if _, ok := t.ServedBy[pod]; !ok && len(t.ServedBy) >= maxPods {
		t.Others += n
		return
	}
	t.ServedBy[pod] += n
}

func example(t *result.Total, f result.Failure) {
	n := 0
	for _, e := range t.Examples {
		if e.Class == f.Class {
			n++
		}
	}
	if n < maxExamples {
		t.Examples = append(t.Examples, f)
	}
}

// distribution returns the counts in h. Each value is the middle of those that h does not distinguish.
func distribution(h *hdrhistogram.Histogram) result.Histogram {
	var d result.Histogram
	for _, bar := range h.Distribution() {
		if bar.Count > 0 {
			d = append(d, result.Count{Micros: bar.From + (bar.To-bar.From)/2, N: bar.Count})
		}
	}
	return d
}

func micros(d time.Duration) int64 { return max(0, d.Microseconds()) }

func limited(s string) string {
	if len(s) > maxMessage {
		return s[:maxMessage]
	}
	return s
}
