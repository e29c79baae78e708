package command

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/apply"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/jobs"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/wait"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/report"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

func (f *testFlags) run(ctx context.Context) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	for _, o := range f.outputs {
		if err := o.writable(); err != nil {
			return err
		}
	}
	run, err := f.experiment(c).Start(ctx, f.options())
	if err != nil {
		return err
	}
	if !f.wait {
		rep, err := run.Dispatch(ctx, f.serviceAccount, f.remainder(c.Namespace))
		if err != nil {
			return err
		}
		return f.printDispatched(rep, c.Namespace)
	}
	rep, err := run.Run(ctx)
	if rep == nil {
		return err
	}
	printed := f.print(rep)
	if err != nil {
		return errors.Join(printed, err)
	}
	if left := run.Delete(ctx, f.delete); len(left) > 0 {
		f.warn("--delete=%s: still there: %s", f.delete, strings.Join(left, ", "))
	}
	if printed != nil {
		return printed
	}
	return exitOf(rep.Outcome)
}

// experiment returns the use case over a client. Several variants are forked at once, which would write over each
// other: they report nothing.
func (f *testFlags) experiment(c *cluster.Client) *operate.Experiment {
	all, reader := jobs.New(c), read.New(c)
	return &operate.Experiment{
		Namespace: c.Namespace, Read: reader, Sources: all, Store: all, Checks: all, Jobs: all,
		Fork: &operate.Fork{
			Read: reader, Write: apply.New(c), Wait: wait.New(c), Open: openRouting(c), Report: operate.Silent{},
		},
		Report: &reporter{tool: f.tool},
	}
}

func (f *testFlags) options() operate.ExperimentOptions {
	o := operate.ExperimentOptions{
		ID: f.id, Args: f.args, Images: f.images, VariantArgs: f.variantArgs, Suite: f.suite, Entry: f.entry,
		Require: f.require, Parallel: f.parallel, Timeout: f.timeout, TTL: f.ttl, Route: f.route, Wait: f.wait, Unattended: f.unattended,
		Version: f.version, Command: f.command,
	}
	for _, s := range f.from {
		_, name, _ := strings.Cut(s, "/")
		o.CronJobs = append(o.CronJobs, name)
	}
	return o
}

// printDispatched prints that a Job in the cluster runs the experiment.
func (f *testFlags) printDispatched(rep *experiment.Report, namespace string) error {
	if f.output == "json" {
		return report.Write(f.Out, report.JSON, rep)
	}
	_, err := fmt.Fprintf(f.Out, "job.batch/%s created\n"+
		"experiment %s runs in the cluster; what it finds:\n  kubectl sandbox report %s --wait --namespace=%s\n",
		sandbox.RunJobName(f.id), f.id, f.id, namespace)
	return err
}

// remainder returns the command for the cluster: the same experiment, without the suites.
func (f *testFlags) remainder(namespace string) []string {
	args := append([]string{"test"}, f.args...)
	for _, v := range f.variantArgs {
		args = append(args, "--variant="+v)
	}
	if f.entry != "" {
		args = append(args, "--entry="+f.entry)
	}
	return append(args, "--namespace="+namespace, "--id="+f.id, fmt.Sprintf("--parallel=%d", f.parallel),
		"--timeout="+f.timeout.String(), "--ttl="+f.ttl.String(), "--delete="+f.delete, "--require="+f.require,
		fmt.Sprintf("--route=%t", f.route), "--unattended")
}
