package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/jobs"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
)

// reportFlags are the flags of `report`: the output flags of `test`.
type reportFlags struct {
	testFlags
}

func newReport(t *tool) *cobra.Command {
	f := &reportFlags{testFlags{tool: t}}
	cmd := &cobra.Command{
		Use:                   "report ID",
		DisableFlagsInUseLine: true,
		Short:                 "Print what an experiment found",
		Long: templates.LongDesc(`
			Print the report of an experiment of "kubectl sandbox test". The cluster keeps it until its --ttl ends. The
			exit status is that of the experiment, or 2 while the experiment has not ended.`),
		Example: templates.Examples(`
			# What an experiment found
			kubectl sandbox report rk3f9q

			# Wait for one that a Job runs
			kubectl sandbox report rk3f9q --wait

			# The same as one HTML file
			kubectl sandbox report rk3f9q --report=html=out.html`),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			c, err := t.client()
			if err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			ids, err := jobs.New(c).ExperimentIDs(cmd.Context())
			if err != nil {
				return nil, cobra.ShellCompDirectiveError
			}
			return ids, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			err := f.complete(cmd, args)
			if err == nil {
				err = f.run(cmd.Context())
			}
			var code *exitError
			if err != nil && !errors.As(err, &code) {
				err = &exitError{suite.ExitNotRun, err}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&f.wait, "wait", false, "Wait until the experiment has ended.")
	f.addReportFlags(cmd)
	return cmd
}

func (f *reportFlags) complete(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) != 1:
		return usageError(cmd, "report takes the ID of one experiment")
	case f.output != "" && f.output != "json":
		return usageError(cmd, fmt.Sprintf("--output %q is not json", f.output))
	}
	f.id = args[0]
	for _, s := range f.reports {
		o, err := parseReport(s)
		if err != nil {
			return usageError(cmd, err.Error())
		}
		f.outputs = append(f.outputs, o)
	}
	return nil
}

func (f *reportFlags) run(ctx context.Context) error {
	for _, o := range f.outputs {
		if err := o.writable(); err != nil {
			return err
		}
	}
	c, err := f.client()
	if err != nil {
		return err
	}
	experiments := jobs.New(c)
	read := experiments.Experiment
	if f.wait {
		read = experiments.WaitExperiment
	}
	e, err := read(ctx, f.id)
	if err != nil {
		return err
	}
	if err := f.print(e.Report); err != nil {
		return err
	}
	if e.Report.Window.Ended.IsZero() {
		return exitOf(experiment.Inconclusive)
	}
	return exitOf(e.Report.Outcome)
}
