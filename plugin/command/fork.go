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
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/printer"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// forkFlags are the flags and arguments of `fork`.
type forkFlags struct {
	*tool
	print *genericclioptions.PrintFlags

	name, key, whenUnready string
	images, keepLabels     []string
	templatePath           string
	change                 changeFlags
	replicas               int64
	ttl, timeout           time.Duration
	route, wait, restart   bool
	force, follow          bool

	workloads []string
	options   forks.Options
	dryRun    cmdutil.DryRunStrategy
	begun     time.Time

	timeoutGiven bool
}

func newFork(t *tool) *cobra.Command {
	f := &forkFlags{tool: t, print: genericclioptions.NewPrintFlags("forked").WithTypeSetter(scheme.Scheme)}
	cmd := &cobra.Command{
		Use:                   "fork TYPE/NAME... --image=[CONTAINER=]IMAGE",
		DisableFlagsInUseLine: true,
		Short:                 "Fork workloads into a sandbox",
		Long: templates.LongDesc(`
			Fork one or more workloads into a sandbox. A fork is a clone of the workload with another image, environment
			or other part of the pod template. It gets the requests that carry the sandbox's routing key, and no others.
			Any kind with a pod template can be forked, including custom kinds. Jobs and CronJobs can't, because they
			serve no requests.

			With --name of an existing sandbox, fork updates its forks and adds further ones. New changes are applied on
			top of earlier ones: a workload forked again with --env keeps the image of the earlier fork.

			The routing key of a sandbox is its name. If another sandbox of the namespace uses that key, fork generates
			a random key and reports it. --key sets the key.

			With --dry-run, --route also plans the routing, and fork refuses what the real command would refuse.

			Deleting a sandbox deletes everything in it. A sandbox is deleted when it expires (--ttl).`),
		Example: templates.Examples(`
			# Fork a Deployment with another image, under a generated name
			kubectl sandbox fork deploy/api --image=api:pr-42

			# Give the sandbox a name, and the fork an environment variable; take another variable away
			kubectl sandbox fork deploy/api --name=pr-42 --image=api:pr-42 --env=LOG_LEVEL=debug --env=CACHE-

			# Take a variable from a Secret, and give the container more memory
			kubectl sandbox fork deploy/api --env=DB_PASSWORD@secret/db/password --resources=limits.memory=1Gi

			# Run another command
			kubectl sandbox fork deploy/api --command='["/api", "--trace"]' --args=[]

			# Change anything else of the pod template
			kubectl sandbox fork deploy/api --patch='{"spec":{"terminationGracePeriodSeconds":5}}'

			# Fork a workload of a custom kind
			kubectl sandbox fork rollouts.argoproj.io/api --image=api:pr-42
			kubectl sandbox fork apps.example.com/api --template-path=spec.workload.template --image=api:pr-42

			# One sandbox over several workloads
			kubectl sandbox fork deploy/api deploy/worker --name=pr-42 --image=api=api:pr-42 --image=worker=worker:pr-42

			# Put routers in front of the workload as well, if it has none yet
			kubectl sandbox fork deploy/api --image=api:pr-42 --route

			# Print what would be applied
			kubectl sandbox fork deploy/api --name=pr-42 --image=api:pr-42 --dry-run=client -o yaml`),
		ValidArgsFunction: completion.SpecifiedResourceTypeAndNameCompletionFunc(t.factory, []string{"deployment", "statefulset", "daemonset", "replicaset"}),
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
	f.addFlags(cmd)
	f.change.addFlags(cmd)
	f.addApplyFlags(cmd)
	return cmd
}

// addFlags adds the flags that only `fork` has, besides those of a change.
func (f *forkFlags) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.images, "image", nil, "Image to run, as [CONTAINER=]IMAGE. Repeat it for further containers. "+
		"The container may be left out where it is clear which one is meant.")
	flags.StringVar(&f.name, "name", "", "Name of the sandbox. The default is a generated one.")
	flags.StringVar(&f.templatePath, "template-path", "", "Path of the pod template in workloads of a custom kind, "+
		"such as spec.workload.template. "+
		"The default is the workload's annotation kubectl-sandbox.dev/template, or spec.template.")
	flags.StringArrayVar(&f.keepLabels, "keep-label", nil, "Name of a label that the fork's pods keep from "+
		"the workload's, or NAME- to drop it. By default, they keep only labels that admission webhooks read, "+
		"so nothing that selects the workload's pods selects the fork's. Repeat it for further ones.")
	flags.Int64Var(&f.replicas, "replicas", 1, "Number of pods of each fork. "+
		"An update keeps the number unless this is given.")
	flags.StringVar(&f.key, "key", "", "Routing key of a new sandbox. "+
		"The default is the sandbox's name, or a random key if another sandbox uses that.")
	flags.StringVar(&f.whenUnready, "when-unready", "", `What requests with the key get while no pod of the fork `+
		`is ready: "error" (503, the default) or "baseline".`)
	flags.DurationVar(&f.ttl, "ttl", 0, "Lifetime of the sandbox from now on, such as 8h; 0 means forever. "+
		"Without it, each fork extends the lifetime to at least the cluster's default: "+
		"8h, or the chart's sandboxes.defaultTTL.")
	flags.BoolVar(&f.route, "route", false, "Put routers in front of workloads that have none, which rolls them out.")
	flags.BoolVar(&f.restart, "restart", false, "Roll out the forks even if nothing changes.")
	flags.BoolVar(&f.follow, "follow", false, "Have the webhook rebase the forks whenever their baselines change. "+
		"--follow=false stops this.")
	completeValues(cmd, "when-unready", sandbox.WhenUnreadyError, sandbox.WhenUnreadyBaseline)
}

