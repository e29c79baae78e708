// Package command holds the commands of `kubectl sandbox`, one file each: parse, call a use case, hand its result to
// package printer. Every command is a struct of flags with the steps complete (parse only), validate and run.
package command

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
	"k8s.io/klog/v2"
	"k8s.io/kubectl/pkg/cmd/options"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/escape"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/printer"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
)

// A tool holds what every command needs.
type tool struct {
	genericiooptions.IOStreams // what is written to them is made legible
	// screen is what they lead to, for what writes to a terminal on purpose.
	screen  genericiooptions.IOStreams
	factory cmdutil.Factory
	// globals are the flags by which the caller chooses cluster, user and namespace.
	globals *pflag.FlagSet
}

// makeLegible keeps what the cluster says from acting on the terminal that it is shown on. Objects that are asked for as YAML, or by a
// template, are as they are; JSON stays the same JSON.
func (t *tool) makeLegible(cmd *cobra.Command) {
	t.ErrOut = escape.Writer(t.ErrOut)
	output := cmd.Flags().Lookup("output")
	if output == nil || slices.Contains([]string{"", "wide", "name", "json"}, output.Value.String()) {
		t.Out = escape.Writer(t.Out)
	}
}

// client returns the client for the cluster that the flags choose.
func (t *tool) client() (*cluster.Client, error) { return cluster.New(t.factory) }

// warn prints a warning in kubectl's format for warnings of an API server.
func (t *tool) warn(format string, args ...any) {
	printer.Warn(t.ErrOut, format, args...)
}

// chosen returns the flags by which the caller chose cluster, user and namespace.
func (t *tool) chosen() printer.Globals { return given(t.globals) }

// New returns the command `kubectl sandbox`, as a child of a command `kubectl`, so that help and usage show what
// users type. The caller sets its Version and executes it with Run. Every request to an API server passes through
// wrap; the last is the outermost.
func New(streams genericiooptions.IOStreams, wrap ...transport.WrapperFunc) *cobra.Command {
	t := &tool{IOStreams: streams, screen: streams}
	flags := genericclioptions.NewConfigFlags(true).
		WithDiscoveryBurst(300).WithDiscoveryQPS(50).
		WithWarningPrinter(streams).
		WithWrapConfigFn(func(c *rest.Config) *rest.Config {
			c.QPS = -1 // the API server's priority and fairness limits, as for kubectl's single commands
			c.WarningHandler = t.warningHandler(c.WarningHandler)
			c.Wrap(cluster.RetryConnect)
			for _, w := range wrap {
				c.Wrap(w)
			}
			return c
		})
	cmd := &cobra.Command{
		Use:   "sandbox",
		Short: "Fork a workload, and send it only the requests that ask for it",
		Long: templates.LongDesc(`
			Give a change its own sandbox in the cluster you already have: a fork of just the changed workload, next to
			everything it talks to. Only requests that carry the sandbox's routing key reach the fork; all others stay on
			the baseline.

			"kubectl sandbox help exit-status" says what exit statuses mean.`),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Args:          unknownVerb,

		SuggestionsMinimumDistance: 2,
		PersistentPreRun: func(cmd *cobra.Command, _ []string) {
			t.makeLegible(cmd)
			t.bufferNotices(cmd)
			if !klog.V(1).Enabled() {
				klog.SetLogger(logr.Discard()) // client-go logs the errors that it returns as well
			}
		},
	}
	flags.AddFlags(cmd.PersistentFlags())
	logging := flag.NewFlagSet("", flag.ContinueOnError)
	klog.InitFlags(logging)
	cmd.PersistentFlags().AddGoFlag(logging.Lookup("v")) // as kubectl's: 6 and above show the API calls
	t.factory, t.globals = cmdutil.NewFactory(flags), cmd.PersistentFlags()

	groups := templates.CommandGroups{
		{Message: "Sandbox Commands:", Commands: []*cobra.Command{newFork(t), newOpen(t), newList(t), newStatus(t), newRebase(t), newDiff(t), newExtend(t), newShare(t), newDelete(t)}},
		{Message: "Experiment Commands:", Commands: []*cobra.Command{newTest(t), newReport(t)}},
		{Message: "Baseline Commands:", Commands: []*cobra.Command{newRoute(t), newUnroute(t)}},
		{Message: "Other Commands:", Commands: []*cobra.Command{newVersion(t), newCompletion(t)}},
	}
	groups.Add(cmd)
	templates.ActsAsRootCommand(cmd, []string{"options"}, groups...)
	cmd.SetUsageFunc(fullName(cmd.UsageFunc()))
	cmd.AddCommand(options.NewCmdOptions(streams.Out), newExitStatus())
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError(cmd, err.Error()) })

	kubectl := &cobra.Command{Use: "kubectl", SilenceUsage: true, SilenceErrors: true}
	kubectl.SetIn(streams.In)
	kubectl.SetOut(streams.Out)
	kubectl.SetErr(streams.ErrOut)
	kubectl.CompletionOptions.DisableDefaultCmd = true
	kubectl.AddCommand(cmd)
	return cmd
}

// given returns, as arguments, the flags by which the caller chose cluster, user and namespace. Tokens and passwords
// are left out.
func given(globals *pflag.FlagSet) printer.Globals {
	var args printer.Globals
	globals.VisitAll(func(f *pflag.Flag) {
		if !f.Changed {
			return
		}
		switch f.Name {
		case "kubeconfig", "context", "cluster", "user", "namespace", "server", "tls-server-name", "insecure-skip-tls-verify",
			"certificate-authority", "client-certificate", "client-key", "as", "as-uid":
			args = append(args, "--"+f.Name+"="+f.Value.String())
		case "as-group":
			if groups, ok := f.Value.(pflag.SliceValue); ok {
				for _, g := range groups.GetSlice() {
					args = append(args, "--as-group="+g)
				}
			}
		}
	})
	return args
}

// usageError returns a *plan.Problem about the command line of cmd.
func usageError(cmd *cobra.Command, what string) error {
	return &plan.Problem{What: what, Fix: append(strings.Fields(cmd.CommandPath()), "--help"), Code: status.CodeUsage}
}

// fullName corrects the line of kubectl's usage template that names a command without its parent.
func fullName(usage func(*cobra.Command) error) func(*cobra.Command) error {
	return func(c *cobra.Command) error {
		out := c.OutOrStderr()
		var text bytes.Buffer
		c.SetOut(&text)
		defer c.SetOut(out)
		if err := usage(c); err != nil {
			return err
		}
		_, err := io.WriteString(out, strings.Replace(text.String(), `Use "sandbox <command>`, `Use "kubectl sandbox <command>`, 1))
		return err
	}
}

func unknownVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	what := fmt.Sprintf("unknown command %q", args[0])
	if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
		what += fmt.Sprintf("; did you mean %q?", s[0])
	}
	return usageError(cmd, what)
}

// lower makes a message of kubectl begin in lower case.
func lower(err error) string {
	s := err.Error()
	return strings.ToLower(s[:1]) + s[1:]
}

// completeValues makes the shell complete a flag with its possible values.
func completeValues(cmd *cobra.Command, flag string, values ...string) {
	err := cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return values, cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // the flag was added just before
	}
}
