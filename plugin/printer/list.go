package printer

import (
	"fmt"
	"io"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A List prints sandboxes as `list` shows them: first all, then those that change.
type List struct {
	Format    *genericclioptions.PrintFlags // without -o, or with "wide": a table
	NoHeaders bool
	Out       io.Writer
	ErrOut    io.Writer // for what is no sandbox
	Globals   Globals
	Namespace string // empty: all
	Watch     bool

	headers bool // whether they are printed
}

// Show prints the sandboxes.
func (l *List) Show(v *sandboxes.Inventory) error {
	l.headers = l.table() && len(v.ConfigMaps)+len(v.Forks) > 0
	all := v.Sandboxes()
	if !l.table() {
		return l.printObjects(v, all)
	}
	if len(all) == 0 {
		if l.Namespace == metav1.NamespaceAll {
			fmt.Fprintln(l.ErrOut, "No sandboxes found")
		} else {
			NoSandboxes(l.ErrOut, l.Namespace)
		}
		return nil
	}
	if err := l.printRows(v, all, l.NoHeaders); err != nil {
		return err
	}
	if words := sandboxes.RebaseCommand(all, v.BaselineStates); words != nil && !l.Watch {
		fmt.Fprintf(l.ErrOut, "hint: rebase the forks: %s\n", l.Globals.Command(words))
	}
	return nil
}

// Update prints sandboxes that have changed. A table's headers are not printed again.
func (l *List) Update(v *sandboxes.Inventory, changed []sandboxes.Sandbox) error {
	if l.table() {
		noHeaders := l.NoHeaders || l.headers
		l.headers = true
		return l.printRows(v, changed, noHeaders)
	}
	for i := range changed {
		if *l.Format.OutputFormat == "name" {
			fmt.Fprintf(l.Out, "configmap/%s\n", sandbox.ConfigMapName(changed[i].Name))
			continue
		}
		if err := StatusObject(l.Out, l.Format, v.DescribeSandbox(&changed[i], l.Globals.Command)); err != nil {
			return err
		}
	}
	return nil
}

// wide reports whether -o requests a table with all columns, and table whether it requests a table.
func (l *List) wide() bool  { return *l.Format.OutputFormat == "wide" }
func (l *List) table() bool { return l.wide() || *l.Format.OutputFormat == "" }

func (l *List) printRows(v *sandboxes.Inventory, all []sandboxes.Sandbox, noHeaders bool) error {
	heads := slices.Concat(columns("Name", "Key", "Ready", "State", "Behind", "Expires"),
		wideColumns("Forks-of", "Created-by"), columns("Age"))
	if l.Namespace == metav1.NamespaceAll {
		heads = append(columns("Namespace"), heads...)
	}
	var rows []metav1.TableRow
	for i := range all {
		s := &all[i]
		expires := "never"
		if !s.Expires.IsZero() {
			expires = duration.HumanDuration(s.Expires.Sub(v.Now))
		}
		cells := []any{
			s.Name, s.Key, fmt.Sprintf("%d/%d", v.Ready(s), len(s.Forks)), v.State(s).Word(),
			fmt.Sprint(s.Behind(v.BaselineStates)), expires,
			none(strings.Join(s.Workloads(), ",")), none(s.CreatedBy), duration.HumanDuration(v.Now.Sub(s.Created)),
		}
		if l.Namespace == metav1.NamespaceAll {
			cells = append([]any{s.Namespace}, cells...)
		}
		rows = append(rows, metav1.TableRow{Cells: cells})
	}
	return table{wide: l.wide(), noHeaders: noHeaders}.print(l.Out, heads, rows)
}

// printObjects prints the sandboxes for programs; -o name prints their ConfigMaps.
func (l *List) printObjects(v *sandboxes.Inventory, all []sandboxes.Sandbox) error {
	if *l.Format.OutputFormat != "name" {
		return StatusObject(l.Out, l.Format, v.DescribeSandboxes(l.Globals.Command))
	}
	p := &Objects{Format: l.Format, Out: l.Out}
	for i := range all {
		if cm := all[i].ConfigMap; cm != nil {
			if err := p.Print("", typed(cm)); err != nil {
				return err
			}
		}
	}
	return nil
}

// NoSandboxes prints that a namespace has no sandboxes.
func NoSandboxes(w io.Writer, namespace string) {
	fmt.Fprintf(w, "No sandboxes found in %s namespace.\n", namespace)
}
