// Package printer prints what commands did or found: objects and tables in the format of -o, and text. It reads no
// flags and calls no API: it is given results, an output format and writers.
package printer

import (
	"io"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
)

// An Objects prints objects in the format of -o; without -o, as "TYPE/NAME verbed".
type Objects struct {
	Format *genericclioptions.PrintFlags
	DryRun operate.DryRun
	Out    io.Writer

	whole printers.ResourcePrinter // with -o yaml and the like: one for all, since it writes what stands between them
}

// Structured reports whether -o requests objects, and not words.
func (p *Objects) Structured() bool {
	return p.Format.OutputFormat != nil && *p.Format.OutputFormat != ""
}

// Print prints an object, or that VERB happened to it.
func (p *Objects) Print(verb string, o runtime.Object) error {
	if p.whole != nil {
		return p.whole.PrintObj(o, p.Out)
	}
	named := *p.Format.NamePrintFlags
	named.Operation = verb
	flags := *p.Format
	flags.NamePrintFlags = &named
	if err := completeDryRun(&flags, p.DryRun); err != nil {
		return err
	}
	printer, err := flags.ToPrinter()
	if err != nil {
		return err
	}
	if p.Structured() && *p.Format.OutputFormat != "name" {
		p.whole = printer
	}
	return printer.PrintObj(o, p.Out)
}

// completeDryRun adds to the verb that nothing happened, in kubectl's words.
func completeDryRun(flags *genericclioptions.PrintFlags, dryRun operate.DryRun) error {
	switch dryRun {
	case operate.DryRunClient:
		return flags.Complete("%s (dry run)")
	case operate.DryRunServer:
		return flags.Complete("%s (server dry run)")
	}
	return nil
}

// PrintAll prints objects one after the other if the format allows several documents, as YAML does; else as one list.
func (p *Objects) PrintAll(verb string, objects []runtime.Object) error {
	if p.severalDocuments() {
		for _, o := range objects {
			if err := p.Print(verb, o); err != nil {
				return err
			}
		}
		return nil
	}
	list, err := asList(objects)
	if err != nil {
		return err
	}
	return p.Print(verb, list)
}

// PrintEach is PrintAll, but prints a single object without a list.
func (p *Objects) PrintEach(verb string, objects []runtime.Object) error {
	if len(objects) == 1 {
		return p.Print(verb, objects[0])
	}
	return p.PrintAll(verb, objects)
}

// A Done is an object with what happened to it.
type Done struct {
	Verb   string
	Object runtime.Object
}

// PrintDone prints objects as PrintEach does, or, if -o requests no objects, what happened to each.
func (p *Objects) PrintDone(all []Done) error {
	if !p.severalDocuments() {
		objects := make([]runtime.Object, len(all))
		for i, o := range all {
			objects[i] = o.Object
		}
		return p.PrintEach("", objects)
	}
	for _, o := range all {
		if err := p.Print(o.Verb, o.Object); err != nil {
			return err
		}
	}
	return nil
}

// severalDocuments reports whether the format allows several objects one after the other.
func (p *Objects) severalDocuments() bool {
	return !p.Structured() || slices.Contains([]string{"name", "yaml", "kyaml"}, *p.Format.OutputFormat)
}

// StatusObject prints an object of package status in the format of -o. It converts Go structs to maps first, as
// templates and JSONPath expect.
func StatusObject[T any](out io.Writer, format *genericclioptions.PrintFlags, object T) error {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&object)
	if err != nil {
		return err
	}
	printer, err := format.ToPrinter()
	if err != nil {
		return err
	}
	return printer.PrintObj(&unstructured.Unstructured{Object: content}, out)
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
