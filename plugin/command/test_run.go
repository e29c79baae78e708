package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/report"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// roomInterval is how long a check waits, before it looks again for room in the namespace's quota: what takes it may not be the
// experiment's.
const roomInterval = 10 * time.Second

// A testRun is one experiment while it runs.
type testRun struct {
	*testFlags
	client   *cluster.Client
	run      *experiment.Run
	variants []experiment.Variant
	probes   experiment.Probes            // where the suite has built-in checks
	services map[string][]sandbox.Service // of each check
	show     *progress

	routing sync.Mutex   // held while a variant is forked that may have to route the workload first
	alone   sync.RWMutex // held for writing by a check of load, for reading by others

	mu    sync.Mutex // of what follows
	kept  *cluster.Experiment
	ended chan struct{} // closed, and made anew, when a check has
}

func (f *testFlags) run(ctx context.Context) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	r := &testRun{
		testFlags: f, client: c, services: map[string][]sandbox.Service{}, show: newProgress(f.ErrOut),
		run: &experiment.Run{ID: f.id, Namespace: c.Namespace, Timeout: f.timeout}, ended: make(chan struct{}),
	}
	for _, o := range r.outputs {
		if err := o.writable(); err != nil {
			return err
		}
	}
	if err := r.prepare(ctx); err != nil {
		return err
	}
	if err := r.begin(ctx); err != nil {
		return err
	}
	if !r.wait {
		return r.dispatch(ctx)
	}
	err = r.held(ctx, r.testAll)
	r.show.end()
	if err != nil {
		return r.abandon(ctx, err)
	}
	return r.finish(ctx)
}

// held runs what may run only while this client is the one that runs the experiment.
func (r *testRun) held(ctx context.Context, run func(context.Context) error) error {
	running, stop := context.WithCancelCause(ctx)
	var holding sync.WaitGroup
	holding.Go(func() {
		if err := r.client.Hold(running, r.kept); err != nil {
			stop(err)
		}
	})
	err := run(running)
	if cause := context.Cause(running); cause != nil && ctx.Err() == nil {
		err = cause
	}
	stop(nil)
	holding.Wait()
	return err
}

// prepare finds what is to be tested, and by what, before anything is written.
func (r *testRun) prepare(ctx context.Context) error {
	if err := r.readCronJobs(ctx, r); err != nil {
		return err
	}
	for i := range r.checks {
		if err := r.findServices(ctx, &r.checks[i]); err != nil {
			return err
		}
	}
	if err := r.findProbes(ctx); err != nil {
		return err
	}
	for _, v := range r.images {
		r.variants = append(r.variants, experiment.Variant{Name: v.name, Sandbox: r.sandboxOf(v.name)})
	}
	if len(r.images) > 0 {
		// What keeps a workload from being forked keeps it from it in each variant.
		f := r.forkOf(&r.variants[0])
		f.dryRun = cmdutil.DryRunClient
		_, err := f.plan(ctx, r.client)
		return err
	}
	found, missing, err := r.client.SandboxesNamed(ctx, r.args)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return plan.NoSandbox(missing[0], r.client.Namespace)
	}
	for _, name := range r.args {
		i := slices.IndexFunc(found, func(s plan.Sandbox) bool { return s.Name == name })
		r.variants = append(r.variants, experiment.Variant{Name: name, Sandbox: name, Key: found[i].Key})
	}
	return nil
}

// findProbes asks what the cluster has of built-in checks, and whether it lets them do what the suite asks for.
func (r *testRun) findProbes(ctx context.Context) (err error) {
	i := slices.IndexFunc(r.checks, func(c experiment.Check) bool { return c.Probe != nil })
	if i < 0 {
		return nil
	}
	if r.probes, err = r.client.Probes(ctx); err != nil {
		return err
	}
	for i := range r.checks {
		if c := &r.checks[i]; c.Probe != nil {
			if _, err := experiment.ProbeJob(r.run, c, r.probes, r.services[c.Name][0], nil, ""); err != nil {
				return &plan.Problem{What: err.Error(), Err: err}
			}
		}
	}
	return nil
}

