package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	cmdutil "k8s.io/kubectl/pkg/cmd/util"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A testRun is one run of an experiment.
type testRun struct {
	*testFlags
	client   *cluster.Client
	run      *experiment.Run
	variants []experiment.Variant
	probes   experiment.Probes            // where the suite has built-in checks
	services map[string][]sandbox.Service // of each check
	show     *progress

	routing   sync.Mutex   // held while a variant is forked that may have to route the workload first
	exclusive sync.RWMutex // held for writing by a check of load, for reading by others

	mu    sync.Mutex // of what follows
	kept  *cluster.Experiment
	ended chan struct{} // closed, and replaced, when a check has ended
}

func (f *testFlags) run(ctx context.Context) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	r := &testRun{
		testFlags: f, client: c, services: map[string][]sandbox.Service{}, show: f.progress(),
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
	if !r.unattended { // else whoever dispatched it has created them, by rights that the Job need not have
		if err := r.client.CreateObjects(ctx, experiment.Place(r.run, r.run.Objects)); err != nil {
			return r.abandon(ctx, err)
		}
	}
	if !r.wait {
		return r.dispatch(ctx)
	}
	err = r.withHeartbeats(ctx, r.testAll)
	r.show.end()
	if err != nil {
		return r.abandon(ctx, err)
	}
	return r.finish(ctx)
}

// withHeartbeats calls run, which may only run while this client holds the experiment, and sends the holder's
// heartbeats meanwhile.
func (r *testRun) withHeartbeats(ctx context.Context, run func(context.Context) error) error {
	running, stop := context.WithCancelCause(ctx)
	var holding sync.WaitGroup
	holding.Go(func() {
		if err := r.client.SendHeartbeats(running, r.kept); err != nil {
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

// prepare finds what to test, and how, before anything is written.
func (r *testRun) prepare(ctx context.Context) error {
	if err := r.readCronJobs(ctx, r); err != nil {
		return err
	}
	for i := range r.suite.Checks {
		if err := r.findServices(ctx, &r.suite.Checks[i]); err != nil {
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
		// What prevents forking a workload prevents it for each variant.
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
		i := slices.IndexFunc(found, func(s sandboxes.Sandbox) bool { return s.Name == name })
		r.variants = append(r.variants, experiment.Variant{Name: name, Sandbox: name, Key: found[i].Key})
	}
	return nil
}

// findProbes reads the cluster's settings for built-in checks, and whether they allow what the suite requests.
func (r *testRun) findProbes(ctx context.Context) (err error) {
	i := slices.IndexFunc(r.suite.Checks, func(c experiment.Check) bool { return c.Probe != nil })
	if i < 0 {
		return nil
	}
	if r.probes, err = r.client.Probes(ctx); err != nil {
		return err
	}
	for i := range r.suite.Checks {
		if c := &r.suite.Checks[i]; c.Probe != nil {
			if _, err := experiment.ProbeJob(r.run, c, r.probes, r.services[c.Name][0], nil, ""); err != nil {
				return &plan.Problem{What: err.Error(), Err: err}
			}
		}
	}
	return nil
}

// findServices finds the Services that a check tests.
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

// begin creates the experiment, or resumes the one with its ID.
func (r *testRun) begin(ctx context.Context) error {
	fresh := experiment.NewReport(r.run, r.require, r.suite.Checks, r.variants, len(r.images) > 0)
	fresh.Version, fresh.Reproduce = r.version, r.command
	fresh.Window.Began = time.Now().UTC().Truncate(time.Millisecond)
	var expires time.Time
	if r.ttl > 0 {
		expires = fresh.Window.Began.Add(r.ttl)
	}
	kept, err := r.client.StartExperiment(ctx, fresh, r.spec(), expires, r.wait)
	if err != nil {
		return err
	}
	r.kept, r.run.UID = kept, kept.ConfigMap.UID
	if !kept.Began {
		fmt.Fprintf(r.ErrOut, "experiment %s resumes where it was interrupted\n", r.id)
	}
	return nil
}

// abandon ends an experiment early. It keeps the experiment for a later command to resume if an earlier command began
// it, if it runs unattended, or if it failed with results. Otherwise it deletes the experiment and the sandboxes that
// it created.
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
			Hint: "resume it", Fix: append(slices.Clone(r.command), "--id="+r.id),
		}
	}
	var made []string
	for _, v := range r.variants {
		if len(r.images) > 0 {
			made = append(made, v.Sandbox)
		}
	}
	left, err := r.client.AbandonExperiment(ctx, r.kept, made)
	if err != nil {
		return err
	}
	if len(left) == 0 {
		return &plan.Problem{What: what + "; nothing of it is left", Err: cause}
	}
	return &plan.Problem{
		What: what + "; still there: " + strings.Join(left, ", "), Err: cause,
		Hint: "delete it", Fix: plan.Kubectl(append([]string{"delete"}, left...)...),
	}
}

// finish prints and saves the result, and deletes the sandboxes that --delete selects.
func (r *testRun) finish(ctx context.Context) error {
	rep := r.kept.Report
	rep.Window.Ended = time.Now().UTC().Truncate(time.Millisecond)
	rep.Conclude()
	kept, printed := r.client.SaveReport(ctx, r.kept), r.print(rep)
	if kept != nil { // the sandboxes may be all that is left of what was found
		return errors.Join(printed, fmt.Errorf("experiment %s: its report could not be kept, and its sandboxes stay: %w", r.id, kept))
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
	if left := r.client.DeleteCreated(ctx, r.id, doomed); len(left) > 0 {
		r.warn("--delete=%s: still there: %s", r.delete, strings.Join(left, ", "))
	}
	if printed != nil {
		return printed
	}
	return exitOf(rep.Outcome)
}
