package command

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/scheme"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/apply"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/printer"
)

// extendFlags are the flags and arguments of `extend`.
type extendFlags struct {
	*tool
	print *genericclioptions.PrintFlags

	selection
	ttl time.Duration

	ttlGiven bool
	dryRun   cmdutil.DryRunStrategy
}

func newExtend(t *tool) *cobra.Command {
	f := &extendFlags{tool: t, print: genericclioptions.NewPrintFlags("extended").WithTypeSetter(scheme.Scheme)}
	cmd := &cobra.Command{
		Use:                   "extend NAME... | -l SELECTOR | --all",
		DisableFlagsInUseLine: true,
		Short:                 "Extend the lifetime of sandboxes",
		Long: templates.LongDesc(`
			Extend the lifetime of sandboxes, counted from now. A sandbox that already lives longer is not changed.`),
		Example: templates.Examples(`
			# Let a sandbox live for the cluster's default time from now on
			kubectl sandbox extend pr-42

			# Two days from now on
			kubectl sandbox extend pr-42 --ttl=48h

			# For ever: until it is deleted
			kubectl sandbox extend pr-42 --ttl=0

			# All of a team's
			kubectl sandbox extend -l team=checkout --ttl=24h`),
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
	flags.DurationVar(&f.ttl, "ttl", 0, "Lifetime of the sandboxes from now on, such as 8h; 0 means forever. The default is the cluster's: 8h, or the chart's sandboxes.defaultTTL.")
	f.addFlags(cmd, "Extend")
	addObjectFlags(cmd, f.print)
	return cmd
}

// complete reads the flags and arguments.
func (f *extendFlags) complete(cmd *cobra.Command, args []string) (err error) {
	f.selection.complete(args)
	f.ttlGiven = cmd.Flags().Changed("ttl")
	if f.dryRun, err = cmdutil.GetDryRunStrategy(cmd); err != nil {
		return usageError(cmd, lower(err))
	}
	return nil
}

func (f *extendFlags) validate(cmd *cobra.Command) error {
	if f.ttl < 0 {
		return usageError(cmd, fmt.Sprintf("--ttl %s is negative", f.ttl))
	}
	if err := validOutput(cmd, f.print); err != nil {
		return err
	}
	return f.selection.validate(cmd)
}

func (f *extendFlags) run(ctx context.Context) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	o := operate.ExtendOptions{Selection: f.in(c.Namespace), Now: time.Now(), DryRun: dryRun(f.dryRun)}
	if f.ttlGiven {
		o.TTL = &f.ttl
	}
	use := operate.Extend{Read: read.New(c), Write: apply.New(c)}
	all, found, err := use.Run(ctx, o)
	if len(f.names) == 0 && found == 0 {
		printer.NoSandboxes(f.ErrOut, c.Namespace)
	}
	if all == nil {
		return err
	}
	p := &printer.Objects{Format: f.print, DryRun: o.DryRun, Out: f.Out}
	return errors.Join(p.PrintExtended(all, o.Now), err) // what is done is printed
}
