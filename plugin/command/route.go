package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/scheme"
	"k8s.io/kubectl/pkg/util/completion"
	"k8s.io/kubectl/pkg/util/templates"
	"k8s.io/kubectl/pkg/util/term"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
)

// routeTimeout is the default progress deadline of a Deployment.
const routeTimeout = 10 * time.Minute

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
	flags.DurationVar(&f.timeout, "timeout", routeTimeout, "How long to wait in total; 0 means no limit.")
	flags.StringVar(&f.templatePath, "template-path", "", "Path of the pod template in workloads of a custom kind, such as spec.workload.template. route records it in the workload.")
	flags.BoolVarP(&f.allNamespaces, "all-namespaces", "A", false, "List the routed workloads of all namespaces.")
	cmdutil.AddDryRunFlag(cmd)
	f.print.AddFlags(cmd)
	completeValues(cmd, "dry-run", "none", "client", "server")
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
	var workloads []*plan.Workload
	if f.all {
		var left []string
		if workloads, left, err = c.RoutableWorkloads(ctx); err != nil {
			return err
		}
		for _, why := range left {
			f.warn("left out: %s", why)
		}
		if len(workloads) == 0 {
			fmt.Fprintf(f.ErrOut, "No workload in namespace %s receives requests through a Service.\n", c.Namespace)
			return nil
		}
	} else if workloads, err = c.Workloads(ctx, f.workloads, f.templatePath); err != nil {
		return err
	}
	run, err := f.plan(ctx, c, workloads, planRoute)
	if err != nil {
		return err
	}
	switch f.dryRun {
	case cmdutil.DryRunClient:
		return run.printPlanned()
	case cmdutil.DryRunServer:
		return run.dryRun(ctx)
	}
	if f.all && !f.yes && run.rolls() {
		if err := run.confirm(); err != nil {
			return err
		}
	}
	if err := run.admission(ctx); err != nil {
		return err
	}
	if err := run.do(ctx, routes.Route); err != nil {
		return err
	}
	return run.printDone("routed")
}

// A planner plans all steps from a view, and returns the resulting view.
type planner func(*routes.View) ([]*routes.Step, *routes.View, error)

func planRoute(view *routes.View) ([]*routes.Step, *routes.View, error) {
	return routes.Steps(view, routes.Route)
}

// plan reads the namespace, plans the steps and announces the rollouts.
func (f *routeFlags) plan(ctx context.Context, c *cluster.Client, workloads []*plan.Workload, steps planner) (*routeRun, error) {
	r, err := c.Routing(ctx, workloads)
	if err != nil {
		return nil, err
	}
	if err := r.Routable(); err != nil {
		return nil, err
	}
	if err := r.MayRoute(ctx); err != nil {
		return nil, err
	}
	if err := r.ReadPolicies(ctx); err != nil {
		return nil, err
	}
	run := &routeRun{tool: f.tool, print: f.print, routing: r, strategy: f.dryRun, timeout: f.timeout, wait: f.wait, verb: "route"}
	view, err := run.plan(ctx, steps)
	if err != nil {
		return nil, err
	}
	notices, err := routes.Notices(view)
	if err != nil {
		return nil, err
	}
	if len(run.steps) > 0 {
		for _, n := range append(notices, routes.ProtocolNotices(view)...) {
			f.warn("%s", n)
		}
	}
	run.announce()
	return run, nil
}

// list prints the routed workloads, forked or not.
func (f *routeFlags) list(ctx context.Context, c *cluster.Client) error {
	namespace := c.Namespace
	if f.allNamespaces {
		namespace = ""
	}
	v, err := c.RouteInventory(ctx, namespace)
	if err != nil {
		return err
	}
	list := v.DescribeRoutes(f.line)
	switch {
	case f.print.OutputFlagSpecified() && *f.print.OutputFormat != "name":
		return printStatus(f.print, f.Out, list)
	case f.print.OutputFlagSpecified():
		p := &objectPrinter{flags: f.print, out: f.Out}
		for _, w := range v.Routed {
			if err := p.print("", w.Object); err != nil {
				return err
			}
		}
		return nil
	case len(list.Items) == 0 && f.allNamespaces:
		fmt.Fprintln(f.ErrOut, "No routed workloads found.")
	case len(list.Items) == 0:
		fmt.Fprintf(f.ErrOut, "No routed workloads found in %s namespace.\n", c.Namespace)
	default:
		return printRoutes(f.Out, tableFlags{print: f.print}, list, f.allNamespaces, v.Now)
	}
	return nil
}

// A routeRun is one run of `route` or `unroute` over some workloads.
type routeRun struct {
	*tool
	print    *genericclioptions.PrintFlags
	routing  *cluster.Routing
	strategy cmdutil.DryRunStrategy
	timeout  time.Duration
	wait     bool
	verb     string // the command: "route" or "unroute"

	next func(*routes.View) (*routes.Step, error) // of unroute

	services []*corev1.Service // that were named
	targets  []*plan.Workload
	steps    []*routes.Step // all that are to come, if all goes well
	final    *routes.View   // and how things are then
	wrote    []routeWritten
	waits    []routes.Wait // the last known
}

// A routeWritten is an object as the API server stored it.
type routeWritten struct {
	write  routes.Write
	object *unstructured.Unstructured
}

// plan plans all steps, and returns the view that they start from.
func (r *routeRun) plan(ctx context.Context, steps planner) (*routes.View, error) {
	view, err := r.routing.View(ctx)
	if err != nil {
		return nil, err
	}
	r.targets = view.Targets
	if r.steps, r.final, err = steps(view); err != nil {
		return nil, err
	}
	return view, nil
}

