package command

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/kubectl/pkg/scheme"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/printer"
)

// listFlags are the flags of `list`.
type listFlags struct {
	*tool
	print     *genericclioptions.PrintFlags
	noHeaders bool

	allNamespaces, watch bool
	selector             string
}

func newList(t *tool) *cobra.Command {
	f := &listFlags{tool: t, print: genericclioptions.NewPrintFlags("").WithTypeSetter(scheme.Scheme)}
	cmd := &cobra.Command{
		Use:                   "list",
		Aliases:               []string{"ls"},
		DisableFlagsInUseLine: true,
		Short:                 "List sandboxes",
		Long: templates.LongDesc(`
			List the sandboxes of a namespace. STATE is that of the worst fork; kubectl sandbox status says why. With -o
			yaml, -o json and the like, the output is a SandboxStatusList.`),
		Example: templates.Examples(`
			# The sandboxes of this namespace
			kubectl sandbox list

			# The same, and each sandbox again when it changes
			kubectl sandbox list -w

			# Those of all namespaces, with who made them and what is forked in them
			kubectl sandbox list -A -o wide

			# The key of each
			kubectl sandbox list -o jsonpath='{range .items[*]}{.metadata.name}: {.key}{"\n"}{end}'`),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.validate(cmd, args); err != nil {
				return err
			}
			return f.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.allNamespaces, "all-namespaces", "A", false, "List the sandboxes of all namespaces.")
	flags.StringVarP(&f.selector, "selector", "l", "", "Label selector of the sandboxes' ConfigMaps, such as team=checkout.")
	flags.BoolVarP(&f.watch, "watch", "w", false, "After listing, watch for changes: print each sandbox again that changes.")
	flags.BoolVar(&f.noHeaders, "no-headers", false, "Print a table without its headers.")
	f.print.AddFlags(cmd)
	output := flags.Lookup("output")
	output.Usage = strings.Replace(output.Usage, "name,", "name, wide,", 1)
	return cmd
}

func (f *listFlags) validate(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError(cmd, fmt.Sprintf("list takes no argument, got %q; a single sandbox is shown by `kubectl sandbox status`", args[0]))
	}
	if _, err := labels.Parse(f.selector); err != nil {
		return usageError(cmd, fmt.Sprintf("--selector %q: %v", f.selector, err))
	}
	switch *f.print.OutputFormat {
	case "", "wide":
		return nil
	}
	return validOutput(cmd, f.print)
}

func (f *listFlags) run(ctx context.Context) error {
	c, err := f.client()
	if err != nil {
		return err
	}
	namespace := c.Namespace
	if f.allNamespaces {
		namespace = metav1.NamespaceAll
	}
	o := operate.ListOptions{Namespace: namespace, Watch: f.watch}
	if f.selector != "" {
		if o.Selector, err = labels.Parse(f.selector); err != nil {
			return err
		}
	}
	show := printer.List{
		Format: f.print, NoHeaders: f.noHeaders, Out: f.Out, ErrOut: f.ErrOut, Globals: f.chosen(),
		Namespace: namespace, Watch: f.watch,
	}
	use := operate.List{Read: read.New(c), Show: show.Show, Update: show.Update}
	return use.Run(ctx, o)
}
