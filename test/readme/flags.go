package readme

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
)

// The tables of flags stand between these lines.
const (
	tableBegin = "<!-- flags: made by `make docs` -->"
	tableEnd   = "<!-- end of flags -->"
)

// Flags returns a Markdown section for each command below root that is not hidden: usage, what it does, and its own flags. Flags
// that do what kubectl's of the same name do are left out: those that all commands share, and how objects are printed.
func Flags(root *cobra.Command) string {
	var out strings.Builder
	for _, c := range root.Commands() {
		if !c.IsAvailableCommand() || slices.Contains([]string{"options", "help", "completion"}, c.Name()) {
			continue
		}
		usage := strings.TrimSuffix(c.UseLine(), " [flags]")
		fmt.Fprintf(&out, "#### `%s`\n\n%s.\n\n", usage, strings.TrimSuffix(c.Short, "."))
		writeTable(&out, c.NonInheritedFlags())
	}
	return out.String()
}

func writeTable(out *strings.Builder, flags *pflag.FlagSet) {
	printing := &cobra.Command{}
	genericclioptions.NewPrintFlags("").AddFlags(printing)
	var rows []string
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" || f.Name != "output" && printing.Flags().Lookup(f.Name) != nil {
			return
		}
		name := "`--" + f.Name + "`"
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		value := "`" + f.DefValue + "`"
		if slices.Contains([]string{"", "[]", "<nil>"}, f.DefValue) {
			value = ""
		}
		usage := strings.NewReplacer("|", `\|`, "\n", " ", "`", "").Replace(f.Usage)
		rows = append(rows, fmt.Sprintf("| %s | %s | %s |\n", name, value, usage))
	})
	if len(rows) == 0 {
		return
	}
	out.WriteString("| flag | default | meaning |\n|---|---|---|\n" + strings.Join(rows, "") + "\n")
}

// WithFlags returns the text with what stands between the marks of the table replaced.
func WithFlags(markdown, table string) (string, error) {
	return between(markdown, tableBegin, tableEnd, table)
}

// between replaces what stands between two lines.
func between(markdown, begin, end, table string) (string, error) {
	before, rest, ok := strings.Cut(markdown, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return "", errors.New("no table: the lines " + begin + " and " + end + " are missing")
	}
	return before + begin + "\n\n" + strings.TrimRight(table, "\n") + "\n\n" + end + after, nil
}
