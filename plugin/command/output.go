package command

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
)

// addObjectFlags adds the flags of a command that writes objects and prints them: --dry-run, and -o with its related
// flags.
func addObjectFlags(cmd *cobra.Command, format *genericclioptions.PrintFlags) {
	cmdutil.AddDryRunFlag(cmd)
	format.AddFlags(cmd)
	completeValues(cmd, "dry-run", "none", "client", "server")
}

// validOutput checks -o and its related flags before anything is read or changed.
func validOutput(cmd *cobra.Command, flags *genericclioptions.PrintFlags) error {
	_, err := flags.ToPrinter()
	switch {
	case genericclioptions.IsNoCompatiblePrinterError(err):
		formats := strings.Join(flags.AllowedFormats(), ", ")
		return usageError(cmd, fmt.Sprintf("--output %q is not one of %s", *flags.OutputFormat, formats))
	case err != nil:
		return usageError(cmd, fmt.Sprintf("--output %q: %v", *flags.OutputFormat, err))
	}
	return nil
}

// dryRun converts kubectl's strategy.
func dryRun(s cmdutil.DryRunStrategy) operate.DryRun {
	switch s {
	case cmdutil.DryRunClient:
		return operate.DryRunClient
	case cmdutil.DryRunServer:
		return operate.DryRunServer
	}
	return operate.DryRunNone
}
