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

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
)

// unrouteFlags are the flags of `unroute`, and what Complete makes of them.
type unrouteFlags struct {
	*tool
	print *genericclioptions.PrintFlags

	force   bool
	timeout time.Duration

	workloads []string
	dryRun    cmdutil.DryRunStrategy
}

func newUnroute(t *tool) *cobra.Command {
	f := &unrouteFlags{tool: t, print: genericclioptions.NewPrintFlags("unrouted").WithTypeSetter(scheme.Scheme)}
	cmd := &cobra.Command{
		Use:                   "unroute TYPE/NAME...",
		DisableFlagsInUseLine: true,
		Short:                 "Take the routers of workloads away",
		Long: templates.LongDesc(`
			Take the routers of one or more workloads away, and leave specs, labels and annotations as they were before
			kubectl sandbox route: Services first, then the workloads, in one rollout.

			Also undoes a route that was interrupted. Interrupted itself, the same command goes on where it stopped.`),
		Example: templates.Examples(`
			# Take the routers of a Deployment away
			kubectl sandbox unroute deploy/api

			# The same, although sandboxes still have forks of it
			kubectl sandbox unroute deploy/api --force`),
		ValidArgsFunction: completion.SpecifiedResourceTypeAndNameCompletionFunc(t.factory, []string{"deployment", "statefulset", "daemonset"}),
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
	flags.BoolVar(&f.force, "force", false, "Take the routers away from forks that still need them.")
	flags.DurationVar(&f.timeout, "timeout", routeTimeout, "How long to wait in all; 0 for as long as it takes.")
	cmdutil.AddDryRunFlag(cmd)
	f.print.AddFlags(cmd)
	completeValues(cmd, "dry-run", "none", "client", "server")
	return cmd
}

// complete parses.
func (f *unrouteFlags) complete(cmd *cobra.Command, args []string) (err error) {
	f.workloads = args
	if f.dryRun, err = cmdutil.GetDryRunStrategy(cmd); err != nil {
		return usageError(cmd, lower(err))
	}
	return nil
}

func (f *unrouteFlags) validate(cmd *cobra.Command) error {
	switch {
	case len(f.workloads) == 0:
		return usageError(cmd, "no workload is named: TYPE/NAME, such as deploy/api")
	case f.timeout < 0:
		return usageError(cmd, fmt.Sprintf("--timeout %s is negative", f.timeout))
	}
	return nil
}

func (f *unrouteFlags) run(ctx context.Context) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	workloads, err := c.Workloads(ctx, f.workloads, "")
	if err != nil {
		return err
	}
	routing, err := c.Routing(ctx, workloads)
	if err != nil {
		return err
	}
	if err := routing.MayRoute(ctx); err != nil {
		return err
	}
	next := plan.Unroute
	if f.force {
		next = plan.UnrouteForced
	}
	run := &routeRun{tool: f.tool, print: f.print, routing: routing, strategy: f.dryRun, timeout: f.timeout, wait: true, verb: "unroute"}
	if _, err := run.plan(ctx, next); err != nil {
		return err
	}
	switch f.dryRun {
	case cmdutil.DryRunClient:
		return run.printPlanned()
	case cmdutil.DryRunServer:
		return run.dryRun(ctx)
	}
	run.announce()
	if err := run.do(ctx, next); err != nil {
		return err
	}
	return run.printDone("unrouted")
}
