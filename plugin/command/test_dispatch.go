package command

import (
	"context"
	"fmt"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/jobs"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/report"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// dispatch hands a saved experiment over to a Job in the cluster.
func (r *testRun) dispatch(ctx context.Context) error {
	image, err := jobs.New(r.client).PluginImage(ctx)
	suite := ""
	if err == nil {
		suite, err = r.suite.Text()
	}
	if err == nil {
		runner := experiment.Runner{Image: image, ServiceAccount: r.serviceAccount, Args: r.remainder(), Suite: suite}
		suites, job := runner.Objects(r.run)
		err = jobs.New(r.client).Dispatch(ctx, r.kept, suites, job)
	}
	if err != nil {
		return r.abandon(ctx, err)
	}
	if r.output == "json" {
		return report.Write(r.Out, report.JSON, r.kept.Report)
	}
	_, err = fmt.Fprintf(r.Out, "job.batch/%s created\nexperiment %s runs in the cluster; what it finds:\n  kubectl sandbox report %s --wait --namespace=%s\n",
		sandbox.RunJobName(r.id), r.id, r.id, r.client.Namespace)
	return err
}

// remainder returns the command for the cluster: the same experiment, without the suites.
func (r *testRun) remainder() []string {
	args := append([]string{"test"}, r.args...)
	for _, v := range r.variantArgs {
		args = append(args, "--variant="+v)
	}
	if r.entry != "" {
		args = append(args, "--entry="+r.entry)
	}
	return append(args, "--namespace="+r.client.Namespace, "--id="+r.id, fmt.Sprintf("--parallel=%d", r.parallel), "--timeout="+r.timeout.String(),
		"--ttl="+r.ttl.String(), "--delete="+r.delete, "--require="+r.require, fmt.Sprintf("--route=%t", r.route), "--unattended")
}
