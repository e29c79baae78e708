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
	"k8s.io/kubectl/pkg/util/term"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/routing"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/printer"
)

// routeFlags are the flags and arguments of `route`.
type routeFlags struct {
	*tool
	print *genericclioptions.PrintFlags

	all, yes, wait bool
	allNamespaces  bool
	timeout        time.Duration
	templatePath   string

	workloads []string
	dryRun    cmdutil.DryRunStrategy
}

func newRoute(t *tool) *cobra.Command {
	f := &routeFlags{tool: t, print: genericclioptions.NewPrintFlags("routed").WithTypeSetter(scheme.Scheme)}
	cmd := &cobra.Command{
		Use:                   "route [TYPE/NAME... | --all]",
		DisableFlagsInUseLine: true,
		Short:                 "Put routers in front of workloads, or list the existing routes",
		Long: templates.LongDesc(`
			Put a router in front of each pod of one or more workloads, so that they can be forked. Without arguments,
			list the workloads that have routers and the routes to their forks. With -o yaml, -o json and the like, the
			list is a RouteStatusList.

			With --all, route skips two sorts of workloads and names them: those that are not healthy, because each step
			waits for all pods; and those whose ports can't carry a key, such as databases and ports that only serve
			TLS. A workload that you name is routed anyway, with a warning.

			Requests keep reaching the same pods at every step. If a Service refers to a port by number, route names the
			port, which rolls the workload out, and then switches the Service to the name. A further rollout adds the
			labels that request routers. For NetworkPolicies that admit the app's ports, route adds policies that admit
			the router's.

			If the command is interrupted, run it again to resume, or run kubectl sandbox unroute to undo what was done.`),
		Example: templates.Examples(`
			# Put routers in front of a Deployment
			kubectl sandbox route deploy/api

			# Several at once; those behind the same Service have to be
			kubectl sandbox route deploy/api-blue deploy/api-green

			# All workloads of the namespace that Services send requests to
			kubectl sandbox route --all

			# Print the change, to make it in Git
			kubectl sandbox route deploy/api --dry-run=client -o yaml

			# List routed workloads, their forks, and how many requests went to each
			kubectl sandbox route`),
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
	flags.BoolVar(&f.all, "all", false, "Route all workloads of the namespace that Services send requests to.")
	flags.BoolVarP(&f.yes, "yes", "y", false, "With --all, roll workloads out without asking.")
	flags.BoolVar(&f.wait, "wait", true, "Wait for the last rollout. Earlier rollouts are always waited for.")
	flags.DurationVar(&f.timeout, "timeout", operate.RouteTimeout, "How long to wait in total; 0 means no limit.")
	flags.StringVar(&f.templatePath, "template-path", "", "Path of the pod template in workloads of a custom kind, such as spec.workload.template. route records it in the workload.")
	flags.BoolVarP(&f.allNamespaces, "all-namespaces", "A", false, "List the routed workloads of all namespaces.")
	addObjectFlags(cmd, f.print)
	return cmd
}

// complete reads the flags and arguments.
func (f *routeFlags) complete(cmd *cobra.Command, args []string) (err error) {
	f.workloads = args
	if f.dryRun, err = cmdutil.GetDryRunStrategy(cmd); err != nil {
		return usageError(cmd, lower(err))
	}
	return nil
}

func (f *routeFlags) validate(cmd *cobra.Command) error {
	switch {
	case f.all && len(f.workloads) > 0:
		return usageError(cmd, "--all can't be combined with TYPE/NAME")
	case f.allNamespaces && (f.all || len(f.workloads) > 0):
		return usageError(cmd, "--all-namespaces only lists: leave out TYPE/NAME and --all")
	case f.timeout < 0:
		return usageError(cmd, fmt.Sprintf("--timeout %s is negative", f.timeout))
	}
	if err := plan.CheckTemplatePath(f.templatePath); err != nil {
		return usageError(cmd, err.Error())
	}
	return validOutput(cmd, f.print)
}

func (f *routeFlags) run(ctx context.Context) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	if !f.all && len(f.workloads) == 0 {
		return f.list(ctx, c)
	}
	report := &reporter{tool: f.tool, dryRun: f.dryRun}
	routable := func(ctx context.Context) ([]*plan.Workload, []string, error) {
		return routing.RoutableWorkloads(ctx, c)
	}
	use := operate.Route{Read: read.New(c), Routable: routable, Open: openRouting(c), Report: report}
	planned, err := use.Plan(ctx, operate.RouteOptions{All: f.all, Workloads: f.workloads, TemplatePath: f.templatePath})
	if err != nil {
		return err
	}
	if planned == nil {
		fmt.Fprintf(f.ErrOut, "No workload in namespace %s receives requests through a Service.\n", c.Namespace)
		return nil
	}
	done := &printer.Route{Plan: planned, Verbed: "routed"}
	objects := &printer.Objects{Format: f.print, DryRun: dryRun(f.dryRun), Out: f.Out}
	switch f.dryRun {
	case cmdutil.DryRunClient:
		if err := objects.PrintDone(done.Planned()); err != nil {
			return err
		}
		done.ServicesHint(f.ErrOut)
		return nil
	case cmdutil.DryRunServer:
		wrote, err := planned.DryRun(ctx)
		if err != nil {
			return err
		}
		return objects.PrintDone(done.Tried(wrote))
	}
	if f.all && !f.yes && planned.Rolls() {
		if err := f.confirm(); err != nil {
			return err
		}
	}
	if err := planned.Admission(ctx); err != nil {
		return err
	}
	wrote, err := planned.Do(ctx, f.timeout, f.wait, report)
	if err != nil {
		return f.partlyRouted(err)
	}
	return objects.PrintDone(done.Done(wrote))
}

