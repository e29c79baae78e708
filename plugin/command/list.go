package command

import (
	"context"
	"fmt"
	"strings"

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

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/sandboxes"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// listFlags are the flags of `list`.
type listFlags struct {
	*tool
	tableFlags
	allNamespaces, watch bool
	selector             string
}

func newList(t *tool) *cobra.Command {
	f := &listFlags{tool: t, tableFlags: tableFlags{print: genericclioptions.NewPrintFlags("").WithTypeSetter(scheme.Scheme)}}
	cmd := &cobra.Command{
		Use:                   "list",
		Aliases:               []string{"ls"},
		DisableFlagsInUseLine: true,
		Short:                 "List sandboxes",
		Long: templates.LongDesc(`
			List the sandboxes of a namespace. STATE is that of the worst fork; kubectl sandbox status says why. With -o
			yaml, -o json and the like, the output is a SandboxStatusList.`),
		Example: templates.Examples(`
			# The sandboxes of this namespace
			kubectl sandbox list

			# The same, and each sandbox again when it changes
			kubectl sandbox list -w

			# Those of all namespaces, with who made them and what is forked in them
			kubectl sandbox list -A -o wide

			# The key of each
			kubectl sandbox list -o jsonpath='{range .items[*]}{.metadata.name}: {.key}{"\n"}{end}'`),
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
	flags.BoolVarP(&f.watch, "watch", "w", false, "After listing, watch for changes: print each sandbox again that changes.")
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
	return f.tableFlags.validate(cmd)
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
	var changes <-chan error
	if f.watch {
		changes = c.WatchInventory(ctx, namespace) // before the first listing: what changes after it is not missed
	}
	v, err := f.read(ctx, c, namespace)
	if err != nil {
		return err
	}
	if err := f.show(v, namespace); err != nil || !f.watch {
		return err
	}
	w := &listWatch{listFlags: f, headers: f.table() && len(v.ConfigMaps)+len(v.Forks) > 0, seen: map[string]string{}}
	w.news(v)
	for err := range changes {
		if err == nil {
			v, err = f.read(ctx, c, namespace)
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // that is how a watch ends
		}
		if err == nil {
			err = w.print(v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// read reads the sandboxes that the selector selects.
func (f *listFlags) read(ctx context.Context, c *cluster.Client, namespace string) (*sandboxes.Inventory, error) {
	v, err := c.Inventory(ctx, namespace)
	if err != nil || f.selector == "" {
		return v, err
	}
	selector, err := labels.Parse(f.selector)
	if err != nil {
		return nil, err
	}
	v.Only(selector)
	return v, nil
}

func (f *listFlags) show(v *sandboxes.Inventory, namespace string) error {
	all := v.Sandboxes()
	if !f.table() {
		return f.printObjects(v, all)
	}
	if len(all) == 0 {
		if namespace == metav1.NamespaceAll {
			fmt.Fprintln(f.ErrOut, "No sandboxes found")
		} else {
			fmt.Fprintf(f.ErrOut, "No sandboxes found in %s namespace.\n", namespace)
		}
		return nil
	}
	if err := f.printRows(f.tableFlags, v, all); err != nil {
		return err
	}
	if words := sandboxes.RebaseCommand(all, v.BaselineStates); words != nil && !f.watch {
		fmt.Fprintf(f.ErrOut, "hint: rebase the forks: %s\n", f.line(words))
	}
	return nil
}

func (f *listFlags) printRows(table tableFlags, v *sandboxes.Inventory, all []sandboxes.Sandbox) error {
	columns := []metav1.TableColumnDefinition{
		column("Name", false), column("Key", false), column("Ready", false), column("State", false), column("Behind", false), column("Expires", false),
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
			expires = duration.HumanDuration(s.Expires.Sub(v.Now))
		}
		cells := []any{
			s.Name, s.Key, fmt.Sprintf("%d/%d", v.Ready(s), len(s.Forks)), v.State(s).Word(), fmt.Sprint(s.Behind(v.BaselineStates)), expires,
			none(strings.Join(s.Workloads(), ",")), none(s.CreatedBy), duration.HumanDuration(v.Now.Sub(s.Created)),
		}
		if f.allNamespaces {
			cells = append([]any{s.Namespace}, cells...)
		}
		rows = append(rows, metav1.TableRow{Cells: cells})
	}
	return table.printTable(f.Out, columns, rows)
}

// printObjects prints the sandboxes for programs; -o name prints their ConfigMaps.
func (f *listFlags) printObjects(v *sandboxes.Inventory, all []sandboxes.Sandbox) error {
	if *f.print.OutputFormat != "name" {
		return printStatus(f.print, f.Out, v.DescribeSandboxes(f.line))
	}
	p := &objectPrinter{flags: f.print, out: f.Out}
	for i := range all {
		if cm := all[i].ConfigMap; cm != nil {
			if err := p.print("", typed(cm)); err != nil {
				return err
			}
		}
	}
	return nil
}

// A listWatch prints sandboxes that change.
type listWatch struct {
	*listFlags
	headers bool              // they are printed
	seen    map[string]string // what was last said of each sandbox, by namespace and name
}

// news returns the sandboxes that have changed since the last call.
func (w *listWatch) news(v *sandboxes.Inventory) (changed []sandboxes.Sandbox) {
	for _, s := range v.Sandboxes() {
		id := s.Namespace + "/" + s.Name
		found := v.State(&s)
		now := fmt.Sprint(s.Key, s.Expires, found.Word(), found.Message, v.Ready(&s), s.Workloads(), s.Behind(v.BaselineStates))
		if w.seen[id] != now {
			w.seen[id] = now
			changed = append(changed, s)
		}
	}
	return changed
}

func (w *listWatch) print(v *sandboxes.Inventory) error {
	changed := w.news(v)
	if len(changed) == 0 {
		return nil
	}
	if w.table() {
		table := w.tableFlags
		table.noHeaders = table.noHeaders || w.headers
		w.headers = true
		return w.printRows(table, v, changed)
	}
	for i := range changed {
		if *w.listFlags.print.OutputFormat == "name" {
			fmt.Fprintf(w.Out, "configmap/%s\n", sandbox.ConfigMapName(changed[i].Name))
			continue
		}
		if err := printStatus(w.listFlags.print, w.Out, v.DescribeSandbox(&changed[i], w.line)); err != nil {
			return err
		}
	}
	return nil
}

// typed sets the kind of a ConfigMap, which typed clients leave empty.
func typed(cm *corev1.ConfigMap) *corev1.ConfigMap {
	cm = cm.DeepCopy()
	cm.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}
	return cm
}

func typedService(s *corev1.Service) *corev1.Service {
	s = s.DeepCopy()
	s.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Service"}
	return s
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

// asList returns objects of several kinds as one v1 List.
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

// none returns s, or what kubectl prints for an empty value.
func none(s string) string {
	if s == "" {
		return "<none>"
	}
	return s
}