// findServices finds what a check tests.
func (r *testRun) findServices(ctx context.Context, c *experiment.Check) error {
	var refs []plan.ServiceRef
	for _, s := range c.Services {
		ref, err := plan.ParseServiceRef("svc/"+s.String(), r.client.Namespace)
		if err != nil {
			return &plan.Problem{What: fmt.Sprintf("%s: annotation %s: %v", c.Source, sandbox.AnnotationServices, err)}
		}
		refs = append(refs, ref)
	}
	switch {
	case len(refs) > 0:
	case r.entry != "":
		ref, err := plan.ParseServiceRef(r.entry, r.client.Namespace)
		if err != nil {
			return &plan.Problem{What: "--entry: " + err.Error()}
		}
		refs = append(refs, ref)
	default:
		entry, err := r.client.Entry(ctx, nil)
		if err != nil {
			var p *plan.Problem
			if errors.As(err, &p) { // which names the Services, and would have one named another way
				return &plan.Problem{What: p.What + "; name the one to test by --entry=svc/SERVICE, or by annotation " + sandbox.AnnotationServices}
			}
			return err
		}
		refs = append(refs, entry.Service)
	}
	for _, ref := range refs {
		s, err := r.client.CheckService(ctx, ref)
		if err != nil {
			return err
		}
		r.services[c.Name] = append(r.services[c.Name], s)
	}
	return nil
}

// begin writes the experiment down, or goes on with the one of its ID.
func (r *testRun) begin(ctx context.Context) error {
	fresh := experiment.NewReport(r.run, r.require, r.checks, r.variants, len(r.images) > 0)
	fresh.Version, fresh.Reproduce = r.version, r.command
	fresh.Window.Began = time.Now().UTC().Truncate(time.Millisecond)
	var expires time.Time
	if r.ttl > 0 {
		expires = fresh.Window.Began.Add(r.ttl)
	}
	kept, err := r.client.BeginExperiment(ctx, fresh, r.asked(), expires, r.wait)
	if err != nil {
		return err
	}
	r.kept, r.run.UID = kept, kept.ConfigMap.UID
	if !kept.Began {
		fmt.Fprintf(r.ErrOut, "experiment %s goes on where it was broken off\n", r.id)
	}
	return nil
}