// rolls reports whether any workload rolls out.
func (r *routeRun) rolls() bool {
	for _, t := range r.targets {
		if r.rollouts(t) > 0 {
			return true
		}
	}
	return false
}

func (r *routeRun) rollouts(w *plan.Workload) int {
	n := 0
	for _, step := range r.steps {
		for _, write := range step.Writes {
			if write.Rolls != nil && write.Rolls.Object.GetUID() == w.Object.GetUID() {
				n++
			}
		}
	}
	return n
}

// announce prints which workloads will roll out.
func (r *routeRun) announce() {
	will := "will"
	if r.strategy != cmdutil.DryRunNone {
		will = "would"
	}
	for _, t := range r.targets {
		switch r.rollouts(t) {
		case 0:
		case 1:
			fmt.Fprintf(r.ErrOut, "%s %s roll out once\n", t, will)
		default:
			fmt.Fprintf(r.ErrOut, "%s %s roll out twice: for port names, and for routers\n", t, will)
		}
	}
}

// canAsk reports whether there is a terminal for a question.
func (r *routeRun) canAsk() bool {
	tty := term.TTY{In: r.screen.In, Out: r.screen.ErrOut}
	return tty.IsTerminalIn() && tty.IsTerminalOut()
}

// confirm asks the user whether to continue, if there is a terminal.
func (r *routeRun) confirm() error {
	if !r.canAsk() {
		return &plan.Problem{
			What: "--all rolls out the workloads named above, and there is no terminal to ask at",
			Hint: "to go on", Fix: plan.Kubectl("sandbox", "route", "--all", "--yes"),
		}
	}
	fmt.Fprint(r.ErrOut, "Go on? (y/n): ")
	var answer string
	if _, err := fmt.Fscanln(r.In, &answer); err != nil || !slices.Contains([]string{"y", "yes"}, strings.ToLower(answer)) {
		return errors.New("nothing was changed")
	}
	return nil
}

// admission checks before any change whether the pods would get routers.
func (r *routeRun) admission(ctx context.Context) error {
	if !r.rolls() {
		return nil
	}
	return r.routing.Admission(ctx, r.final)
}

var errRouteTimeout = errors.New("timed out")

// do takes the steps.
func (r *routeRun) do(ctx context.Context, next func(*routes.View) (*routes.Step, error)) error {
	running := ctx
	if r.timeout > 0 {
		var cancel context.CancelFunc
		running, cancel = context.WithTimeoutCause(ctx, r.timeout, errRouteTimeout)
		defer cancel()
	}
	show := r.progress()
	view, err := r.routing.Run(running, next, r.wait, cluster.RouteObserver{
		Wrote: func(w *routes.Write, object *unstructured.Unstructured) {
			r.wrote = append(r.wrote, routeWritten{*w, object})
		},
		Waiting: func(step *routes.Step) {
			r.waits = step.Waits
			show.update(step.Title + ": " + describeWait(step.Waits[0]))
		},
	})
	show.end()
	if err != nil {
		return r.explain(ctx, err)
	}
	if r.verb == "route" && r.wait {
		return r.checkRouters(view)
	}
	return nil
}

func describeWait(w routes.Wait) string {
	if w.Workload == nil {
		return w.Message
	}
	return w.Workload.String() + ": " + w.Message
}

// explain adds to an error which steps are done, and how to resume or undo them.
func (r *routeRun) explain(ctx context.Context, err error) error {
	p := &plan.Problem{What: err.Error(), Err: err}
	var known *plan.Problem
	switch {
	case ctx.Err() != nil:
		p.What, p.Code = "interrupted", status.CodeInterrupted
	case errors.Is(err, errRouteTimeout) || errors.Is(err, context.DeadlineExceeded):
		p.What, p.Code = fmt.Sprintf("timed out after %s (--timeout)", r.timeout), status.CodeTimedOut
		if len(r.waits) > 0 {
			p.What += ", waiting for " + describeWait(r.waits[0])
		}
	case errors.As(cluster.Explain(err), &known):
		p = known
	}
	if len(r.wrote) == 0 {
		return p
	}
	var objects []string
	for _, w := range r.wrote {
		if !slices.Contains(objects, w.write.Object) {
			objects = append(objects, w.write.Object)
		}
	}
	undo := "unroute"
	if r.verb == "unroute" {
		undo = "route"
	}
	fmt.Fprintf(r.ErrOut, "changed so far: %s\nto go on: %s\nto go back: %s\n", strings.Join(objects, ", "), r.command(r.verb), r.command(undo))
	return p
}

// command returns a command for the same workloads, for pasting.
func (r *routeRun) command(verb string) string {
	words := plan.Kubectl("sandbox", verb)
	for _, t := range r.targets {
		words = append(words, t.Arg())
	}
	return plan.Quote(withGlobals(words, given(r.globals)))
}

// checkRouters warns of ready pods that should have a router and have none. It fails if a workload has no pod with a
// router.
func (r *routeRun) checkRouters(view *routes.View) error {
	gaps := routes.RouterGaps(view)
	for _, g := range gaps {
		r.warn("%s: %s", g.Workload, g.Message)
	}
	if len(gaps) == 0 {
		return nil
	}
	return &plan.Problem{
		What: fmt.Sprintf("%s was rolled out, but not all its pods have routers: no request reaches a fork of it", gaps[0].Workload),
		Hint: "fix the reason above, then recreate its pods", Fix: plan.Kubectl("rollout", "restart", gaps[0].Workload.Arg()),
	}
}
