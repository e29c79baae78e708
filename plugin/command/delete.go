package command

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/scheme"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/apply"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/wait"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/printer"
)

// deleteFlags are the flags and arguments of `delete`.
type deleteFlags struct {
	*tool
	print *genericclioptions.PrintFlags

	selection
	wait           bool
	ignoreNotFound bool
	timeout        time.Duration

	dryRun cmdutil.DryRunStrategy
}

func newDelete(t *tool) *cobra.Command {
	f := &deleteFlags{tool: t, print: genericclioptions.NewPrintFlags("deleted").WithTypeSetter(scheme.Scheme)}
	cmd := &cobra.Command{
		Use:                   "delete NAME... | -l SELECTOR | --all",
		DisableFlagsInUseLine: true,
		Short:                 "Delete sandboxes and everything in them",
		Long: templates.LongDesc(`
			Delete sandboxes and everything in them, and wait until that is done. Requests that a fork is serving are
			finished; later ones go to the baseline.

			If you name several sandboxes, those that exist are deleted. A name that does not exist is an error, unless
			you give --ignore-not-found.`),
		Example: templates.Examples(`
			# Delete a sandbox
			kubectl sandbox delete pr-42

			# Delete all sandboxes of the namespace
			kubectl sandbox delete --all

			# Say what would be deleted
			kubectl sandbox delete --all --dry-run=client`),
		ValidArgsFunction: t.completeSandboxes(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.complete(cmd, args); err != nil {
				return err
			}
			if err := f.validate(cmd); err != nil {
				return err
			}
			return f.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	f.addFlags(cmd, "Delete")
	flags.BoolVar(&f.ignoreNotFound, "ignore-not-found", false, "Treat a sandbox that does not exist as deleted.")
	flags.BoolVar(&f.wait, "wait", true, "Wait until everything in the sandboxes is deleted.")
	flags.DurationVar(&f.timeout, "timeout", 2*time.Minute, "How long to wait; 0 means no limit.")
	addObjectFlags(cmd, f.print)
	return cmd
}

// complete reads the flags and arguments.
func (f *deleteFlags) complete(cmd *cobra.Command, args []string) (err error) {
	f.selection.complete(args)
	if f.dryRun, err = cmdutil.GetDryRunStrategy(cmd); err != nil {
		return usageError(cmd, lower(err))
	}
	return nil
}

func (f *deleteFlags) validate(cmd *cobra.Command) error {
	if f.timeout < 0 {
		return usageError(cmd, fmt.Sprintf("--timeout %s is negative", f.timeout))
	}
	if err := validOutput(cmd, f.print); err != nil {
		return err
	}
	return f.selection.validate(cmd)
}

func (f *deleteFlags) run(ctx context.Context) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	use := operate.Delete{Read: read.New(c), Write: apply.New(c), Wait: wait.New(c)}
	deleted, done, err := use.Run(ctx, operate.DeleteOptions{
		Selection: f.in(c.Namespace), DryRun: dryRun(f.dryRun), IgnoreNotFound: f.ignoreNotFound,
		Wait: f.wait, Timeout: f.timeout,
	})
	if !done {
		return err
	}
	if err == nil && len(f.names) == 0 && len(deleted) == 0 {
		printer.NoSandboxes(f.ErrOut, c.Namespace)
	}
	p := &printer.Objects{Format: f.print, DryRun: dryRun(f.dryRun), Out: f.Out}
	if err := p.PrintDeleted(deleted); err != nil {
		return err
	}
	return err
}

// completeSandboxes completes the names of up to most sandboxes; 0 means any number.
func (t *tool) completeSandboxes(most int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		c, err := t.client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		names, err := read.New(c).SandboxNames(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
