package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/judge"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/probe/request"
)

// lastAnswers is how long a run that ctx ended waits for the answers of requests under way.
const lastAnswers = 2 * time.Second

// Run measures, and reports what it has every o.Every and at the end, which is a look that settles o.Budgets or the
// last round. If ctx ends it earlier, the last report holds the rounds that were complete by then, and says so. It
// fails only when report does.
func Run(ctx context.Context, o Options, report func(result.Load) error) error {
	arms, keys := o.arms()
	s := o.schedule()
	r := &run{
		Options: o, keys: keys, schedule: s, outcomes: make(chan outcome, 1024), room: make([]chan struct{}, len(arms)),
	}
	for i := range r.room {
		r.room[i] = make(chan struct{}, inFlight)
	}
	m := newMeasurement(o, arms, s, report)

	ctx, enough := context.WithCancel(ctx)
	defer enough()
	// Requests under way outlive ctx for a while, and no longer.
	answers, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastAnswers, abandon) })()
	go r.send(ctx, answers)

	var tick <-chan time.Time
	if o.Every > 0 {
		t := time.NewTicker(o.Every)
		defer t.Stop()
		tick = t.C
	}
	var failed error
	for open := true; open; {
		var one outcome
		select {
		case one, open = <-r.outcomes:
			if open && m.add(one) {
				enough()
				abandon()
			}
		case <-tick:
			if m.load.Settled {
				break
			}
			if err := m.report("it is still running"); err != nil && failed == nil {
				failed = err
				abandon()
			}
		}
	}
	if failed != nil {
		return failed
	}
	return m.finish()
}

// A measurement gathers outcomes until they settle the budgets.
type measurement struct {
	options Options
	tally   *tally
	load    result.Load
	planned int                     // rounds
	looks   []int                   // complete rounds after which the budgets are looked at
	write   func(result.Load) error // writes a report
}

func newMeasurement(o Options, arms []result.Arm, s schedule, write func(result.Load) error) *measurement {
	return &measurement{
		options: o, tally: newTally(s, o.Requests, o.Timeout), planned: s.measured, looks: judge.Looks(s.measured), write: write,
		load: result.Load{
			Header: result.Header{
				APIVersion: result.APIVersion, Kind: result.KindLoad, Probe: o.Version, Start: time.Now().UTC(), Arms: arms,
			},
			Seed: o.Seed, Rate: o.Rate, Turn: s.turn, Round: s.round().Seconds(), Timeout: o.Timeout.Seconds(),
			WarmUp: s.warmUp, Planned: s.measured, List: o.List,
		},
	}
}

// add counts an outcome, and returns whether it is the one that settles the budgets.
func (m *measurement) add(one outcome) (settles bool) {
	if m.load.Settled { // the rest counts as sent, and for no more
		m.load.Totals[one.arm].Sent++
		return false
	}
	m.tally.add(one)
	// The last look is for who reads the result.
	if len(m.options.Budgets) == 0 || len(m.looks) < 2 || m.tally.done() < m.looks[0] {
		return false
	}
	m.tally.fill(&m.load)
	m.load.Rounds = m.load.Rounds[:m.looks[0]]
	m.looks = m.looks[1:]
	j, err := judge.Load(m.load, m.options.Budgets)
	m.load.Settled = err == nil && j.Clear
	return m.load.Settled
}

// report reports what was measured so far, and why that is not all; empty if it is.
func (m *measurement) report(incomplete string) error {
	m.load.End, m.load.Incomplete = time.Now().UTC(), incomplete
	m.tally.fill(&m.load)
	return m.write(m.load)
}

// finish reports the result.
func (m *measurement) finish() error {
	if m.load.Settled {
		m.load.End, m.load.Incomplete = time.Now().UTC(), ""
		return m.write(m.load)
	}
	if n := len(m.tally.sealed); n < m.planned {
		return m.report(fmt.Sprintf("it was ended after %d of %d rounds", n, m.planned))
	}
	return m.report("")
}

// A run sends.
type run struct {
	Options
	schedule schedule
	keys     []string // by arm
	room     []chan struct{}
	outcomes chan outcome // closed when there are no more
}

// An outcome is what became of a request.
type outcome struct {
	slot
	late    time.Duration // by which it was sent too late
	latency time.Duration // from the time of its slot
	answer  request.Answer
	err     error
}

func (r *run) send(ctx, answers context.Context) {
	defer close(r.outcomes)
	var under sync.WaitGroup
	defer under.Wait()
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for s := range r.schedule.slots() {
		if s.first && s.round == r.schedule.warmUp {
			// What the warm-up left behind is none of the measurement's, and what was learned in it must be known.
			under.Wait()
			start = time.Now().Add(-s.at)
		}
		at := start.Add(s.at)
		timer.Reset(time.Until(at))
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-answers.Done():
		}
		if ctx.Err() != nil || answers.Err() != nil {
			return
		}
		if s.first {
			r.Client.Renew()
		}
		under.Go(func() { r.outcomes <- r.one(answers, s, at) })
	}
}

func (r *run) one(ctx context.Context, s slot, at time.Time) outcome {
	o := outcome{slot: s, late: time.Since(at)}
	ctx, cancel := context.WithDeadline(ctx, at.Add(r.Timeout))
	defer cancel()
	select {
	case r.room[s.arm] <- struct{}{}:
		o.answer, o.err = r.Client.Send(ctx, r.Requests[s.request], r.keys[s.arm], maxAnswer, false)
		<-r.room[s.arm]
	case <-ctx.Done():
		o.err = ctx.Err()
	}
	o.latency = time.Since(at)
	if errors.Is(o.err, context.DeadlineExceeded) {
		o.latency = r.Timeout
	}
	return o
}
