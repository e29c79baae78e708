package command

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A selection selects the sandboxes of the namespace that a command works on, by exactly one of its three fields.
type selection struct {
	names    []string
	selector string
	all      bool
}

// addFlags adds the selection's flags. verb is what the command does with the sandboxes.
func (s *selection) addFlags(cmd *cobra.Command, verb string) {
	flags := cmd.Flags()
	flags.StringVarP(&s.selector, "selector", "l", "", verb+" the sandboxes whose ConfigMaps this label selector selects.")
	flags.BoolVar(&s.all, "all", false, verb+" all sandboxes of the namespace.")
}

// complete takes the names from a command's arguments.
func (s *selection) complete(args []string) {
	for _, a := range args {
		s.names = append(s.names, sandboxArg(a))
	}
}

func (s *selection) validate(cmd *cobra.Command) error {
	ways := 0
	for _, given := range []bool{len(s.names) > 0, s.selector != "", s.all} {
		if given {
			ways++
		}
	}
	switch {
	case ways == 0:
		return usageError(cmd, fmt.Sprintf("name the sandboxes to %s, or use --selector or --all", cmd.Name()))
	case ways > 1:
		return usageError(cmd, "names, --selector and --all exclude one another")
	}
	if _, err := labels.Parse(s.selector); err != nil {
		return usageError(cmd, fmt.Sprintf("--selector %q: %v", s.selector, err))
	}
	for _, name := range s.names {
		if err := validName(cmd, name); err != nil {
			return err
		}
	}
	return nil
}

// sandboxArg reads a sandbox's name, also in the form that `list -o name` prints.
func sandboxArg(s string) string {
	return strings.TrimPrefix(s, "configmap/"+sandbox.ConfigMapName(""))
}

func validName(cmd *cobra.Command, name string) error {
	if err := sandbox.ValidateName(name); err != nil {
		return usageError(cmd, fmt.Sprintf("sandbox name %q %v", name, err))
	}
	return nil
}

// in returns the selection in a namespace.
func (s *selection) in(namespace string) operate.Selection {
	return operate.Selection{Namespace: namespace, Names: s.names, Selector: s.selector}
}
