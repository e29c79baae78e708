package live

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/test/ordinary"
)

// Options say how a run goes.
type Options struct {
	Seed     uint64
	Duration time.Duration
	Lanes    int // sequences at a time
	Length   int // operations in a sequence
	// Shrink is how many shorter sequences may be tried for one that broke a promise.
	Shrink int
	// First are performed before any is drawn: those that broke a promise once.
	First []ordinary.Sequence
	// Shared says that others use the cluster.
	Shared bool
	Say    func(string, ...any)
}

// Run performs sequences until its time is over, and returns what it did and found. What it does after that is to shrink
// what it found.
func (c *Cluster) Run(ctx context.Context, o Options) (*ordinary.Summary, error) {
	r := &running{Cluster: c, options: o, summary: ordinary.NewSummary(o.Seed, o.Lanes), queue: o.First, generator: ordinary.NewGenerator(o.Seed)}
	r.generator.Shared = o.Shared
	start := time.Now()
	timed, cancel := context.WithTimeout(ctx, o.Duration)
	defer cancel()
	var lanes sync.WaitGroup
	for range o.Lanes {
		lanes.Go(func() { r.lane(timed) })
	}
	lanes.Wait()
	r.summary.Took = time.Since(start)
	for i := range r.summary.Found {
		if ctx.Err() == nil {
			r.shrink(ctx, &r.summary.Found[i])
		}
	}
	return r.summary, errors.Join(append(r.errs, ctx.Err())...)
}

type running struct {
	*Cluster
	options Options

	mu        sync.Mutex
	generator *ordinary.Generator
	queue     []ordinary.Sequence
	summary   *ordinary.Summary
	errs      []error
}

func (r *running) lane(ctx context.Context) {
	for ctx.Err() == nil {
		q := r.next()
		record, err := r.Play(ctx, q, r.options.Say)
		if !r.note(record, err) {
			return
		}
	}
}

// next returns the sequence that is performed next.
func (r *running) next() ordinary.Sequence {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) > 0 {
		q := r.queue[0]
		r.queue = r.queue[1:]
		return q
	}
	return r.generator.Draw(r.options.Length)
}

// note notes what became of a sequence, and says whether the run may go on.
func (r *running) note(record ordinary.Record, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(record.Steps) > 0 {
		r.summary.Add(record)
	}
	violations := ordinary.Judge(record)
	for _, v := range violations {
		r.options.Say("violation: %s (%s)", v, record.Steps[v.Step].Operation)
	}
	if len(violations) > 0 {
		// What comes after the first broken promise may follow from it.
		last := violations[0].Step
		violations = slices.DeleteFunc(violations, func(v ordinary.Violation) bool { return v.Step > last })
		name := fmt.Sprintf("seed-%d-%d", r.options.Seed, r.summary.Sequences)
		r.summary.Found = append(r.summary.Found, ordinary.Found{Name: name, Violations: violations, Sequence: slices.Clone(record.Sequence[:last+1])})
	}
	if err != nil {
		r.errs = append(r.errs, err)
	}
	return err == nil
}

// shrink performs shorter sequences, as long as they break the rule that was broken first.
func (r *running) shrink(ctx context.Context, f *ordinary.Found) {
	rule := f.Violations[0].Rule
	fails := func(q ordinary.Sequence) bool {
		if ctx.Err() != nil {
			return false
		}
		record, err := r.Play(ctx, q, func(string, ...any) {})
		found := slices.ContainsFunc(ordinary.Judge(record), func(v ordinary.Violation) bool { return v.Rule == rule })
		r.options.Say("shrinking %s: %d operations: broken %t, %v", f.Name, len(q), found, err)
		f.Again = f.Again || found
		return found
	}
	f.Sequence = ordinary.Shrink(f.Sequence, r.options.Shrink, fails)
}