// list prints the routed workloads, forked or not.
func (f *routeFlags) list(ctx context.Context, c *cluster.Client) error {
	namespace := c.Namespace
	if f.allNamespaces {
		namespace = ""
	}
	v, err := read.New(c).RouteInventory(ctx, namespace)
	if err != nil {
		return err
	}
	list := v.DescribeRoutes(f.chosen().Command)
	switch {
	case f.print.OutputFlagSpecified() && *f.print.OutputFormat != "name":
		return printer.StatusObject(f.Out, f.print, list)
	case f.print.OutputFlagSpecified():
		p := &printer.Objects{Format: f.print, Out: f.Out}
		for _, w := range v.Routed {
			if err := p.Print("", w.Object); err != nil {
				return err
			}
		}
		return nil
	case len(list.Items) == 0 && f.allNamespaces:
		fmt.Fprintln(f.ErrOut, "No routed workloads found.")
	case len(list.Items) == 0:
		fmt.Fprintf(f.ErrOut, "No routed workloads found in %s namespace.\n", c.Namespace)
	default:
		return printer.Routes(f.Out, list, f.allNamespaces, v.Now)
	}
	return nil
}

// canAsk reports whether there is a terminal for a question.
func (t *tool) canAsk() bool {
	tty := term.TTY{In: t.screen.In, Out: t.screen.ErrOut}
	return tty.IsTerminalIn() && tty.IsTerminalOut()
}

// confirm asks the user whether to continue, if there is a terminal.
func (t *tool) confirm() error {
	if !t.canAsk() {
		return &plan.Problem{
			What: "--all rolls out the workloads named above, and there is no terminal to ask at",
			Hint: "to go on", Fix: plan.Kubectl("sandbox", "route", "--all", "--yes"),
		}
	}
	fmt.Fprint(t.ErrOut, "Go on? (y/n): ")
	var answer string
	_, err := fmt.Fscanln(t.In, &answer)
	if err != nil || !slices.Contains([]string{"y", "yes"}, strings.ToLower(answer)) {
		return errors.New("nothing was changed")
	}
	return nil
}

// partlyRouted prints what was changed so far, and how to resume or undo it, if err is of a routing that was begun.
// It returns the error to print after that.
func (t *tool) partlyRouted(err error) error {
	var partly *operate.PartlyRouted
	if !errors.As(err, &partly) {
		return err
	}
	printer.PartlyRouted(t.ErrOut, partly, t.chosen())
	return partly.Problem
}

// openRouting returns what opens routings of the client's namespace.
func openRouting(c *cluster.Client) operate.OpenRouting {
	return func(ctx context.Context, targets []*plan.Workload) (operate.Routing, error) {
		return routing.New(ctx, c, targets)
	}
}
