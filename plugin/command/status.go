package command

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/kubectl/pkg/scheme"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/printer"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
)

// statusFlags are the flags of `status`.
type statusFlags struct {
	*tool
	print    *genericclioptions.PrintFlags
	name     string
	exitCode bool
}

func newStatus(t *tool) *cobra.Command {
	f := &statusFlags{tool: t, print: genericclioptions.NewPrintFlags("").WithTypeSetter(scheme.Scheme)}
	cmd := &cobra.Command{
		Use:                   "status NAME",
		DisableFlagsInUseLine: true,
		Short:                 "Show what is ready in a sandbox, what is not, and why",
		Long: templates.LongDesc(`
			Show a sandbox and its forks, and whether requests with its key reach each of them. If they do not, status
			prints the reason and the command that fixes it. With -o yaml, -o json and the like, the output is a
			SandboxStatus.

			With --exit-code, the exit status is 0 if requests with the key reach all forks, 1 if they do not, and 2 if
			that is unknown.`),
		Example: templates.Examples(`
			# What is ready in a sandbox, and what is not
			kubectl sandbox status pr-42

			# The same for programs
			kubectl sandbox status pr-42 -o yaml

			# Why requests do not reach it, in one word
			kubectl sandbox status pr-42 -o jsonpath='{.conditions[?(@.type=="Routed")].reason}'

			# In a script
			kubectl sandbox status pr-42 --exit-code >/dev/null || echo "not routed"`),
		ValidArgsFunction: t.completeSandboxes(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.complete(cmd, args); err != nil {
				return err
			}
			return f.run(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&f.exitCode, "exit-code", false, "Exit with 1 if requests do not reach all forks, and with 2 if that is unknown.")
	f.print.AddFlags(cmd)
	return cmd
}

func (f *statusFlags) complete(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError(cmd, "status takes the name of one sandbox")
	}
	if err := validOutput(cmd, f.print); err != nil {
		return err
	}
	f.name = sandboxArg(args[0])
	return validName(cmd, f.name)
}

func (f *statusFlags) run(ctx context.Context) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	switch p := (&printer.Objects{Format: f.print, Out: f.Out}); {
	case p.Structured() && *f.print.OutputFormat != "name":
		v, err := read.New(c).SandboxInventory(ctx, f.name)
		if err != nil {
			return err
		}
		all := v.Sandboxes()
		if err := printer.StatusObject(f.Out, f.print, v.DescribeSandbox(&all[0], f.chosen().Command)); err != nil {
			return err
		}
		return f.exit(v)
	default:
		s, err := read.New(c).Status(ctx, f.name)
		if err != nil {
			return err
		}
		if p.Structured() {
			err = p.PrintSandbox(&s.Sandbox)
		} else {
			err = printer.Status(f.Out, s, f.chosen(), time.Now())
		}
		if err != nil || !f.exitCode {
			return err
		}
	}
	v, err := read.New(c).SandboxInventory(ctx, f.name)
	if err != nil {
		return err
	}
	return f.exit(v)
}

// exit returns the error for the exit status, with --exit-code.
func (f *statusFlags) exit(v *sandboxes.Inventory) error {
	reached, known := operate.Reached(v)
	switch {
	case !f.exitCode, reached:
		return nil
	case !known:
		return &exitError{code: status.ExitUnknown}
	}
	return &exitError{code: status.ExitFailed}
}
