package command

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/scheme"
	"k8s.io/kubectl/pkg/util/completion"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/apply"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/wait"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
)

// rebaseFlags are the flags of `rebase`: those of a `fork` without a change.
type rebaseFlags struct{ forkFlags }

func newRebase(t *tool) *cobra.Command {
	f := &rebaseFlags{forkFlags{tool: t, print: genericclioptions.NewPrintFlags("rebased").WithTypeSetter(scheme.Scheme)}}
	workloads := completion.SpecifiedResourceTypeAndNameCompletionFunc(t.factory, []string{"deployment", "statefulset", "daemonset", "replicaset"})
	sandboxes := t.completeSandboxes(1)
	cmd := &cobra.Command{
		Use:                   "rebase NAME [TYPE/NAME...]",
		DisableFlagsInUseLine: true,
		Short:                 "Rebase the forks of a sandbox on their current baselines",
		Long: templates.LongDesc(`
			Rebase the forks of a sandbox on their current baselines: all its forks, or those of the workloads that you
			name.

			A fork keeps its own changes and takes over everything else that has changed in its baseline. Containers,
			variables and the like are matched by name. If a change no longer fits, for example because its container
			was removed, rebase reports the conflict for each fork and changes none.

			The webhook rebases forks that were created with --follow as soon as their baselines change.`),
		Example: templates.Examples(`
			# Lay all forks of a sandbox on their baselines as they are now
			kubectl sandbox rebase pr-42

			# Only the fork of one workload
			kubectl sandbox rebase pr-42 deploy/api

			# Print what would be applied
			kubectl sandbox rebase pr-42 --dry-run=client -o yaml`),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, toComplete string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return sandboxes(cmd, args, toComplete)
			}
			return workloads(cmd, args[1:], toComplete)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.complete(cmd, args); err != nil {
				return err
			}
			return f.run(cmd.Context())
		},
	}
	f.addApplyFlags(cmd)
	return cmd
}

// complete reads the flags and arguments, and checks the arguments.
func (f *rebaseFlags) complete(cmd *cobra.Command, args []string) (err error) {
	f.begun = time.Now()
	if f.dryRun, err = cmdutil.GetDryRunStrategy(cmd); err != nil {
		return usageError(cmd, lower(err))
	}
	if len(args) == 0 {
		return usageError(cmd, "rebase takes the name of a sandbox")
	}
	if f.timeout < 0 {
		return usageError(cmd, fmt.Sprintf("--timeout %s is negative", f.timeout))
	}
	if err := validOutput(cmd, f.print); err != nil {
		return err
	}
	f.options = forks.Options{Sandbox: sandboxArg(args[0]), Force: f.force, Now: f.begun}
	f.workloads = args[1:]
	return validName(cmd, f.options.Sandbox)
}

func (f *rebaseFlags) run(ctx context.Context) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	report := &reporter{tool: f.tool, dryRun: f.dryRun}
	use := operate.Rebase{Read: read.New(c), Write: apply.New(c), Wait: wait.New(c), Report: report}
	done, err := use.Run(ctx, operate.RebaseOptions{
		Workloads: f.workloads, Change: f.options, DryRun: dryRun(f.dryRun), Wait: f.wait, Timeout: f.timeout,
	})
	if err != nil {
		return err
	}
	p := f.printer()
	p.Took = time.Since(f.begun)
	return p.PrintForked(done)
}
