package printer

import (
	"fmt"
	"io"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/printers"
)

// A table says how a table is printed.
type table struct{ wide, noHeaders bool }

// print prints rows under columns. Columns with a priority above 0 are for a wide table.
func (t table) print(out io.Writer, columns []metav1.TableColumnDefinition, rows []metav1.TableRow) error {
	printer := printers.NewTablePrinter(printers.PrintOptions{NoHeaders: t.noHeaders, Wide: t.wide})
	w := printers.GetNewTabWriter(out)
	if err := printer.PrintObj(&metav1.Table{ColumnDefinitions: columns, Rows: rows}, w); err != nil {
		return err
	}
	return w.Flush()
}

// columns defines columns that every table shows.
func columns(names ...string) (all []metav1.TableColumnDefinition) {
	for _, name := range names {
		all = append(all, metav1.TableColumnDefinition{Name: name, Type: "string"})
	}
	return all
}

// wideColumns defines columns that only a wide table shows.
func wideColumns(names ...string) []metav1.TableColumnDefinition {
	all := columns(names...)
	for i := range all {
		all[i].Priority = 1
	}
	return all
}

// none returns s, or what kubectl prints for an empty value.
func none(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}

// age formats how long ago something was created.
func age(since *metav1.Time, now time.Time) string {
	if since == nil {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(since.Time))
}

// expiry describes when a sandbox expires.
func expiry(at, now time.Time) string {
	switch {
	case at.IsZero():
		return "never expires"
	case at.Before(now):
		return "expired " + duration.HumanDuration(now.Sub(at)) + " ago"
	}
	left := duration.HumanDuration(at.Sub(now).Round(time.Second))
	return fmt.Sprintf("expires in %s (%s)", left, at.Local().Format(time.RFC3339))
}
