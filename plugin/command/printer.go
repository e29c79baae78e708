package command

import (
	"io"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// An objectPrinter prints objects one after the other as -o says; without it, as "TYPE/NAME verbed".
type objectPrinter struct {
	flags  *genericclioptions.PrintFlags
	dryRun cmdutil.DryRunStrategy
	out    io.Writer
	whole  printers.ResourcePrinter // with -o yaml and the like: one for all, since it writes what stands between them
}

// structured says that -o asks for objects, not for words.
func (p *objectPrinter) structured() bool {
	return p.flags.OutputFormat != nil && *p.flags.OutputFormat != ""
}

// print prints an object, or that VERB happened to it.
func (p *objectPrinter) print(verb string, o runtime.Object) error {
	if p.whole != nil {
		return p.whole.PrintObj(o, p.out)
	}
	named := *p.flags.NamePrintFlags
	named.Operation = verb
	flags := *p.flags
	flags.NamePrintFlags = &named
	printer, err := cmdutil.PrintFlagsWithDryRunStrategy(&flags, p.dryRun).ToPrinter()
	if err != nil {
		return err
	}
	if p.structured() && *p.flags.OutputFormat != "name" {
		p.whole = printer
	}
	return printer.PrintObj(o, p.out)
}

// tableFlags are those of a verb that prints a table: -o with "wide", and --no-headers.
type tableFlags struct {
	print     *genericclioptions.PrintFlags
	noHeaders bool
}

// wide says that -o asks for a table with all its columns, table that it asks for one at all.
func (f *tableFlags) wide() bool  { return *f.print.OutputFormat == "wide" }
func (f *tableFlags) table() bool { return f.wide() || *f.print.OutputFormat == "" }

// printTable prints rows under columns; those of a priority above 0 are for -o wide.
func (f *tableFlags) printTable(out io.Writer, columns []metav1.TableColumnDefinition, rows []metav1.TableRow) error {
	printer := printers.NewTablePrinter(printers.PrintOptions{NoHeaders: f.noHeaders, Wide: f.wide()})
	w := printers.GetNewTabWriter(out)
	if err := printer.PrintObj(&metav1.Table{ColumnDefinitions: columns, Rows: rows}, w); err != nil {
		return err
	}
	return w.Flush()
}

// column defines one of a table; wide ones are shown with -o wide alone.
func column(name string, wide bool) metav1.TableColumnDefinition {
	c := metav1.TableColumnDefinition{Name: name, Type: "string"}
	if wide {
		c.Priority = 1
	}
	return c
}

// addFlags adds the flags, and "wide" to what -o says it takes.
func (f *tableFlags) addFlags(cmd *cobra.Command) {
	f.print.AddFlags(cmd)
	output := cmd.Flags().Lookup("output")
	output.Usage = strings.Replace(output.Usage, "name,", "name, wide,", 1)
	cmd.Flags().BoolVar(&f.noHeaders, "no-headers", false, "Print a table without its headers.")
}

// printAll prints objects, one after the other where the format holds several, as YAML does, else as one list.
func (p *objectPrinter) printAll(verb string, objects []runtime.Object) error {
	switch *p.flags.OutputFormat {
	case "", "name", "yaml", "kyaml":
		for _, o := range objects {
			if err := p.print(verb, o); err != nil {
				return err
			}
		}
		return nil
	}
	list, err := asList(objects)
	if err != nil {
		return err
	}
	return p.print(verb, list)
}
