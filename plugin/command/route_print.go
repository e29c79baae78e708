package command

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
)

// printPlanned prints the objects as a client-side dry run: without the fields that only an API server sets, so that
// they can be committed as they are.
func (r *routeRun) printPlanned() error {
	if err := r.printer().printDone(r.planned()); err != nil {
		return err
	}
	if switches(routes.MergeSteps(r.steps)) {
		fmt.Fprintln(r.ErrOut, "Apply the Services only when the workloads have rolled out: a Service loses pods whose ports lack the name it goes to.")
	}
	return nil
}

// planned returns the objects with the changes of all steps.
func (r *routeRun) planned() []doneObject {
	var done []doneObject
	writes := routes.MergeSteps(r.steps)
	for i := range writes {
		w := &writes[i]
		object := w.After
		switch {
		case w.Create != nil:
			object = w.Create
		case w.Delete != "":
			object = w.Before
		}
		done = append(done, doneObject{operation(w, r.verb+"d"), plan.Manifest(object)})
	}
	return append(done, r.unchanged(writes)...)
}

func switches(writes []routes.Write) bool {
	for _, w := range writes {
		if strings.HasPrefix(w.Object, "service/") {
			return true
		}
	}
	return false
}

// dryRun prints the objects as the API server would store them.
func (r *routeRun) dryRun(ctx context.Context) error {
	done, err := r.dryRunObjects(ctx)
	if err != nil {
		return err
	}
	return r.printer().printDone(done)
}

func (r *routeRun) dryRunObjects(ctx context.Context) ([]doneObject, error) {
	var done []doneObject
	err := r.routing.DryRun(ctx, r.steps, func(w *routes.Write, object *unstructured.Unstructured) {
		done = append(done, doneObject{operation(w, r.verb+"d"), object})
	})
	return append(done, r.unchanged(routes.MergeSteps(r.steps))...), err
}

// printDone prints each changed object in its latest state, and each workload that needed no change.
func (r *routeRun) printDone(verbed string) error { return r.printer().printDone(r.done(verbed)) }

// done returns what printDone prints.
func (r *routeRun) done(verbed string) []doneObject {
	var order []string
	last := map[string]routeWritten{}
	created := map[string]bool{}
	for _, w := range r.wrote {
		if _, seen := last[w.write.Object]; !seen {
			order = append(order, w.write.Object)
		}
		last[w.write.Object] = w
		created[w.write.Object] = created[w.write.Object] || w.write.Create != nil
	}
	var done []doneObject
	var writes []routes.Write
	for _, name := range order {
		w := last[name]
		writes = append(writes, w.write)
		verb := operation(&w.write, verbed)
		if created[name] {
			verb = "created"
		}
		done = append(done, doneObject{verb, w.object})
	}
	return append(done, r.unchanged(writes)...)
}

// unchanged returns the targets that no write changes.
func (r *routeRun) unchanged(writes []routes.Write) []doneObject {
	var out []doneObject
	for _, t := range r.targets {
		if !slices.ContainsFunc(writes, func(w routes.Write) bool { return w.Object == t.String() }) {
			out = append(out, doneObject{"unchanged", t.Object})
		}
	}
	for _, s := range r.services {
		if !slices.ContainsFunc(writes, func(w routes.Write) bool { return w.Object == "service/"+s.Name }) {
			out = append(out, doneObject{"unchanged", typedService(s)})
		}
	}
	return out
}

// operation returns the word for what a write does to its object.
func operation(w *routes.Write, verbed string) string {
	switch {
	case w.Create != nil:
		return "created"
	case w.Delete != "":
		return "deleted"
	case w.IsWorkload():
		return verbed
	}
	return "configured"
}

func (r *routeRun) printer() *objectPrinter {
	return &objectPrinter{flags: r.print, dryRun: r.strategy, out: r.Out}
}

// printRoutes prints a row for each route, and one for each workload without routes.
func printRoutes(out io.Writer, table tableFlags, list status.RouteStatusList, namespaces bool, now time.Time) error {
	var columns []metav1.TableColumnDefinition
	if namespaces {
		columns = append(columns, column("Namespace", false))
	}
	for _, name := range []string{"Workload", "Routers", "State", "Sandbox", "Key", "Ready", "Requests", "Age"} {
		columns = append(columns, column(name, false))
	}
	var lines []metav1.TableRow
	for _, w := range list.Items {
		routes := w.Routes
		if len(routes) == 0 {
			routes = []status.Route{{}}
		}
		for _, r := range routes {
			cells := []any{w.Workload, fmt.Sprintf("%d/%d", w.Routers, w.Pods), w.State, none(""), none(""), none(""), none(""), age(w.Metadata.CreationTimestamp, now)}
			if r.Fork != "" {
				if w.State == string(health.StateRouted) {
					cells[2] = r.State
				}
				copy(cells[3:], []any{r.Sandbox, r.Key, fmt.Sprintf("%d/%d", r.ReadyReplicas, r.Replicas), requests(r.Requests), age(r.CreationTimestamp, now)})
			}
			if namespaces {
				cells = append([]any{w.Metadata.Namespace}, cells...)
			}
			lines = append(lines, metav1.TableRow{Cells: cells})
		}
	}
	return table.printTable(out, columns, lines)
}

func age(since *metav1.Time, now time.Time) string {
	if since == nil {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(since.Time))
}

// requests formats the number of requests with the key, and how many of them the fork did not answer.
func requests(c status.Requests) string {
	s := strconv.FormatUint(c.Fork+c.Baseline+c.Refused, 10)
	var but []string
	for _, part := range []struct {
		n    uint64
		what string
	}{{c.Refused, "refused"}, {c.Baseline, "to the baseline"}, {c.Unfinished, "broken off"}} {
		if part.n > 0 {
			but = append(but, strconv.FormatUint(part.n, 10)+" "+part.what)
		}
	}
	if len(but) > 0 {
		s += " (" + strings.Join(but, ", ") + ")"
	}
	return s
}
