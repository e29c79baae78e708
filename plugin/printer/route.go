package printer

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/routes"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/status"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/health"
)

// A Route says what one run of `route` or `unroute` does to the objects of a namespace.
type Route struct {
	Plan   *operate.RoutePlan
	Verbed string // what happens to workloads: "routed" or "unrouted"
}

// Planned returns the objects with the changes of all steps, without the fields that only an API server sets, so that
// they can be committed as they are.
func (r *Route) Planned() []Done {
	var done []Done
	writes := routes.MergeSteps(r.Plan.Steps)
	for i := range writes {
		w := &writes[i]
		object := w.After
		switch {
		case w.Create != nil:
			object = w.Create
		case w.Delete != "":
			object = w.Before
		}
		done = append(done, Done{operation(w, r.Verbed), plan.Manifest(object)})
	}
	return append(done, r.unchanged(writes)...)
}

// ServicesHint prints, if the steps change Services, when these may be applied.
func (r *Route) ServicesHint(w io.Writer) {
	if slices.ContainsFunc(routes.MergeSteps(r.Plan.Steps), func(w routes.Write) bool {
		return strings.HasPrefix(w.Object, "service/")
	}) {
		fmt.Fprintln(w, "Apply the Services only when the workloads have rolled out: "+
			"a Service loses pods whose ports lack the name it goes to.")
	}
}

// Tried returns the objects of a dry run as the API server would store them.
func (r *Route) Tried(wrote []operate.RouteWritten) []Done {
	var done []Done
	for i := range wrote {
		done = append(done, Done{operation(&wrote[i].Write, r.Verbed), wrote[i].Object})
	}
	return append(done, r.unchanged(routes.MergeSteps(r.Plan.Steps))...)
}

// Done returns each changed object in its latest state, and each workload that needed no change.
func (r *Route) Done(wrote []operate.RouteWritten) []Done {
	var order []string
	last := map[string]operate.RouteWritten{}
	created := map[string]bool{}
	for _, w := range wrote {
		if _, seen := last[w.Write.Object]; !seen {
			order = append(order, w.Write.Object)
		}
		last[w.Write.Object] = w
		created[w.Write.Object] = created[w.Write.Object] || w.Write.Create != nil
	}
	var done []Done
	var writes []routes.Write
	for _, name := range order {
		w := last[name]
		writes = append(writes, w.Write)
		verb := operation(&w.Write, r.Verbed)
		if created[name] {
			verb = "created"
		}
		done = append(done, Done{verb, w.Object})
	}
	return append(done, r.unchanged(writes)...)
}

// unchanged returns the targets that no write changes.
func (r *Route) unchanged(writes []routes.Write) []Done {
	var out []Done
	for _, t := range r.Plan.Targets {
		if !slices.ContainsFunc(writes, func(w routes.Write) bool { return w.Object == t.String() }) {
			out = append(out, Done{"unchanged", t.Object})
		}
	}
	for _, s := range r.Plan.Services {
		if !slices.ContainsFunc(writes, func(w routes.Write) bool { return w.Object == "service/"+s.Name }) {
			out = append(out, Done{"unchanged", typedService(s)})
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

// PartlyRouted prints what was changed before an error, and how to resume or undo it.
func PartlyRouted(w io.Writer, partly *operate.PartlyRouted, globals Globals) {
	verb, undo := "route", "unroute"
	if partly.Plan.Removes {
		verb, undo = undo, verb
	}
	command := func(verb string) string {
		words := plan.Kubectl("sandbox", verb)
		for _, w := range partly.Plan.Targets {
			words = append(words, w.Arg())
		}
		return globals.Command(words)
	}
	fmt.Fprintf(w, "changed so far: %s\nto go on: %s\nto go back: %s\n",
		strings.Join(partly.Changed, ", "), command(verb), command(undo))
}

// Routes prints a row for each route, and one for each workload without routes. With namespaces, each row begins with
// its namespace.
func Routes(out io.Writer, list status.RouteStatusList, namespaces bool, now time.Time) error {
	var heads []metav1.TableColumnDefinition
	if namespaces {
		heads = columns("Namespace")
	}
	heads = append(heads, columns("Workload", "Routers", "State", "Sandbox", "Key", "Ready", "Requests", "Age")...)
	var rows []metav1.TableRow
	for _, w := range list.Items {
		routes := w.Routes
		if len(routes) == 0 {
			routes = []status.Route{{}}
		}
		for _, r := range routes {
			cells := routeCells(w, r, now)
			if namespaces {
				cells = append([]any{w.Metadata.Namespace}, cells...)
			}
			rows = append(rows, metav1.TableRow{Cells: cells})
		}
	}
	return table{}.print(out, heads, rows)
}

// routeCells returns the row of a route; of its workload alone, if the route is zero.
func routeCells(w status.RouteStatus, r status.Route, now time.Time) []any {
	cells := []any{
		w.Workload, fmt.Sprintf("%d/%d", w.Routers, w.Pods), w.State, none(""), none(""), none(""), none(""),
		age(w.Metadata.CreationTimestamp, now),
	}
	if r.Fork == "" {
		return cells
	}
	if w.State == string(health.StateRouted) {
		cells[2] = r.State
	}
	copy(cells[3:], []any{
		r.Sandbox, r.Key, fmt.Sprintf("%d/%d", r.ReadyReplicas, r.Replicas), requests(r.Requests),
		age(r.CreationTimestamp, now),
	})
	return cells
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