// testAll runs the tests of all variants, so many variants at the same time as may be, and then the built-in checks, each of all
// variants at once and while nothing else runs: what one measures is not to be what another one costs.
func (r *testRun) testAll(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, r.parallel)
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
	for _, kind := range []experiment.Kind{experiment.Contract, experiment.Load} {
		for i := range r.checks {
			if c := &r.checks[i]; c.Probe != nil && c.Kind == kind {
				if err := r.compare(ctx, c); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// test runs the checks of one variant, one after the other: what the routers count for its key is then of one check.
func (r *testRun) test(ctx context.Context, v *experiment.Variant) error {
	if r.done(v) {
		return nil
	}
	if err := r.ready(ctx, v); err != nil {
		var p *plan.Problem
		if ctx.Err() != nil || !errors.As(err, &p) {
			return err
		}
		return r.record(ctx, func(rep *experiment.Report) { rep.Variant(v.Name).Verdict = experiment.NotForkedVerdict(p) })
	}
	r.mu.Lock()
	r.kept.Report.Variant(v.Name).Verdict = experiment.Verdict{} // it may not have been forked before
	r.mu.Unlock()
	for i := range r.checks {
		if r.checks[i].Probe != nil {
			continue
		}
		if err := r.check(ctx, v, &r.checks[i]); err != nil {
			return err
		}
	}
	return nil
}

// compare runs a built-in check of all variants that are there.
func (r *testRun) compare(ctx context.Context, c *experiment.Check) error {
	var variants []experiment.Variant
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
	if r.probes.Carriers, err = r.client.KeyCarriers(ctx, sandboxes[0]); err != nil {
		return err
	}
	baseline := sandbox.NewKey()
	job, err := experiment.ProbeJob(r.run, c, r.probes, r.services[c.Name][0], variants, baseline)
	if err != nil {
		return err
	}
	r.say("%s of %d variants", c.Name, len(variants))
	var window experiment.Window
	var seen []*experiment.Evidence
	var printed io.Reader
	var log []string
	full, err := r.whereRoom(ctx, job, func() (err error) {
		window.Began = time.Now().UTC().Truncate(time.Millisecond)
		seen, printed, log, err = r.client.Compare(ctx, r.kept, variants, baseline, job)
		return err
	})
	if err != nil {
		return err
	}
	if full != nil {
		return r.record(ctx, func(rep *experiment.Report) {
			for _, v := range variants {
				result := rep.Variant(v.Name).Result(c.Name)
				result.Window, result.Verdict = window, experiment.NotRunVerdict(full)
			}
		})
	}
	window.Ended = time.Now().UTC().Truncate(time.Millisecond)
	found := experiment.ReadCompared(c, variants, printed)
	return r.record(ctx, func(rep *experiment.Report) {
		for i, v := range variants {
			vr, e := rep.Variant(v.Name), seen[i]
			result := vr.Result(c.Name)
			result.Window, result.Job, result.Log = window, job.Name, log
			e.Sent = found.Sent(v.Name)
			if c.Kind == experiment.Load {
				result.Bystanders = experiment.Bystanders(e, len(variants), experiment.BystanderMargin)
			}
			result.Record(e, found.Judge(v.Name, e, result.Bystanders))
			vr.Describe(result, &e.After)
		}
		found.Fill(rep, c.Name, variants)
	})
}

func (r *testRun) done(v *experiment.Variant) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !slices.ContainsFunc(r.kept.Report.Variant(v.Name).Results, func(x experiment.Result) bool { return !x.Done() })
}

func (r *testRun) check(ctx context.Context, v *experiment.Variant, c *experiment.Check) error {
	r.mu.Lock()
	done := r.kept.Report.Variant(v.Name).Result(c.Name).Done()
	r.mu.Unlock()
	if done {
		return nil
	}
	if c.Kind == experiment.Load {
		r.alone.Lock()
		defer r.alone.Unlock()
	} else {
		r.alone.RLock()
		defer r.alone.RUnlock()
	}
	r.say("%s: %s", v.Name, c.Name)
	job := experiment.Job(r.run, v, c, r.services[c.Name])
	var window experiment.Window
	var evidence *experiment.Evidence
	var log []string
	full, err := r.whereRoom(ctx, job, func() (err error) {
		window.Began = time.Now().UTC().Truncate(time.Millisecond)
		evidence, log, err = r.client.Check(ctx, r.kept, v, job)
		return err
	})
	if err != nil {
		return err
	}
	if full != nil {
		return r.record(ctx, func(rep *experiment.Report) {
			result := rep.Variant(v.Name).Result(c.Name)
			result.Window, result.Verdict = window, experiment.NotRunVerdict(full)
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

// record changes the report, and writes it down.
func (r *testRun) record(ctx context.Context, change func(*experiment.Report)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r.kept.Report)
	r.kept.Report.Conclude()
	close(r.ended)
	r.ended = make(chan struct{})
	return r.client.SaveReport(context.WithoutCancel(ctx), r.kept)
}

// whereRoom runs a check. While the namespace's quota has no room for it, it tries again whenever another one has ended, and now and
// then; it gives up, as full says, when none has for as long as the check may take.
func (r *testRun) whereRoom(ctx context.Context, job *batchv1.Job, check func() error) (full *cluster.NoRoom, err error) {
	for since := time.Now(); ; {
		r.mu.Lock()
		ended := r.ended
		r.mu.Unlock()
		err := check()
		if !errors.As(err, &full) {
			return nil, err
		}
		if time.Since(since) > experiment.Deadline(job) {
			return full, nil
		}
		r.say("%s waits for room in the namespace's quota", job.Name)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-ended:
			since = time.Now()
		case <-time.After(roomInterval):
		}
	}
}

// ready has the variant's forks there and routed.
func (r *testRun) ready(ctx context.Context, v *experiment.Variant) error {
	if len(r.images) == 0 {
		return nil // the evidence says whether it is
	}
	r.alone.RLock() // what starts costs what a check of load would measure
	defer r.alone.RUnlock()
	r.say("%s: forking", v.Name)
	if r.route {
		r.routing.Lock()
		defer r.routing.Unlock()
	}
	f := r.forkOf(v)
	for try := 1; ; try++ {
		p, err := f.plan(ctx, r.client)
		if err != nil {
			return err
		}
		if p.ConfigMap.Labels == nil {
			p.ConfigMap.Labels = map[string]string{}
		}
		p.ConfigMap.Labels[sandbox.LabelRun] = r.id
		applied, err := r.client.ApplyFork(ctx, p, false)
		if cluster.IsStale(err) && try < maxPlans {
			continue
		}
		if err != nil {
			return err
		}
		v.Key = p.Key
		_, err = f.await(ctx, r.client, p, applied)
		return err
	}
}

// forkOf is the fork that makes a variant.
func (r *testRun) forkOf(v *experiment.Variant) *forkFlags {
	quiet := *r.tool // several at once would write over each other
	quiet.ErrOut = io.Discard
	i := slices.IndexFunc(r.images, func(o variantImage) bool { return o.name == v.Name })
	return &forkFlags{
		tool: &quiet, workloads: r.args, timeout: r.timeout, timeoutGiven: true, begun: time.Now(),
		options: plan.ForkOptions{
			Sandbox: v.Sandbox, Images: []plan.ImageChange{r.images[i].image}, TTL: &r.ttl, Route: r.route,
			NewKey: sandbox.NewKey(), Now: time.Now(),
		},
	}
}

func (r *testRun) say(format string, args ...any) {
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
	r.show.say(fmt.Sprintf("%d of %d done; ", done, all) + fmt.Sprintf(format, args...))
}

// abandon ends an experiment that did not come to its end. What it has found so far is kept, where it has found anything, for the same
// command to go on from; of one that was interrupted, or has found nothing, nothing stays. What another command began is not this one's
// to take away.
func (r *testRun) abandon(ctx context.Context, cause error) error {
	if errors.Is(cause, cluster.ErrNotHolder) {
		return cause
	}
	interrupted := ctx.Err() != nil
	if interrupted {
		cause = errors.New("interrupted")
	}
	what := "experiment " + r.id + ": " + cause.Error()
	if !r.kept.Began || r.unattended || !interrupted && r.kept.Report.Found() {
		if r.wait {
			r.client.Release(ctx, r.kept)
		}
		return &plan.Problem{
			What: what + "; what it found so far is kept", Err: cause,
			Say: "go on with it", Fix: append(slices.Clone(r.command), "--id="+r.id),
		}
	}
	var made []string
	for _, v := range r.variants {
		if len(r.images) > 0 {
			made = append(made, v.Sandbox)
		}
	}
	left := r.client.AbandonExperiment(ctx, r.kept, made)
	if len(left) == 0 {
		return &plan.Problem{What: what + "; nothing of it is left", Err: cause}
	}
	return &plan.Problem{
		What: what + "; still there: " + strings.Join(left, ", "), Err: cause,
		Say: "delete it", Fix: plan.Kubectl(append([]string{"delete"}, left...)...),
	}
}

// finish tells what was found, keeps it, and deletes what is not wanted any more.
func (r *testRun) finish(ctx context.Context) error {
	rep := r.kept.Report
	rep.Window.Ended = time.Now().UTC().Truncate(time.Millisecond)
	rep.Conclude()
	kept, printed := r.client.SaveReport(ctx, r.kept), r.print(rep)
	if err := errors.Join(printed, kept); err != nil {
		return err // and nothing is deleted: it may be all that is left of what was found
	}
	var doomed []string
	switch r.delete {
	case deleteLosers:
		doomed = rep.Losers()
	case deleteAll:
		for _, v := range rep.Variants {
			if v.Made {
				doomed = append(doomed, v.Sandbox)
			}
		}
	}
	if left := r.client.DeleteMade(ctx, r.id, doomed); len(left) > 0 {
		r.warn("--delete=%s: still there: %s", r.delete, strings.Join(left, ", "))
	}
	return exitOf(rep.Outcome)
}

// print prints the report, and writes those that are asked for.
func (f *testFlags) print(rep *experiment.Report) error {
	format := report.Text
	if f.output == "json" {
		format = report.JSON
	}
	errs := []error{report.Write(f.Out, format, rep)}
	for _, o := range f.outputs {
		errs = append(errs, o.write(rep))
	}
	return errors.Join(errs...)
}

// writable says whether the file can be written, before anything is done whose result would have nowhere to go.
func (o reportFile) writable() error {
	_, missing := os.Lstat(o.file)
	file, err := os.OpenFile(o.file, os.O_WRONLY|os.O_CREATE, 0o666)
	if err != nil {
		return o.problem(err)
	}
	err = file.Close()
	if os.IsNotExist(missing) {
		err = errors.Join(err, os.Remove(o.file))
	}
	return o.problem(err)
}

func (o reportFile) write(rep *experiment.Report) error {
	file, err := os.Create(o.file)
	if err == nil {
		err = errors.Join(report.Write(file, o.format, rep), file.Close())
	}
	return o.problem(err)
}

func (o reportFile) problem(err error) error {
	if err == nil {
		return nil
	}
	return &plan.Problem{What: fmt.Sprintf("--report=%s: %v", o.format, err), Err: err}
}
