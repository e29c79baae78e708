package jobs

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
)

const (
	// jobInterval is the time between two looks at a Job that has ended, until its routers have said what they sent.
	jobInterval   = 500 * time.Millisecond
	stateInterval = 3 * time.Second // between two looks at the sandboxes that it tests
	reportTimeout = 5 * time.Second // for the kubelet to report the end of a router after that of its Job

	// stopTimeout bounds the wait for a Job that this client stopped: its pods have their grace period.
	stopTimeout = time.Minute

	maxPrinted = 64 << 20 // bytes of a built-in check's output: by default, kubelets keep less of a log
)

// A CheckJob is the Job of a check to run.
type CheckJob struct {
	Job    *batchv1.Job
	Limits suite.Limits
	Waits  func(string) // is called again and again with what it waits for; empty: for its test
}

// Check runs the Job of a variant's check until it ends. It returns the evidence, and the end of the failed test's
// log. The error may be a *QuotaError. Any other error is of the client, of the caller's rights, or ctx's; then the
// Job is left as it is.
func (c *Experiments) Check(
	ctx context.Context,
	x *Experiment,
	v *suite.Variant,
	job CheckJob,
) (*experiment.Evidence, []string, error) {
	all, w, err := c.runJob(ctx, x, []suite.Variant{*v}, "", job)
	if err != nil {
		return nil, nil, err
	}
	e, log := all[0], []string(nil)
	if w != nil {
		e.Sent = w.sent()
		if !e.Job.Complete {
			log = w.log(ctx)
		}
	}
	return e, log, nil
}

// Compare runs the Job of a built-in check of all variants, and of the baseline by a key of its own, until it ends.
// It returns the evidence for each variant, all output of the probe and, if that failed, the end of the output for
// people. Its error is that of Check.
func (c *Experiments) Compare(
	ctx context.Context, x *Experiment, variants []suite.Variant, baseline string, job CheckJob,
) (all []*experiment.Evidence, printed io.Reader, log []string, err error) {
	all, w, err := c.runJob(ctx, x, variants, baseline, job)
	if err != nil {
		return nil, nil, nil, err
	}
	printed = strings.NewReader("")
	if w == nil {
		return all, printed, nil, nil
	}
	if !all[0].Job.Complete {
		log = w.log(ctx)
	}
	for _, p := range w.sorted() {
		limit := int64(maxPrinted)
		b, err := c.Kube.CoreV1().
			Pods(p.Namespace).
			GetLogs(p.Name, &corev1.PodLogOptions{Container: p.Spec.Containers[0].Name, LimitBytes: &limit}).
			DoRaw(ctx)
		switch {
		case ctx.Err() != nil:
			return nil, nil, nil, ctx.Err()
		case apierrors.IsForbidden(err):
			return nil, nil, nil, cluster.Explain(err) // who may not read logs can't have any built-in check
		case err == nil:
			printed = bytes.NewReader(b)
		}
	}
	return all, printed, log, nil
}

// A window records the variants' states from before a check's Job is created until after it has ended.
type window struct {
	client    *Experiments
	sandboxes []string
	all       []*experiment.Evidence // by variant
}

// look records the current state of the variants. keep, if not nil, receives the state of each.
func (w *window) look(ctx context.Context, exact bool, keep func(*experiment.Evidence, experiment.State)) error {
	var states []experiment.State
	err := cluster.Retry(ctx, func() (err error) { states, err = w.client.observe(ctx, w.sandboxes, exact); return err })
	if err != nil {
		return err
	}
	for i, state := range states {
		w.all[i].Seen.See(&state)
		if keep != nil {
			keep(w.all[i], state)
		}
	}
	return nil
}

// runJob runs a Job until it ends. It returns the Job's watch, and the evidence for each variant from before the Job
// was created until after it ended. The jobWatch is nil if the Job could not be created. baseline is the key of the
// requests to the baseline; it may be empty.
func (c *Experiments) runJob(
	ctx context.Context, x *Experiment, variants []suite.Variant, baseline string, job CheckJob,
) ([]*experiment.Evidence, *jobWatch, error) {
	var keys []string
	if baseline != "" {
		keys = append(keys, baseline)
	}
	seen := &window{client: c}
	for _, v := range variants {
		keys, seen.sandboxes = append(keys, v.Key), append(seen.sandboxes, v.Sandbox)
		seen.all = append(seen.all, &experiment.Evidence{})
	}
	if err := c.ObserveKeys(ctx, x, keys); err != nil {
		return nil, nil, err
	}
	passed, _, _, known := c.Observed(ctx, x)
	if err := seen.look(ctx, true, func(e *experiment.Evidence, s experiment.State) { e.Before = s }); err != nil {
		return nil, nil, err
	}
	made, err := c.createJob(ctx, job.Job)
	if err != nil {
		switch {
		case ctx.Err() != nil:
			return nil, nil, ctx.Err()
		case cluster.IsTransient(err):
			return nil, nil, err
		case overQuota(err.Error()):
			return nil, nil, &QuotaError{err.Error()}
		}
		for _, e := range seen.all {
			e.Job, e.After = experiment.NotCreated(err.Error()), e.Before
		}
		return seen.all, nil, nil
	}
	w := &jobWatch{
		client:     c,
		job:        made,
		pods:       map[types.UID]corev1.Pod{},
		watch:      experiment.JobWatch{Limits: job.Limits},
		reportWait: job.Waits,
	}
	if err := w.waitEnd(ctx, func() error { return seen.look(ctx, false, nil) }); err != nil {
		return nil, nil, err
	}
	if err := seen.look(ctx, true, func(e *experiment.Evidence, s experiment.State) { e.After = s }); err != nil {
		return nil, nil, err
	}
	after, missing, ended, ok := c.Observed(ctx, x)
	if err := ctx.Err(); err != nil {
		return nil, nil, err // what was not counted for it is no doubt
	}
	for i, v := range variants {
		e := seen.all[i]
		e.Job = w.end()
		e.After.Ended = append(slices.Clip(e.After.Ended), ended...)
		if known && ok {
			e.Passed, e.PassedMissing = experiment.PassedIn(passed, after, v.Key), missing
			e.Baseline = experiment.PassedIn(passed, after, baseline)
		}
	}
	return seen.all, w, nil
}
