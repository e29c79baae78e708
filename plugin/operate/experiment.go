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
	corev1 "k8s.io/api/core/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/jobs"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// An ExperimentReader reads the sandboxes that an experiment compares, and how requests enter them.
type ExperimentReader interface {
	SandboxesNamed(ctx context.Context, names []string) (found []sandboxes.Sandbox, missing []string, err error)
	Entry(ctx context.Context, command []string) (plan.Entry, error)
	KeyCarriers(ctx context.Context, name string) (route.Carriers, error)
}

// CheckSources read what the checks of a suite refer to.
type CheckSources interface {
	CronJob(ctx context.Context, name string) (*batchv1.CronJob, error)
	CheckService(ctx context.Context, ref plan.ServiceRef) (sandbox.Service, error)
	Probes(ctx context.Context) (suite.Probes, error)
}

// An ExperimentStore stores an experiment, and what it creates besides its Jobs.
type ExperimentStore interface {
	StartExperiment(
		ctx context.Context, r *experiment.Report, requested string, expires time.Time, hold bool,
	) (*jobs.Experiment, error)
	SaveReport(ctx context.Context, e *jobs.Experiment) error
	SendHeartbeats(ctx context.Context, e *jobs.Experiment) error
	Release(ctx context.Context, e *jobs.Experiment)
	AbandonExperiment(ctx context.Context, e *jobs.Experiment, sandboxes []string) (left []string, err error)
	CreateObjects(ctx context.Context, objects []suite.Object) error
	DeleteCreated(ctx context.Context, id string, sandboxes []string) (left []string)
}

// A CheckRunner runs the Jobs of checks.
type CheckRunner interface {
	Check(
		ctx context.Context, x *jobs.Experiment, v *suite.Variant, job jobs.CheckJob,
	) (*experiment.Evidence, []string, error)
	Compare(
		ctx context.Context, x *jobs.Experiment, variants []suite.Variant, baseline string, job jobs.CheckJob,
	) (all []*experiment.Evidence, printed io.Reader, log []string, err error)
}

// A Dispatcher hands an experiment over to a Job in the cluster.
type Dispatcher interface {
	PluginImage(ctx context.Context) (string, error)
	Dispatch(ctx context.Context, e *jobs.Experiment, suites *corev1.ConfigMap, job *batchv1.Job) error
}

// An ExperimentReporter receives what an experiment has to say before it ends.
type ExperimentReporter interface {
	Reporter
	// Resumes reports that the experiment goes on where it was interrupted.
	Resumes(id string)
}

// An Experiment runs a suite of checks against variants.
type Experiment struct {
	Namespace string
	Read      ExperimentReader
	Sources   CheckSources
	Store     ExperimentStore
	Checks    CheckRunner
	Jobs      Dispatcher
	Fork      *Fork // creates variants
	Report    ExperimentReporter
}

// Which of the sandboxes that an experiment created it deletes.
const (
	DeleteNone   = "none"
	DeleteLosers = "losers"
	DeleteAll    = "all"
)

// ExperimentOptions are what is to be tested, and how.
type ExperimentOptions struct {
	ID          string
	Args        []string       // the sandboxes or, with Images, the workload
	Images      []VariantImage // of the variants to create
	VariantArgs []string       // as Images were given: they identify the experiment
	Suite       suite.Suite
	CronJobs    []string // further checks
	Entry       string   // svc/SERVICE that checks test which name none; empty: the namespace's
	Require     string
	Parallel    int // variants to test at the same time
	Timeout     time.Duration
	TTL         time.Duration // 0 means forever
	Route       bool
	Wait        bool // this client runs the experiment; without it, a Job in the cluster does
	Unattended  bool // this client is such a Job
	Version     string
	Command     []string // repeats the experiment
}

// A VariantImage is a variant to create.
type VariantImage struct {
	Name  string
	Image forks.ImageChange
}

// VariantSandbox returns the name of the sandbox of a variant that an experiment creates.
func VariantSandbox(id, variant string) string { return id + "-" + variant }

// An ExperimentRun is one run of an experiment.
type ExperimentRun struct {
	e        *Experiment
	o        ExperimentOptions
	run      *suite.Run
	variants []suite.Variant
	probes   suite.Probes                 // where the suite has built-in checks
	services map[string][]sandbox.Service // of each check

	routing   sync.Mutex   // held while a variant is forked that may have to route the workload first
	exclusive sync.RWMutex // held for writing by a check of load, for reading by others

	mu    sync.Mutex // of what follows
	kept  *jobs.Experiment
	ended chan struct{} // closed, and replaced, when a check has ended
}

// Start creates the experiment, or resumes the one with its ID, once it is known that it can be run.
func (e *Experiment) Start(ctx context.Context, o ExperimentOptions) (*ExperimentRun, error) {
	r := &ExperimentRun{
		e: e, o: o, services: map[string][]sandbox.Service{},
		run: &suite.Run{ID: o.ID, Namespace: e.Namespace, Timeout: o.Timeout}, ended: make(chan struct{}),
	}
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	if err := r.begin(ctx); err != nil {
		return nil, err
	}
	if !o.Unattended { // else whoever dispatched it has created them, by rights that the Job need not have
		if err := e.Store.CreateObjects(ctx, suite.Place(r.run, r.run.Objects)); err != nil {
			return nil, r.abandon(ctx, err)
		}
	}
	return r, nil
}

