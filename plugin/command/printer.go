package command

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

// An objectPrinter prints objects in the format of -o; without -o, as "TYPE/NAME verbed".
type objectPrinter struct {
	flags  *genericclioptions.PrintFlags
	dryRun cmdutil.DryRunStrategy
	out    io.Writer
	whole  printers.ResourcePrinter // with -o yaml and the like: one for all, since it writes what stands between them
}

// structured reports whether -o requests objects, and not words.
func (p *objectPrinter) structured() bool {
	return p.flags.OutputFormat != nil && *p.flags.OutputFormat != ""
}

// validOutput checks -o and its related flags before anything is read or changed.
func validOutput(cmd *cobra.Command, flags *genericclioptions.PrintFlags) error {
	_, err := flags.ToPrinter()
	switch {
	case genericclioptions.IsNoCompatiblePrinterError(err):
		return usageError(cmd, fmt.Sprintf("--output %q is not one of %s", *flags.OutputFormat, strings.Join(flags.AllowedFormats(), ", ")))
	case err != nil:
		return usageError(cmd, fmt.Sprintf("--output %q: %v", *flags.OutputFormat, err))
	}
	return nil
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

// tableFlags are the flags of a command that prints a table: -o with "wide", and --no-headers.
type tableFlags struct {
	print     *genericclioptions.PrintFlags
	noHeaders bool
}

// wide reports whether -o requests a table with all columns, and table whether it requests a table.
func (f *tableFlags) wide() bool  { return *f.print.OutputFormat == "wide" }
func (f *tableFlags) table() bool { return f.wide() || *f.print.OutputFormat == "" }

// printTable prints rows under columns. Columns with a priority above 0 are for -o wide.
func (f *tableFlags) printTable(out io.Writer, columns []metav1.TableColumnDefinition, rows []metav1.TableRow) error {
	printer := printers.NewTablePrinter(printers.PrintOptions{NoHeaders: f.noHeaders, Wide: f.wide()})
	w := printers.GetNewTabWriter(out)
	if err := printer.PrintObj(&metav1.Table{ColumnDefinitions: columns, Rows: rows}, w); err != nil {
		return err
	}
	return w.Flush()
}

// column defines a column of a table. Wide columns are shown only with -o wide.
func column(name string, wide bool) metav1.TableColumnDefinition {
	c := metav1.TableColumnDefinition{Name: name, Type: "string"}
	if wide {
		c.Priority = 1
	}
	return c
}

// validate checks -o.
func (f *tableFlags) validate(cmd *cobra.Command) error {
	if f.table() {
		return nil
	}
	return validOutput(cmd, f.print)
}

// addFlags adds the flags, and adds "wide" to the help of -o.
func (f *tableFlags) addFlags(cmd *cobra.Command) {
	f.print.AddFlags(cmd)
	output := cmd.Flags().Lookup("output")
	output.Usage = strings.Replace(output.Usage, "name,", "name, wide,", 1)
	cmd.Flags().BoolVar(&f.noHeaders, "no-headers", false, "Print a table without its headers.")
}

// printAll prints objects one after the other if the format allows several documents, as YAML does; else as one list.
func (p *objectPrinter) printAll(verb string, objects []runtime.Object) error {
	if p.severalDocuments() {
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

// printEach is printAll, but prints a single object without a list.
func (p *objectPrinter) printEach(verb string, objects []runtime.Object) error {
	if len(objects) == 1 {
		return p.print(verb, objects[0])
	}
	return p.printAll(verb, objects)
}

// A doneObject is an object with what happened to it.
type doneObject struct {
	verb   string
	object runtime.Object
}

// printDone prints objects as printEach does, or, if -o requests no objects, what happened to each.
func (p *objectPrinter) printDone(all []doneObject) error {
	if !p.severalDocuments() {
		objects := make([]runtime.Object, len(all))
		for i, o := range all {
			objects[i] = o.object
		}
		return p.printEach("", objects)
	}
	for _, o := range all {
		if err := p.print(o.verb, o.object); err != nil {
			return err
		}
	}
	return nil
}

// severalDocuments reports whether the format allows several objects one after the other.
func (p *objectPrinter) severalDocuments() bool {
	return !p.structured() || slices.Contains([]string{"name", "yaml", "kyaml"}, *p.flags.OutputFormat)
}

// printStatus prints an object of package status in the format of -o. It converts Go structs to maps first, as
// templates and JSONPath expect.
func printStatus[T any](flags *genericclioptions.PrintFlags, out io.Writer, object T) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&object)
	if err != nil {
		return err
	}
	printer, err := flags.ToPrinter()
	if err != nil {
		return err
	}
	return printer.PrintObj(&unstructured.Unstructured{Object: content}, out)
}
