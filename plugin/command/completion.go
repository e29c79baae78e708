package command

import (
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/kubectl/pkg/util/templates"
)

// completionScript is what kubectl runs to complete a plugin's arguments: an executable named kubectl_complete-PLUGIN
// on the PATH (https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/).
const completionScript = `#!/bin/sh
# kubectl runs this to complete the arguments of "kubectl sandbox".
exec kubectl sandbox __complete "$@"
`

func newCompletion(t *tool) *cobra.Command {
	return &cobra.Command{
		Use:                   "completion",
		DisableFlagsInUseLine: true,
		Short:                 "Print the script by which kubectl completes these commands",
		Long: templates.LongDesc(`
			Print the script by which kubectl completes the arguments of kubectl sandbox, in any shell that kubectl itself
			is completed in. It goes into a directory of the PATH, executable, as kubectl_complete-sandbox.`),
		Example: templates.Examples(`
			# Install it
			kubectl sandbox completion > ~/.local/bin/kubectl_complete-sandbox
			chmod +x ~/.local/bin/kubectl_complete-sandbox`),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError(cmd, fmt.Sprintf("completion takes no argument, got %q: the script serves all shells", args[0]))
			}
			_, err := fmt.Fprint(t.Out, completionScript)
			return err
		},
	}
}