// Run runs the checks, and stores the report. If only storing it fails, it returns the report with the error.
func (r *ExperimentRun) Run(ctx context.Context) (*experiment.Report, error) {
	err := r.withHeartbeats(ctx, r.testAll)
	r.e.Report.Waiting("")
	if err != nil {
		return nil, r.abandon(ctx, err)
	}
	rep := r.kept.Report
	rep.Window.Ended = time.Now().UTC().Truncate(time.Millisecond)
	rep.Conclude()
	if err := r.e.Store.SaveReport(ctx, r.kept); err != nil { // the sandboxes may be all that is left of what was found
		return rep, fmt.Errorf("experiment %s: its report could not be kept, and its sandboxes stay: %w", r.o.ID, err)
	}
	return rep, nil
}

// Delete deletes those of the sandboxes that the experiment created which the constant selects, and returns what is
// left of them.
func (r *ExperimentRun) Delete(ctx context.Context, which string) (left []string) {
	var doomed []string
	switch which {
	case DeleteLosers:
		doomed = r.kept.Report.Losers()
	case DeleteAll:
		for _, v := range r.kept.Report.Variants {
			if v.Made {
				doomed = append(doomed, v.Sandbox)
			}
		}
	}
	return r.e.Store.DeleteCreated(ctx, r.o.ID, doomed)
}

// Dispatch hands the experiment over to a Job in the cluster that has the rights of a service account. args are the
// arguments of the command that it runs. It returns the report so far.
func (r *ExperimentRun) Dispatch(
	ctx context.Context, serviceAccount string, args []string,
) (*experiment.Report, error) {
	image, err := r.e.Jobs.PluginImage(ctx)
	text := ""
	if err == nil {
		text, err = r.o.Suite.Text()
	}
	if err == nil {
		runner := suite.Runner{Image: image, ServiceAccount: serviceAccount, Args: args, Suite: text}
		suites, job := runner.Objects(r.run)
		err = r.e.Jobs.Dispatch(ctx, r.kept, suites, job)
	}
	if err != nil {
		return nil, r.abandon(ctx, err)
	}
	return r.kept.Report, nil
}

// withHeartbeats calls run, which may only run while this client holds the experiment, and sends the holder's
// heartbeats meanwhile.
func (r *ExperimentRun) withHeartbeats(ctx context.Context, run func(context.Context) error) error {
	running, stop := context.WithCancelCause(ctx)
	var holding sync.WaitGroup
	holding.Go(func() {
		if err := r.e.Store.SendHeartbeats(running, r.kept); err != nil {
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

// begin creates the experiment, or resumes the one with its ID.
func (r *ExperimentRun) begin(ctx context.Context) error {
	fresh := experiment.NewReport(r.run, r.o.Require, r.o.Suite.Checks, r.variants, len(r.o.Images) > 0)
	fresh.Version, fresh.Reproduce = r.o.Version, r.o.Command
	fresh.Window.Began = time.Now().UTC().Truncate(time.Millisecond)
	var expires time.Time
	if r.o.TTL > 0 {
		expires = fresh.Window.Began.Add(r.o.TTL)
	}
	kept, err := r.e.Store.StartExperiment(ctx, fresh, r.spec(), expires, r.o.Wait)
	if err != nil {
		return err
	}
	r.kept, r.run.UID = kept, kept.ConfigMap.UID
	if !kept.Began {
		r.e.Report.Resumes(r.o.ID)
	}
	return nil
}

// abandon ends an experiment early. It keeps the experiment for a later command to resume if an earlier command began
// it, if it runs unattended, or if it failed with results. Otherwise it deletes the experiment and the sandboxes that
// it created.
func (r *ExperimentRun) abandon(ctx context.Context, cause error) error {
	if errors.Is(cause, jobs.ErrNotHolder) {
		return cause
	}
	interrupted := ctx.Err() != nil
	if interrupted {
		cause = errors.New("interrupted")
	}
	what := "experiment " + r.o.ID + ": " + cause.Error()
	if !r.kept.Began || r.o.Unattended || !interrupted && r.kept.Report.Found() {
		if r.o.Wait {
			r.e.Store.Release(ctx, r.kept)
		}
		return &plan.Problem{
			What: what + "; what it found so far is kept", Err: cause,
			Hint: "resume it", Fix: append(slices.Clone(r.o.Command), "--id="+r.o.ID),
		}
	}
	var made []string
	for _, v := range r.variants {
		if len(r.o.Images) > 0 {
			made = append(made, v.Sandbox)
		}
	}
	left, err := r.e.Store.AbandonExperiment(ctx, r.kept, made)
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
