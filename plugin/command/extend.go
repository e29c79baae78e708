package command

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/scheme"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
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
	cmdutil.AddDryRunFlag(cmd)
	f.print.AddFlags(cmd)
	completeValues(cmd, "dry-run", "none", "client", "server")
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
	found, err := f.find(ctx, c)
	if err != nil {
		return err
	}
	byDefault, err := c.DefaultTTL(ctx)
	if err != nil {
		return err
	}
	var ttl *time.Duration
	if f.ttlGiven {
		ttl = &f.ttl
	}
	now := time.Now()
	extend := func(s *sandboxes.Sandbox) (*sandboxes.Extension, error) {
		return sandboxes.Extend(s, ttl, byDefault, now)
	}
	for i := range found {
		if _, err := extend(&found[i]); err != nil {
			return err // before anything is changed
		}
	}
	var all extended
	for i := range found {
		e, err := extend(&found[i])
		cm := (*corev1.ConfigMap)(nil)
		if err == nil {
			cm = e.Extended()
			if f.dryRun != cmdutil.DryRunClient {
				e, cm, err = c.Extend(ctx, &found[i], f.dryRun == cmdutil.DryRunServer, extend)
			}
		}
		if err != nil {
			return errors.Join(f.printExtended(all, now), err) // what is done is printed
		}
		all = append(all, extension{e, cm})
	}
	return f.printExtended(all, now)
}

// extended are sandboxes that were extended, each with its resulting ConfigMap.
type extended []extension

// An extension is one of them.
type extension struct {
	*sandboxes.Extension
	configMap *corev1.ConfigMap
}

func (f *extendFlags) printExtended(all extended, now time.Time) error {
	p := &objectPrinter{flags: f.print, dryRun: f.dryRun, out: f.Out}
	if p.structured() {
		objects := make([]runtime.Object, len(all))
		for i, e := range all {
			objects[i] = typed(e.configMap)
		}
		return p.printEach("extended", objects)
	}
	for _, e := range all {
		verb := "extended"
		if e.Unchanged {
			verb = "unchanged"
		}
		if err := p.print(verb, typed(e.configMap)); err != nil {
			return err
		}
		fmt.Fprintf(f.Out, "sandbox %s: %s\n", e.Sandbox.Name, expiry(e.Expires, now.Truncate(time.Second)))
	}
	return nil
}

// find returns the requested sandboxes. If one does not exist, the error is a *plan.Problem.
func (f *extendFlags) find(ctx context.Context, c *cluster.Client) ([]sandboxes.Sandbox, error) {
	if len(f.names) == 0 {
		all, err := c.Sandboxes(ctx, c.Namespace, f.selector)
		if err == nil && len(all) == 0 {
			fmt.Fprintf(f.ErrOut, "No sandboxes found in %s namespace.\n", c.Namespace)
		}
		return all, err
	}
	found, missing, err := c.SandboxesNamed(ctx, f.names)
	if err == nil && len(missing) > 0 {
		return nil, plan.NoSandbox(missing[0], c.Namespace, missing[1:]...)
	}
	return found, err
}
