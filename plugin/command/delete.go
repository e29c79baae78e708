package command

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/scheme"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
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
	cmdutil.AddDryRunFlag(cmd)
	f.print.AddFlags(cmd)
	completeValues(cmd, "dry-run", "none", "client", "server")
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
	doomed, missing, err := f.find(ctx, c)
	if err != nil {
		return err
	}
	var names []string
	// A write is never cancelled midway: ctx is checked between writes.
	write := context.WithoutCancel(ctx)
	for i := range doomed {
		if ctx.Err() != nil {
			break
		}
		if f.dryRun != cmdutil.DryRunClient {
			if err := c.Delete(write, &doomed[i], f.dryRun == cmdutil.DryRunServer); err != nil {
				return err
			}
		}
		names = append(names, doomed[i].Name)
	}
	if f.wait && f.dryRun == cmdutil.DryRunNone && len(names) > 0 {
		if err := f.await(ctx, c, names); err != nil {
			return err
		}
	}
	if err := f.printDeleted(doomed[:len(names)]); err != nil {
		return err
	}
	if len(names) < len(doomed) {
		return &plan.Problem{
			What: fmt.Sprintf("interrupted; %d of %d sandboxes are deleted", len(names), len(doomed)),
			Hint: "list the remaining ones", Fix: plan.Kubectl("sandbox", "list"), Code: status.CodeInterrupted,
		}
	}
	if len(missing) > 0 && !f.ignoreNotFound {
		return plan.NoSandbox(missing[0], c.Namespace, missing[1:]...)
	}
	return nil
}

// find returns the requested sandboxes, and the names of those that do not exist.
func (f *deleteFlags) find(ctx context.Context, c *cluster.Client) (found []sandboxes.Sandbox, missing []string, err error) {
	if len(f.names) > 0 {
		return c.SandboxesNamed(ctx, f.names)
	}
	found, err = c.Sandboxes(ctx, c.Namespace, f.selector)
	if err == nil {
		found, err = f.withPolicies(ctx, c, found)
	}
	if err == nil && len(found) == 0 {
		fmt.Fprintf(f.ErrOut, "No sandboxes found in %s namespace.\n", c.Namespace)
	}
	return found, nil, err
}

// withPolicies adds the policies of the sandboxes' forks. Without a selector, it also adds sandboxes of which only
// policies are left.
func (f *deleteFlags) withPolicies(ctx context.Context, c *cluster.Client, all []sandboxes.Sandbox) ([]sandboxes.Sandbox, error) {
	with, err := c.WithPolicies(ctx, all)
	if f.selector != "" {
		with = with[:min(len(all), len(with))]
	}
	return with, err
}

func (f *deleteFlags) await(ctx context.Context, c *cluster.Client, names []string) error {
	waiting := ctx
	if f.timeout > 0 {
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeout(ctx, f.timeout)
		defer cancel()
	}
	left, err := c.WaitDeleted(waiting, names)
	switch {
	case err == nil:
		return nil
	case waiting.Err() == nil:
		return err
	}
	what, code := fmt.Sprintf("deletion goes on after %s (--timeout)", f.timeout), status.CodeTimedOut
	if errors.Is(ctx.Err(), context.Canceled) {
		what, code = "interrupted; deletion goes on", status.CodeInterrupted
	}
	if len(left) > 0 {
		what += "; still there: " + strings.Join(left, ", ")
	}
	selector := sandbox.LabelSandbox + " in (" + strings.Join(names, ",") + ")"
	return &plan.Problem{
		What: what, Hint: "see what is left", Fix: plan.Kubectl("get", "deployments,networkpolicies,pods", "--selector="+selector), Code: code,
	}
}

// printDeleted prints the deleted objects.
func (f *deleteFlags) printDeleted(gone []sandboxes.Sandbox) error {
	var objects []runtime.Object
	for i := range gone {
		s := &gone[i]
		for j := range s.Policies {
			objects = append(objects, typedPolicy(&s.Policies[j]))
		}
		for j := range s.Forks {
			objects = append(objects, typedFork(&s.Forks[j]))
		}
		if s.ConfigMap != nil {
			objects = append(objects, typed(s.ConfigMap))
		}
	}
	p := &objectPrinter{flags: f.print, dryRun: f.dryRun, out: f.Out}
	return p.printAll("deleted", objects)
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
		names, err := c.SandboxNames(cmd.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
