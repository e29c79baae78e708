package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/scheme"
	"k8s.io/kubectl/pkg/util/completion"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/routing"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/printer"
)

// unrouteFlags are the flags and arguments of `unroute`.
type unrouteFlags struct {
	*tool
	print *genericclioptions.PrintFlags

	force, all, allNamespaces, yes bool
	timeout                        time.Duration

	workloads, services []string
	dryRun              cmdutil.DryRunStrategy
}

func newUnroute(t *tool) *cobra.Command {
	f := &unrouteFlags{tool: t, print: genericclioptions.NewPrintFlags("unrouted").WithTypeSetter(scheme.Scheme)}
	cmd := &cobra.Command{
		Use:                   "unroute TYPE/NAME... | svc/NAME... | --all",
		DisableFlagsInUseLine: true,
		Short:                 "Remove routers from workloads",
		Long: templates.LongDesc(`
			Remove the routers from one or more workloads, and restore specs, labels and annotations to what they were
			before kubectl sandbox route. Services are restored first, then the workloads, in one rollout.

			If the workload of a Service no longer exists, svc/NAME or --all switches the Service back to port numbers.

			unroute also undoes a route that was interrupted. If unroute itself is interrupted, run it again to resume.`),
		Example: templates.Examples(`
			# Take the routers of a Deployment away
			kubectl sandbox unroute deploy/api

			# The same, although sandboxes still have forks of it
			kubectl sandbox unroute deploy/api --force

			# Give a Service its port numbers back whose workload is gone
			kubectl sandbox unroute svc/api

			# All of the namespace, or of all namespaces, as before helm uninstall
			kubectl sandbox unroute --all
			kubectl sandbox unroute --all -A`),
		ValidArgsFunction: completion.SpecifiedResourceTypeAndNameCompletionFunc(t.factory, []string{"deployment", "statefulset", "daemonset", "service"}),
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
	flags.BoolVar(&f.force, "force", false, "Remove the routers even if forks still need them.")
	flags.BoolVar(&f.all, "all", false, "Unroute all workloads of the namespace, and the Services whose workloads no longer exist.")
	flags.BoolVarP(&f.allNamespaces, "all-namespaces", "A", false, "With --all, unroute the workloads and Services of all namespaces.")
	flags.BoolVarP(&f.yes, "yes", "y", false, "With --all, do not ask for confirmation.")
	flags.DurationVar(&f.timeout, "timeout", operate.RouteTimeout, "How long to wait in each namespace; 0 means no limit.")
	addObjectFlags(cmd, f.print)
	return cmd
}

// complete reads the flags and arguments.
func (f *unrouteFlags) complete(cmd *cobra.Command, args []string) (err error) {
	for _, a := range args {
		kind, name, ok := strings.Cut(a, "/")
		if ok && slices.Contains([]string{"svc", "service", "services"}, strings.ToLower(kind)) {
			f.services = append(f.services, name)
		} else {
			f.workloads = append(f.workloads, a)
		}
	}
	if f.dryRun, err = cmdutil.GetDryRunStrategy(cmd); err != nil {
		return usageError(cmd, lower(err))
	}
	return nil
}

func (f *unrouteFlags) validate(cmd *cobra.Command) error {
	switch named := len(f.workloads)+len(f.services) > 0; {
	case f.all && named:
		return usageError(cmd, "--all can't be combined with TYPE/NAME")
	case f.allNamespaces && !f.all:
		return usageError(cmd, "--all-namespaces requires --all")
	case !f.all && !named:
		return usageError(cmd, "no workload is named: give it as TYPE/NAME, such as deploy/api")
	case slices.Contains(f.services, ""):
		return usageError(cmd, "svc/ lacks the name of a Service")
	case f.timeout < 0:
		return usageError(cmd, fmt.Sprintf("--timeout %s is negative", f.timeout))
	}
	return validOutput(cmd, f.print)
}

func (f *unrouteFlags) run(ctx context.Context) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	o := operate.UnrouteOptions{
		Namespace: c.Namespace, All: f.all, Force: f.force, Workloads: f.workloads, Services: f.services,
	}
	if f.allNamespaces {
		o.Namespace = ""
	}
	open := func(ctx context.Context, namespace string, targets []*plan.Workload) (operate.Routing, error) {
		return routing.New(ctx, c.In(namespace), targets)
	}
	use := operate.Unroute{Read: read.New(c), Open: open}
	plans, err := use.Plan(ctx, o)
	if err != nil {
		return err
	}
	if len(plans) == 0 {
		fmt.Fprintln(f.ErrOut, "Nothing is routed.")
		return nil
	}
	return f.finish(ctx, plans)
}

// finish takes the steps, one namespace after the other, or prints them in a dry run.
func (f *unrouteFlags) finish(ctx context.Context, plans []*operate.RoutePlan) error {
	report := &reporter{tool: f.tool, dryRun: f.dryRun}
	rolls := false
	for _, p := range plans {
		p.Announce(report)
		rolls = rolls || p.Rolls()
	}
	if f.all && !f.yes && rolls && f.dryRun == cmdutil.DryRunNone && f.canAsk() {
		if err := f.confirm(); err != nil {
			return err
		}
	}
	var done []printer.Done
	out := &printer.Objects{Format: f.print, DryRun: dryRun(f.dryRun), Out: f.Out}
	for _, p := range plans {
		objects, err := f.undo(ctx, p, report)
		done = append(done, objects...)
		if err != nil {
			return errors.Join(out.PrintDone(done), err)
		}
	}
	return out.PrintDone(done)
}

// undo takes the steps of one namespace, and returns what was done or, in a dry run, would be.
func (f *unrouteFlags) undo(ctx context.Context, p *operate.RoutePlan, report operate.Reporter) ([]printer.Done, error) {
	done := &printer.Route{Plan: p, Verbed: "unrouted"}
	switch f.dryRun {
	case cmdutil.DryRunClient:
		return done.Planned(), nil
	case cmdutil.DryRunServer:
		wrote, err := p.DryRun(ctx)
		return done.Tried(wrote), err
	}
	wrote, err := p.Do(ctx, f.timeout, true, report)
	if err != nil {
		return nil, f.partlyRouted(err)
	}
	return done.Done(wrote), nil
}
