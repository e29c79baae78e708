package command

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/printer"
)

// versionFlags are the flags of `version`.
type versionFlags struct {
	*tool
	clientOnly, allNamespaces bool
	output                    string
}

func newVersion(t *tool) *cobra.Command {
	f := &versionFlags{tool: t}
	cmd := &cobra.Command{
		Use:                   "version",
		DisableFlagsInUseLine: true,
		Short:                 "Print the versions of client, webhook and routers",
		Long: templates.LongDesc(`
			Print the versions of this client, of the webhook in the cluster, and of the routers in the pods of the
			namespace. A pod keeps the router that it was created with.`),
		Example: templates.Examples(`
			# The versions of client, webhook and routers
			kubectl sandbox version

			# Those of the routers of all namespaces, for other programs
			kubectl sandbox version -A -o json

			# The client's alone, without asking the cluster
			kubectl sandbox version --client`),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.validate(cmd, args); err != nil {
				return err
			}
			return f.run(cmd.Context(), cmd.Parent().Version)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&f.clientOnly, "client", false, "Print only the client's version.")
	flags.BoolVarP(&f.allNamespaces, "all-namespaces", "A", false, "Include the routers of all namespaces.")
	flags.StringVarP(&f.output, "output", "o", "", "Output format. One of: (json, yaml).")
	completeValues(cmd, "output", "json", "yaml")
	return cmd
}

func (f *versionFlags) validate(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError(cmd, fmt.Sprintf("version takes no argument, got %q", args[0]))
	}
	switch f.output {
	case "", "json", "yaml":
		return nil
	}
	return usageError(cmd, fmt.Sprintf("--output %q is neither \"json\" nor \"yaml\"", f.output))
}

func (f *versionFlags) run(ctx context.Context, client string) error {
	v := printer.Versions{Client: client}
	if f.clientOnly {
		return v.Print(f.Out, f.output)
	}
	c, err := f.client()
	if err == nil {
		namespace := c.Namespace
		if f.allNamespaces {
			namespace = metav1.NamespaceAll
		}
		v.Versions, err = read.New(c).Versions(ctx, namespace)
	}
	if printed := v.Print(f.Out, f.output); printed != nil {
		return printed
	}
	return err
}
