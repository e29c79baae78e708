package command

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/kubectl/pkg/scheme"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
)

// listFlags are the flags of `list`.
type listFlags struct {
	*tool
	tableFlags
	allNamespaces bool
	selector      string
}

func newList(t *tool) *cobra.Command {
	f := &listFlags{tool: t, tableFlags: tableFlags{print: genericclioptions.NewPrintFlags("").WithTypeSetter(scheme.Scheme)}}
	cmd := &cobra.Command{
		Use:                   "list",
		Aliases:               []string{"ls"},
		DisableFlagsInUseLine: true,
		Short:                 "List sandboxes",
		Long: templates.LongDesc(`
			List the sandboxes of a namespace. With -o yaml, json and the like, their ConfigMaps are printed.`),
		Example: templates.Examples(`
			# The sandboxes of this namespace
			kubectl sandbox list

			# Those of all namespaces, with who made them and what is forked in them
			kubectl sandbox list -A -o wide

			# The key of each
			kubectl sandbox list -o jsonpath='{range .items[*]}{.data.key}{"\n"}{end}'`),
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
	f.addFlags(cmd)
	return cmd
}

func (f *listFlags) validate(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError(cmd, fmt.Sprintf("list takes no argument, got %q; a single sandbox is shown by `kubectl sandbox status`", args[0]))
	}
	if _, err := labels.Parse(f.selector); err != nil {
		return usageError(cmd, fmt.Sprintf("--selector %q: %v", f.selector, err))
	}
	return nil
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
	all, err := c.Sandboxes(ctx, namespace, f.selector)
	if err != nil {
		return err
	}
	if !f.table() {
		return f.printConfigMaps(all)
	}
	if len(all) == 0 {
		if f.allNamespaces {
			fmt.Fprintln(f.ErrOut, "No sandboxes found")
		} else {
			fmt.Fprintf(f.ErrOut, "No sandboxes found in %s namespace.\n", namespace)
		}
		return nil
	}
	var forks []appsv1.Deployment
	for i := range all {
		forks = append(forks, all[i].Forks...)
	}
	standings, err := c.Standings(ctx, forks)
	if err != nil {
		return err
	}
	if err := f.printRows(all, standings, time.Now()); err != nil {
		return err
	}
	if words := plan.RebaseCommand(all, standings); words != nil {
		fmt.Fprintf(f.ErrOut, "hint: lay the changes on the baselines as they are now: %s\n", f.line(words))
	}
	return nil
}

func (f *listFlags) printRows(all []plan.Sandbox, standings map[string]plan.Standing, now time.Time) error {
	columns := []metav1.TableColumnDefinition{
		column("Name", false), column("Key", false), column("Ready", false), column("Behind", false), column("Expires", false),
		column("Forks-of", true), column("Created-by", true), column("Age", false),
	}
	if f.allNamespaces {
		columns = append([]metav1.TableColumnDefinition{column("Namespace", false)}, columns...)
	}
	var rows []metav1.TableRow
	for i := range all {
		s := &all[i]
		expires := "never"
		if !s.Expires.IsZero() {
			expires = duration.HumanDuration(s.Expires.Sub(now))
		}
		cells := []any{
			s.Name, s.Key, fmt.Sprintf("%d/%d", s.Ready(), len(s.Forks)), fmt.Sprint(s.Behind(standings)), expires,
			none(strings.Join(s.Workloads(), ",")), none(s.CreatedBy), duration.HumanDuration(now.Sub(s.Created)),
		}
		if f.allNamespaces {
			cells = append([]any{s.Namespace}, cells...)
		}
		rows = append(rows, metav1.TableRow{Cells: cells})
	}
	return f.printTable(f.Out, columns, rows)
}

// printConfigMaps prints the sandboxes as other programs can read them.
func (f *listFlags) printConfigMaps(all []plan.Sandbox) error {
	var objects []runtime.Object
	for i := range all {
		if cm := all[i].ConfigMap; cm != nil {
			objects = append(objects, typed(cm))
		}
	}
	p := &objectPrinter{flags: f.print, out: f.Out}
	if *f.print.OutputFormat == "name" {
		for _, o := range objects {
			if err := p.print("", o); err != nil {
				return err
			}
		}
		return nil
	}
	list, err := asList(objects)
	if err != nil {
		return err
	}
	return p.print("", list)
}

// typed gives a ConfigMap that came from a typed client its kind back.
func typed(cm *corev1.ConfigMap) *corev1.ConfigMap {
	cm = cm.DeepCopy()
	cm.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}
	return cm
}

func typedFork(d *appsv1.Deployment) *appsv1.Deployment {
	d = d.DeepCopy()
	d.TypeMeta = metav1.TypeMeta{APIVersion: appsv1.SchemeGroupVersion.String(), Kind: "Deployment"}
	return d
}

func typedPolicy(p *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	p = p.DeepCopy()
	p.TypeMeta = metav1.TypeMeta{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "NetworkPolicy"}
	return p
}

// asList puts objects of several kinds into one v1 List.
func asList(objects []runtime.Object) (runtime.Object, error) {
	list := &unstructured.UnstructuredList{Object: map[string]any{"apiVersion": "v1", "kind": "List"}}
	for _, o := range objects {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			return nil, err
		}
		list.Items = append(list.Items, unstructured.Unstructured{Object: content})
	}
	return list, nil
}

// none is what kubectl prints in place of nothing.
func none(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}
