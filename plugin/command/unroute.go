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

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
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
	flags.DurationVar(&f.timeout, "timeout", routeTimeout, "How long to wait in each namespace; 0 means no limit.")
	cmdutil.AddDryRunFlag(cmd)
	f.print.AddFlags(cmd)
	completeValues(cmd, "dry-run", "none", "client", "server")
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
	if !f.all {
		var workloads []*plan.Workload
		if len(f.workloads) > 0 {
			if workloads, err = c.Workloads(ctx, f.workloads, ""); err != nil {
				return err
			}
		}
		run, err := f.in(ctx, c, workloads)
		if err != nil {
			return err
		}
		return f.finish(ctx, []*routeRun{run})
	}
	namespace := c.Namespace
	if f.allNamespaces {
		namespace = ""
	}
	routed, err := c.RoutedByNamespace(ctx, namespace)
	if err != nil {
		return err
	}
	var runs []*routeRun
	for _, r := range routed { // all are planned before anything is changed
		run, err := f.in(ctx, c.In(r.Namespace), r.Workloads)
		if err != nil {
			return err
		}
		if len(run.steps) > 0 {
			runs = append(runs, run)
		}
	}
	if len(runs) == 0 {
		fmt.Fprintln(f.ErrOut, "Nothing is routed.")
		return nil
	}
	return f.finish(ctx, runs)
}

// in plans for one namespace: for workloads, and for the named Services or, with --all, the switched ones.
func (f *unrouteFlags) in(ctx context.Context, c *cluster.Client, workloads []*plan.Workload) (*routeRun, error) {
	routing, err := c.Routing(ctx, workloads)
	if err != nil {
		return nil, err
	}
	if err := routing.MayRoute(ctx); err != nil {
		return nil, err
	}
	next := routes.Unroute
	if f.force {
		next = routes.UnrouteForced
	}
	run := &routeRun{tool: f.tool, print: f.print, routing: routing, strategy: f.dryRun, timeout: f.timeout, wait: true, verb: "unroute"}
	_, err = run.plan(ctx, func(view *routes.View) ([]*routes.Step, *routes.View, error) {
		services := f.services
		if f.all {
			services = view.Switched()
		} else if run.services, err = view.NamedServices(services, c.Namespace, f.force); err != nil {
			return nil, nil, err
		}
		run.next = routes.UnrouteAll(next, services)
		return routes.Steps(view, run.next)
	})
	return run, err
}

// finish takes the steps, one namespace after the other, or prints them in a dry run.
func (f *unrouteFlags) finish(ctx context.Context, runs []*routeRun) error {
	rolls := false
	for _, run := range runs {
		run.announce()
		rolls = rolls || run.rolls()
	}
	if f.all && !f.yes && rolls && f.dryRun == cmdutil.DryRunNone && runs[0].canAsk() {
		if err := runs[0].confirm(); err != nil {
			return err
		}
	}
	var done []doneObject
	for _, run := range runs {
		objects, err := run.undo(ctx)
		done = append(done, objects...)
		if err != nil {
			return errors.Join(runs[0].printer().printDone(done), err)
		}
	}
	return runs[0].printer().printDone(done)
}

// undo takes the steps of one namespace, and returns what was done or, in a dry run, would be.
func (r *routeRun) undo(ctx context.Context) ([]doneObject, error) {
	switch r.strategy {
	case cmdutil.DryRunClient:
		return r.planned(), nil
	case cmdutil.DryRunServer:
		return r.dryRunObjects(ctx)
	}
	if err := r.do(ctx, r.next); err != nil {
		return nil, err
	}
	return r.done("unrouted"), nil
}
