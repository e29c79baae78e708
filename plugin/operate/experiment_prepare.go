package operate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// prepare finds what to test, and how, before anything is written.
func (r *ExperimentRun) prepare(ctx context.Context) error {
	if err := r.readCronJobs(ctx); err != nil {
		return err
	}
	for i := range r.o.Suite.Checks {
		if err := r.findServices(ctx, &r.o.Suite.Checks[i]); err != nil {
			return err
		}
	}
	if err := r.findProbes(ctx); err != nil {
		return err
	}
	for _, v := range r.o.Images {
		r.variants = append(r.variants, suite.Variant{Name: v.Name, Sandbox: VariantSandbox(r.o.ID, v.Name)})
	}
	if len(r.o.Images) > 0 {
		// What prevents forking a workload prevents it for each variant.
		_, _, err := r.e.Fork.Plan(ctx, r.forkOf(&r.variants[0]))
		return err
	}
	found, missing, err := r.e.Read.SandboxesNamed(ctx, r.o.Args)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return plan.NoSandbox(missing[0], r.run.Namespace)
	}
	for _, name := range r.o.Args {
		i := slices.IndexFunc(found, func(s sandboxes.Sandbox) bool { return s.Name == name })
		r.variants = append(r.variants, suite.Variant{Name: name, Sandbox: name, Key: found[i].Key})
	}
	return nil
}

// findProbes reads the cluster's settings for built-in checks, and whether they allow what the suite requests.
func (r *ExperimentRun) findProbes(ctx context.Context) (err error) {
	i := slices.IndexFunc(r.o.Suite.Checks, func(c suite.Check) bool { return c.Probe != nil })
	if i < 0 {
		return nil
	}
	if r.probes, err = r.e.Sources.Probes(ctx); err != nil {
		return err
	}
	for i := range r.o.Suite.Checks {
		if c := &r.o.Suite.Checks[i]; c.Probe != nil {
			if _, err := suite.ProbeJob(r.run, c, r.probes, r.services[c.Name][0], nil, ""); err != nil {
				return &plan.Problem{What: err.Error(), Err: err}
			}
		}
	}
	return nil
}

// findServices finds the Services that a check tests.
func (r *ExperimentRun) findServices(ctx context.Context, c *suite.Check) error {
	var refs []plan.ServiceRef
	for _, s := range c.Services {
		ref, err := plan.ParseServiceRef("svc/"+s.String(), r.run.Namespace)
		if err != nil {
			return &plan.Problem{What: fmt.Sprintf("%s: annotation %s: %v", c.Source, sandbox.AnnotationServices, err)}
		}
		refs = append(refs, ref)
	}
	switch {
	case len(refs) > 0:
	case r.o.Entry != "":
		ref, err := plan.ParseServiceRef(r.o.Entry, r.run.Namespace)
		if err != nil {
			return &plan.Problem{What: "--entry: " + err.Error()}
		}
		refs = append(refs, ref)
	default:
		entry, err := r.e.Read.Entry(ctx, nil)
		if err != nil {
			var p *plan.Problem
			if errors.As(err, &p) { // which names the Services, and would have one named another way
				return &plan.Problem{
					What: p.What + "; name the one to test by --entry=svc/SERVICE, or by annotation " + sandbox.AnnotationServices,
				}
			}
			return err
		}
		refs = append(refs, entry.Service)
	}
	for _, ref := range refs {
		s, err := r.e.Sources.CheckService(ctx, ref)
		if err != nil {
			return err
		}
		r.services[c.Name] = append(r.services[c.Name], s)
	}
	return nil
}

// readCronJobs adds the tests of CronJobs, and checks that all of the suite is of the namespace.
func (r *ExperimentRun) readCronJobs(ctx context.Context) error {
	for _, name := range r.o.CronJobs {
		job, err := r.e.Sources.CronJob(ctx, name)
		if err != nil {
			return err
		}
		check, err := suite.FromCronJob(job)
		if err != nil {
			return &plan.Problem{What: err.Error(), Err: err}
		}
		if err := r.o.Suite.Join(&suite.Suite{Checks: []suite.Check{check}}); err != nil {
			return &plan.Problem{What: err.Error(), Err: err}
		}
	}
	elsewhere := func(source, namespace string) error {
		if namespace == "" || namespace == r.run.Namespace {
			return nil
		}
		return &plan.Problem{What: fmt.Sprintf(
			"%s: metadata.namespace: is %q, and the sandboxes are in %q", source, namespace, r.run.Namespace,
		)}
	}
	for _, c := range r.o.Suite.Checks {
		if err := elsewhere(c.Source, c.Job.Namespace); err != nil {
			return err
		}
	}
	for _, o := range r.o.Suite.Objects {
		if err := elsewhere(o.Source, o.GetNamespace()); err != nil {
			return err
		}
	}
	r.run.Objects = r.o.Suite.Objects
	return nil
}

// spec identifies what the experiment tests. An experiment with the same ID and another spec is a different one.
func (r *ExperimentRun) spec() string {
	sum := sha256.New()
	encoder := json.NewEncoder(sum)
	// A hash takes all, and strings always encode.
	_ = encoder.Encode([]any{r.o.Args, r.o.VariantArgs, r.o.Require, r.o.Entry})
	for _, c := range r.o.Suite.Checks {
		job := *c.Job
		job.TypeMeta = metav1.TypeMeta{} // a CronJob's has none
		_ = encoder.Encode(&job)
	}
	for _, o := range r.o.Suite.Objects {
		_ = encoder.Encode(o.Public())
	}
	return hex.EncodeToString(sum.Sum(nil))
}