// addApplyFlags adds the flags for applying forks, which `rebase` has as well.
func (f *forkFlags) addApplyFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.wait, "wait", true, "Wait until requests with the key reach the forks.")
	flags.DurationVar(&f.timeout, "timeout", 2*time.Minute, "How long to wait; 0 means no limit.")
	flags.BoolVar(&f.force, "force-conflicts", false, "Take over fields of a fork that others have changed, "+
		"such as its replicas by kubectl scale.")
	addObjectFlags(cmd, f.print)
}

// complete reads the flags and arguments.
func (f *forkFlags) complete(cmd *cobra.Command, args []string) (err error) {
	f.begun = time.Now()
	f.workloads, f.timeoutGiven = args, cmd.Flags().Changed("timeout")
	if f.dryRun, err = cmdutil.GetDryRunStrategy(cmd); err != nil {
		return usageError(cmd, lower(err))
	}
	f.options = forks.Options{
		Sandbox: f.name, Key: f.key, WhenUnready: f.whenUnready, Restart: f.restart, Route: f.route, Force: f.force,
		TemplatePath: f.templatePath, NewKey: sandbox.NewKey(), Now: f.begun,
	}
	if f.name == "" && !cmd.Flags().Changed("name") {
		f.options.Sandbox = sandbox.NewName()
	}
	if cmd.Flags().Changed("replicas") {
		f.options.Replicas = &f.replicas
	}
	if cmd.Flags().Changed("follow") {
		f.options.Follow = &f.follow
	}
	if cmd.Flags().Changed("ttl") {
		f.options.TTL = &f.ttl
	}
	for _, s := range f.images {
		c, err := forks.ParseImage(s)
		if err != nil {
			return usageError(cmd, err.Error())
		}
		f.options.Images = append(f.options.Images, c)
	}
	for _, s := range f.keepLabels {
		c, err := forks.ParseKeepLabel(s)
		if err != nil {
			return usageError(cmd, err.Error())
		}
		f.options.KeepLabels = append(f.options.KeepLabels, c)
	}
	if f.options.Change, err = f.change.parse(cmd, f.In); err != nil {
		return usageError(cmd, err.Error())
	}
	return nil
}

func (f *forkFlags) validate(cmd *cobra.Command) error {
	if len(f.workloads) == 0 {
		return usageError(cmd, "no workload is named: give it as TYPE/NAME, such as deploy/api")
	}
	if f.timeout < 0 {
		return usageError(cmd, fmt.Sprintf("--timeout %s is negative", f.timeout))
	}
	if cmd.Flags().Changed("key") && f.key == "" {
		return usageError(cmd, `--key "" must not be empty`)
	}
	if err := f.options.Validate(); err != nil {
		return usageError(cmd, err.Error())
	}
	return validOutput(cmd, f.print)
}

func (f *forkFlags) run(ctx context.Context) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	o := operate.ForkOptions{
		Workloads: f.workloads, Change: f.options, DryRun: dryRun(f.dryRun), Wait: f.wait, Timeout: f.timeout, RouteTimeout: f.timeout,
	}
	if !f.timeoutGiven {
		o.RouteTimeout = operate.RouteTimeout
	}
	report := &reporter{tool: f.tool, dryRun: f.dryRun}
	use := operate.Fork{Read: read.New(c), Write: apply.New(c), Wait: wait.New(c), Open: openRouting(c), Report: report}
	done, err := use.Run(ctx, o)
	if err != nil {
		return f.partlyRouted(err)
	}
	p := f.printer()
	if done.Statuses != nil {
		p.Gateway, _ = read.New(c).Gateway(ctx) // a nicety: the fork is there without it
	}
	p.Took = time.Since(f.begun)
	return p.PrintForked(done)
}

// printer returns what prints the result.
func (f *forkFlags) printer() *printer.Fork {
	objects := &printer.Objects{Format: f.print, DryRun: dryRun(f.dryRun), Out: f.Out}
	return &printer.Fork{Objects: objects, Globals: f.chosen(), Begun: f.begun}
}
