package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/cmd/sandbox-probe/request"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/judge"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
)

// lastAnswers is how long a run that ctx ended waits for the answers of requests under way.
const lastAnswers = 2 * time.Second

// Run measures, and reports what it has every o.Every and at the end, which is a look that settles o.Budgets or the last round. Where
// ctx ends it earlier, the last report holds the rounds that were complete by then, and says so. It fails only when report does.
func Run(ctx context.Context, o Options, report func(result.Load) error) error {
	arms, keys := o.arms()
	s := o.schedule()
	r := &run{Options: o, keys: keys, schedule: s, outcomes: make(chan outcome, 1024), room: make([]chan struct{}, len(arms))}
	for i := range r.room {
		r.room[i] = make(chan struct{}, inFlight)
	}
	tally := newTally(s, o.Requests, o.Timeout)
	l := result.Load{
		Header: result.Header{APIVersion: result.APIVersion, Kind: result.KindLoad, Probe: o.Version, Start: time.Now().UTC(), Arms: arms},
		Seed:   o.Seed, Rate: o.Rate, Turn: s.turn, Round: s.round().Seconds(), Timeout: o.Timeout.Seconds(), WarmUp: s.warmUp, Planned: s.measured, List: o.List,
	}
	say := func(incomplete string) error {
		l.End, l.Incomplete = time.Now().UTC(), incomplete
		tally.fill(&l)
		return report(l)
	}

	looks := judge.Looks(s.measured)
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
			if !open {
				break
			}
			if l.Settled { // the rest counts as sent, and for no more
				l.Totals[one.arm].Sent++
				break
			}
			tally.add(one)
			// The last look is for who reads the result.
			if len(o.Budgets) == 0 || len(looks) < 2 || tally.done() < looks[0] {
				break
			}
			tally.fill(&l)
			l.Rounds = l.Rounds[:looks[0]]
			looks = looks[1:]
			if j, err := judge.Load(l, o.Budgets); err == nil && j.Clear {
				l.Settled = true
				enough()
				abandon()
			}
		case <-tick:
			if l.Settled {
				break
			}
			if err := say("it is still running"); err != nil && failed == nil {
				failed = err
				abandon()
			}
		}
	}
	if failed != nil {
		return failed
	}
	if l.Settled {
		l.End, l.Incomplete = time.Now().UTC(), ""
		return report(l)
	}
	if n := len(tally.sealed); n < s.measured {
		return say(fmt.Sprintf("it was ended after %d of %d rounds", n, s.measured))
	}
	return say("")
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
