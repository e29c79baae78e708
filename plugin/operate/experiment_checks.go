package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/jobs"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// roomInterval is how long a check waits before it tries the namespace's quota again: others than the experiment may
// use it up.
const roomInterval = 10 * time.Second

// testAll runs the tests of all variants, up to Parallel variants at once. Then it runs the built-in checks, each
// for all variants at once and while nothing else runs, so that they do not disturb each other's measurements.
func (r *ExperimentRun) testAll(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, r.o.Parallel)
	var all sync.WaitGroup
	for i := range r.variants {
		all.Go(func() {
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			case <-ctx.Done():
				return
			}
			if err := r.test(ctx, &r.variants[i]); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	for _, kind := range []suite.Kind{suite.Contract, suite.Load} {
		for i := range r.o.Suite.Checks {
			if c := &r.o.Suite.Checks[i]; c.Probe != nil && c.Kind == kind {
				if err := r.compare(ctx, c); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// test runs the checks of one variant, one after the other, so that the routers' counts for its key belong to one
// check.
func (r *ExperimentRun) test(ctx context.Context, v *suite.Variant) error {
	if r.done(v) {
		return nil
	}
	if err := cluster.Retry(ctx, func() error { return r.ready(ctx, v) }); err != nil {
		var p *plan.Problem
		if ctx.Err() != nil || cluster.IsTransient(err) || !errors.As(err, &p) {
			return err
		}
		return r.record(ctx, func(rep *experiment.Report) {
			rep.Variant(v.Name).Verdict = experiment.NotForkedVerdict(p)
		})
	}
	r.mu.Lock()
	r.kept.Report.Variant(v.Name).Verdict = experiment.Verdict{} // it may not have been forked before
	r.mu.Unlock()
	for i := range r.o.Suite.Checks {
		if r.o.Suite.Checks[i].Probe != nil {
			continue
		}
		if err := r.check(ctx, v, &r.o.Suite.Checks[i]); err != nil {
			return err
		}
	}
	return nil
}

// compare runs a built-in check of all existing variants.
func (r *ExperimentRun) compare(ctx context.Context, c *suite.Check) error {
	var variants []suite.Variant
	var sandboxes []string
	done := true
	r.mu.Lock()
	for _, v := range r.variants {
		if vr := r.kept.Report.Variant(v.Name); !vr.Forked() {
			continue
		} else if !vr.Result(c.Name).Done() {
			done = false
		}
		variants, sandboxes = append(variants, v), append(sandboxes, v.Sandbox)
	}
	r.mu.Unlock()
	if done {
		return nil // or there is none
	}
	var err error
	if r.probes.Carriers, err = r.e.Read.KeyCarriers(ctx, sandboxes[0]); err != nil {
		return err
	}
	baseline := sandbox.NewKey()
	job, err := suite.ProbeJob(r.run, c, r.probes, r.services[c.Name][0], variants, baseline)
	if err != nil {
		return err
	}
	r.report("%s of %d variants", c.Name, len(variants))
	var window experiment.Window
	var seen []*experiment.Evidence
	var printed io.Reader
	var log []string
	full, err := r.retryOnQuota(ctx, r.checkJob(c, job, c.Name), func(job jobs.CheckJob) (err error) {
		window.Began = time.Now().UTC().Truncate(time.Millisecond)
		seen, printed, log, err = r.e.Checks.Compare(ctx, r.kept, variants, baseline, job)
		return err
	})
	if err != nil {
		return err
	}
	if full != nil {
		return r.record(ctx, func(rep *experiment.Report) {
			for _, v := range variants {
				result := rep.Variant(v.Name).Result(c.Name)
				result.Window, result.Verdict = window, experiment.QuotaVerdict(full)
			}
		})
	}
	window.Ended = time.Now().UTC().Truncate(time.Millisecond)
	found := experiment.ReadComparison(c, variants, printed)
	return r.record(ctx, func(rep *experiment.Report) {
		for i, v := range variants {
			vr, e := rep.Variant(v.Name), seen[i]
			result := vr.Result(c.Name)
			result.Window, result.Job, result.Log = window, job.Name, log
			e.Sent = found.Sent(v.Name)
			if c.Kind == suite.Load {
				result.Bystanders = experiment.Bystanders(e, len(variants), experiment.BystanderMargin)
			}
			result.Record(e, experiment.JudgeComparison(found, v.Name, e, result.Bystanders))
			vr.Describe(result, &e.After)
		}
		found.Fill(rep, c.Name, variants)
	})
}

func (r *ExperimentRun) done(v *suite.Variant) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	results := r.kept.Report.Variant(v.Name).Results
	return !slices.ContainsFunc(results, func(x experiment.Result) bool { return !x.Done() })
}

func (r *ExperimentRun) check(ctx context.Context, v *suite.Variant, c *suite.Check) error {
	r.mu.Lock()
	done := r.kept.Report.Variant(v.Name).Result(c.Name).Done()
	r.mu.Unlock()
	if done {
		return nil
	}
	if c.Kind == suite.Load {
		r.exclusive.Lock()
		defer r.exclusive.Unlock()
	} else {
		r.exclusive.RLock()
		defer r.exclusive.RUnlock()
	}
	r.report("%s: %s", v.Name, c.Name)
	job := suite.Job(r.run, v, c, r.services[c.Name])
	var window experiment.Window
	var evidence *experiment.Evidence
	var log []string
	full, err := r.retryOnQuota(ctx, r.checkJob(c, job, v.Name+": "+c.Name), func(job jobs.CheckJob) (err error) {
		window.Began = time.Now().UTC().Truncate(time.Millisecond)
		evidence, log, err = r.e.Checks.Check(ctx, r.kept, v, job)
		return err
	})
	if err != nil {
		return err
	}
	if full != nil {
		return r.record(ctx, func(rep *experiment.Report) {
			result := rep.Variant(v.Name).Result(c.Name)
			result.Window, result.Verdict = window, experiment.QuotaVerdict(full)
		})
	}
	window.Ended = time.Now().UTC().Truncate(time.Millisecond)
	return r.record(ctx, func(rep *experiment.Report) {
		vr := rep.Variant(v.Name)
		result := vr.Result(c.Name)
		result.Window, result.Job, result.Log = window, job.Name, log
		result.Record(evidence, experiment.Judge(evidence))
		vr.Describe(result, &evidence.After)
	})
}

// record changes the report, and saves it.
func (r *ExperimentRun) record(ctx context.Context, change func(*experiment.Report)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r.kept.Report)
	r.kept.Report.Conclude()
	close(r.ended)
	r.ended = make(chan struct{})
	return r.e.Store.SaveReport(context.WithoutCancel(ctx), r.kept)
}

// checkJob returns the Job of a check, which shows what it waits for before its test runs.
func (r *ExperimentRun) checkJob(c *suite.Check, job *batchv1.Job, what string) jobs.CheckJob {
	said := ""
	return jobs.CheckJob{Job: job, Limits: c.Limits(r.run), Waits: func(wait string) {
		if wait == said {
			return
		}
		said = wait
		r.report("%s", strings.TrimSuffix(what+": "+wait, ": "))
	}}
}

// retryOnQuota runs a check. While the namespace's quota has no room for it, it tries again whenever another check
// has ended, and periodically. It gives up, and returns the error as full, if no check has ended for as long as this
// one may take.
func (r *ExperimentRun) retryOnQuota(
	ctx context.Context, job jobs.CheckJob, check func(jobs.CheckJob) error,
) (full *jobs.QuotaError, err error) {
	for since := time.Now(); ; {
		r.mu.Lock()
		ended := r.ended
		r.mu.Unlock()
		err := check(job)
		if !errors.As(err, &full) {
			return nil, err
		}
		if time.Since(since) > job.Limits.QuotaWait() {
			return full, nil
		}
		r.report("%s waits for room in the namespace's quota", job.Job.Name)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ended:
			since = time.Now()
		case <-time.After(roomInterval):
		}
	}
}

// ready makes sure that the variant's forks exist and are routed.
func (r *ExperimentRun) ready(ctx context.Context, v *suite.Variant) error {
	if len(r.o.Images) == 0 {
		return nil // the evidence says whether it is
	}
	r.exclusive.RLock() // what starts costs what a check of load would measure
	defer r.exclusive.RUnlock()
	r.report("%s: forking", v.Name)
	if r.o.Route {
		r.routing.Lock()
		defer r.routing.Unlock()
	}
	done, err := r.e.Fork.Run(ctx, r.forkOf(v))
	if done != nil {
		v.Key = done.Plan.Key
	}
	return err
}

// forkOf returns the fork that creates a variant.
func (r *ExperimentRun) forkOf(v *suite.Variant) ForkOptions {
	i := slices.IndexFunc(r.o.Images, func(o VariantImage) bool { return o.Name == v.Name })
	return ForkOptions{
		Workloads: r.o.Args, Wait: true, Timeout: r.o.Timeout, RouteTimeout: r.o.Timeout,
		Labels: map[string]string{sandbox.LabelRun: r.o.ID},
		Change: forks.Options{
			Sandbox: v.Sandbox, Images: []forks.ImageChange{r.o.Images[i].Image}, TTL: &r.o.TTL, Route: r.o.Route,
			NewKey: sandbox.NewKey(), Now: time.Now(),
		},
	}
}

// report reports how many checks are done, and what is done now.
func (r *ExperimentRun) report(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	done, all := 0, 0
	for _, v := range r.kept.Report.Variants {
		for _, x := range v.Results {
			all++
			if x.Done() {
				done++
			}
		}
	}
	r.e.Report.Waiting(fmt.Sprintf("%d of %d done; ", done, all) + fmt.Sprintf(format, args...))
}
