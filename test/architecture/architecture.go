// Package architecture holds the product's packages to their design: which may import which, and which may not know
// Kubernetes. Its test reads the packages as the go command lists them.
package architecture

import (
	"fmt"
	"slices"
	"strings"
)

// Module is the import path of the product.
const Module = "github.com/kubectl-sandbox/kubectl-sandbox"

// A Package is what `go list -json` says of one.
type Package struct {
	ImportPath string
	Name       string
	Imports    []string // direct, without tests
	Deps       []string // transitive
}

// A layer is a package of the design, with all below it but what has an entry of its own, which comes before.
type layer struct {
	path string
	// imports are the layers, or packages within one, that it may import beside itself.
	imports []string
	// pure packages do no I/O and call no API: what they know they were given.
	pure bool
	// standalone packages, and all that they import, do without Kubernetes: they are built into the router.
	standalone bool
}

func layers() []layer {
	leaves := []string{"webhook/sandbox", "webhook/fork", "webhook/route", "webhook/health"}
	plans := []string{"plugin/plan", "plugin/plan/policies", "plugin/plan/forks", "plugin/plan/routes", "plugin/plan/sandboxes"}
	cluster := []string{"plugin/cluster", "plugin/cluster/read", "plugin/cluster/wait", "plugin/cluster/apply", "plugin/cluster/jobs"}
	experiments := []string{"plugin/experiment/suite", "plugin/experiment/judge", "plugin/experiment/result",
		"plugin/experiment/stats"}
	over := func(more ...string) []string { return slices.Concat(more, leaves) }
	return []layer{
		{path: "cmd/kubectl-sandbox", imports: []string{"plugin/command"}},
		{path: "cmd/sandbox-webhook", imports: []string{"webhook/server", "webhook/selftest", "webhook/sandbox"}},
		{path: "cmd/sandbox-router", imports: []string{"webhook/router"}, standalone: true},
		{path: "cmd/sandbox-probe", imports: []string{"plugin/probe", "plugin/experiment/result", "plugin/experiment/stats",
			"webhook/sandbox", "webhook/route"}, standalone: true},

		{path: "plugin/command", imports: over(slices.Concat(cluster, []string{"plugin/plan", "plugin/plan/forks",
			"plugin/plan/sandboxes", "plugin/escape", "plugin/status", "plugin/cluster/routing", "plugin/cluster/tunnel", "plugin/operate",
			"plugin/open", "plugin/experiment", "plugin/experiment/suite", "plugin/report", "plugin/printer"})...)},
		// Results in, text out: of plugin/cluster it takes the types of what was read and written.
		{path: "plugin/printer", imports: over("plugin/plan", "plugin/plan/forks", "plugin/plan/routes", "plugin/plan/sandboxes",
			"plugin/status", "plugin/cluster/read", "plugin/cluster/apply", "plugin/operate", "webhook/share")},
		// Of plugin/cluster it takes the types of what is read and written; what calls the API server it is given.
		{path: "plugin/operate", imports: over(slices.Concat(plans, cluster, []string{"plugin/status", "plugin/open", "plugin/experiment",
			"plugin/experiment/suite", "webhook/share"})...)},
		{path: "plugin/open", imports: over("plugin/plan", "webhook/preview", "webhook/engine", "webhook/engine/proxy")},
		{path: "plugin/cluster/jobs", imports: over("plugin/cluster", "plugin/cluster/read", "plugin/cluster/apply", "plugin/plan",
			"plugin/plan/sandboxes", "plugin/experiment", "plugin/experiment/suite")},
		{path: "plugin/cluster/apply", imports: over(slices.Concat(plans, []string{"plugin/cluster", "plugin/cluster/read"})...)},
		{path: "plugin/cluster/routing", imports: over("plugin/cluster", "plugin/cluster/read", "plugin/plan", "plugin/plan/routes")},
		{path: "plugin/cluster/wait", imports: over(slices.Concat(plans, []string{"plugin/cluster", "plugin/cluster/read"})...)},
		{path: "plugin/cluster/read", imports: over(slices.Concat(plans, []string{"plugin/cluster"})...)},
		{path: "plugin/cluster/tunnel", imports: over("plugin/cluster")},
		{path: "plugin/cluster", imports: over("plugin/plan", "plugin/status")},
		{path: "plugin/report", imports: over("plugin/escape", "plugin/plan", "plugin/experiment", "plugin/experiment/result")},
		{path: "plugin/escape", pure: true},
		// What a Job of a built-in check runs. It knows neither the plugin nor its cluster.
		{path: "plugin/probe", imports: []string{"plugin/experiment/result", "plugin/experiment/judge", "plugin/experiment/stats",
			"webhook/sandbox", "webhook/route"}, standalone: true},
		// Verdicts know a suite's checks. What creates Jobs from checks knows no verdict, and the statistics know neither.
		{path: "plugin/experiment/suite", imports: over("plugin/experiment/judge", "plugin/experiment/stats"), pure: true},
		{path: "plugin/experiment/judge", imports: []string{"plugin/experiment/result", "plugin/experiment/stats"}, pure: true,
			standalone: true},
		{path: "plugin/experiment/result", pure: true, standalone: true},
		{path: "plugin/experiment/stats", pure: true, standalone: true},
		{path: "plugin/experiment", imports: over(experiments...), pure: true},
		// Routing knows nothing of forks; a fork's plan begins with its routing where that is asked for.
		{path: "plugin/plan/forks", imports: over("plugin/plan", "plugin/plan/policies", "plugin/plan/notices", "plugin/plan/routes",
			"plugin/status"), pure: true},
		{path: "plugin/plan/routes", imports: over("plugin/plan", "plugin/plan/policies"), pure: true},
		{path: "plugin/plan/sandboxes", imports: over("plugin/plan", "plugin/status", "webhook/preview", "webhook/share"), pure: true},
		{path: "plugin/plan/notices", imports: over("plugin/plan"), pure: true},
		{path: "plugin/plan/policies", imports: over("plugin/plan"), pure: true},
		{path: "plugin/plan", imports: over("plugin/status"), pure: true},
		{path: "plugin/status", pure: true},

		{path: "webhook/server", imports: over("webhook/inject", "webhook/admission", "webhook/routes", "webhook/router", "webhook/gateway",
			"webhook/lifecycle", "webhook/certs", "webhook/telemetry")},
		{path: "webhook/admission", imports: over("webhook/inject")},
		// The gate is a view of routes and acknowledgements, and both read pods through one set of indices.
		{path: "webhook/lifecycle", imports: over("webhook/routes", "webhook/telemetry")},
		{path: "webhook/routes", imports: over("webhook/counts", "webhook/telemetry")},
		{path: "webhook/counts", imports: []string{"webhook/sandbox", "webhook/route", "webhook/health", "webhook/telemetry"}},
		{path: "webhook/telemetry"},
		{path: "webhook/selftest", imports: over()},
		{path: "webhook/gateway", imports: over("webhook/preview", "webhook/share", "webhook/engine/proxy", "webhook/engine")},
		{path: "webhook/share", pure: true},
		{path: "webhook/preview", imports: []string{"webhook/sandbox", "webhook/route", "webhook/engine"}, pure: true, standalone: true},
		{path: "webhook/certs", imports: over()},
		{path: "webhook/inject", imports: over(), pure: true},
		{path: "webhook/router", imports: []string{"webhook/sandbox", "webhook/route", "webhook/engine/proxy", "webhook/engine"},
			standalone: true},

		// The engine: its protocols know nothing of each other, nor of who serves connections by them.
		{path: "webhook/engine/enginetest", imports: []string{"webhook/engine/message", "webhook/engine/proxy", "webhook/engine"},
			standalone: true},
		{path: "webhook/engine/proxy", imports: []string{"webhook/engine/http1", "webhook/engine/http2", "webhook/engine/session", "webhook/engine"}, standalone: true},
		{path: "webhook/engine/http1", imports: []string{"webhook/engine/session", "webhook/engine/message", "webhook/engine"},
			standalone: true},
		{path: "webhook/engine/http2", imports: []string{"webhook/engine/session", "webhook/engine/message", "webhook/engine"},
			standalone: true},
		{path: "webhook/engine/session", imports: []string{"webhook/engine"}, standalone: true},
		{path: "webhook/engine/message", standalone: true},
		{path: "webhook/engine", imports: []string{"webhook/sandbox", "webhook/engine/message"}, standalone: true},

		{path: "webhook/fork", imports: []string{"webhook/sandbox"}, pure: true},
		{path: "webhook/health", imports: []string{"webhook/sandbox", "webhook/route"}, pure: true},
		{path: "webhook/route", imports: []string{"webhook/sandbox"}, pure: true, standalone: true},
		{path: "webhook/sandbox", pure: true, standalone: true},
	}
}

// Check returns what is against the design, one sentence each, in order.
func Check(packages []Package) []string {
	var problems []string
	for _, p := range packages {
		path, ours := strings.CutPrefix(p.ImportPath, Module+"/")
		if !ours {
			continue
		}
		l, ok := layerOf(path)
		if !ok {
			problems = append(problems, fmt.Sprintf("%s has no place in the layout", path))
			continue
		}
		for _, why := range slices.Concat(checkName(p), l.checkOwn(p), l.checkPure(p), l.checkKubernetes(p)) {
			problems = append(problems, path+" "+why)
		}
	}
	slices.Sort(problems)
	return problems
}

func layerOf(path string) (layer, bool) {
	for _, l := range layers() {
		if within(path, l.path) {
			return l, true
		}
	}
	return layer{}, false
}

func checkName(p Package) []string {
	if slices.Contains([]string{"util", "utils", "common", "helpers", "misc"}, p.Name) {
		return []string{"is named for nothing that it does"}
	}
	return nil
}

// checkOwn holds the direction in which the product's own packages import one another.
func (l layer) checkOwn(p Package) []string {
	var problems []string
	for _, i := range p.Imports {
		target, ours := strings.CutPrefix(i, Module+"/")
		if ours && !l.mayImport(target) {
			problems = append(problems, "must not import "+target)
		}
	}
	return problems
}

// mayImport says whether a package of the layer may import target. Leave to import a layer is none to import another one
// that lies below it.
func (l layer) mayImport(target string) bool {
	of, ok := layerOf(target)
	return ok && (of.path == l.path || slices.ContainsFunc(l.imports, func(i string) bool {
		return within(target, i) && within(i, of.path)
	}))
}

func (l layer) checkPure(p Package) []string {
	if !l.pure {
		return nil
	}
	const why = "is pure and must not import"
	return append(forbidExactly(p.Imports, why, "net"), forbid(p.Imports, why, "os", "net/http", "syscall", "log", "k8s.io/client-go",
		"k8s.io/cli-runtime", "k8s.io/kubectl/pkg/cmd", "sigs.k8s.io/controller-runtime")...)
}

func (l layer) checkKubernetes(p Package) []string {
	var problems []string
	if l.standalone {
		problems = append(problems, forbid(p.Deps, "must do without Kubernetes and depends on", "k8s.io", "sigs.k8s.io")...)
	}
	if !within(l.path, "plugin") && l.path != "cmd/kubectl-sandbox" {
		problems = append(problems, forbid(p.Deps, "is no part of the plugin and depends on", "k8s.io/kubectl")...)
	}
	if within(l.path, "plugin") && !within(l.path, "plugin/cluster") {
		// Flags and factory of k8s.io/kubectl, and the configuration they make, are handed through; calls are made in plugin/cluster.
		problems = append(problems, forbid(p.Imports, "leaves API calls to plugin/cluster and must not import",
			"k8s.io/cli-runtime/pkg/resource", "k8s.io/client-go/discovery", "k8s.io/client-go/dynamic", "k8s.io/client-go/kubernetes",
			"k8s.io/client-go/metadata", "k8s.io/client-go/scale", "k8s.io/client-go/tools/cache", "k8s.io/client-go/tools/watch",
			"sigs.k8s.io/controller-runtime")...)
		// Open serves and calls no API; the probe calls the service under test.
		if l.path != "plugin/open" && l.path != "plugin/probe" {
			problems = append(problems, forbid(p.Imports, "leaves API calls to plugin/cluster and must not import", "net/http")...)
		}
	}
	switch l.path {
	case "plugin/operate":
		problems = append(problems, forbid(p.Imports, "leaves flags and printing to plugin/command and must not import",
			"github.com/spf13", "k8s.io/cli-runtime", "k8s.io/kubectl")...)
	case "plugin/printer":
		// What -o chose comes as the PrintFlags of cli-runtime, which are the printers of kubectl.
		problems = append(problems, forbid(p.Imports, "leaves flags to plugin/command and must not import",
			"github.com/spf13", "k8s.io/kubectl")...)
	}
	if l.path != "webhook/server" {
		// Other packages name the interfaces of controller-runtime; one makes the manager, its server and its signals.
		problems = append(problems, forbidExactly(p.Imports, "leaves the set-up of controller-runtime to webhook/server and must not import",
			"sigs.k8s.io/controller-runtime", "sigs.k8s.io/controller-runtime/pkg/manager/signals",
			"sigs.k8s.io/controller-runtime/pkg/webhook")...)
	}
	return problems
}

func forbid(imports []string, why string, paths ...string) []string {
	var problems []string
	for _, i := range imports {
		if withinAny(i, paths) {
			problems = append(problems, why+" "+i)
		}
	}
	return problems
}

func forbidExactly(imports []string, why string, paths ...string) []string {
	var problems []string
	for _, i := range imports {
		if slices.Contains(paths, i) {
			problems = append(problems, why+" "+i)
		}
	}
	return problems
}

// within says whether path is root or lies below it.
func within(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

func withinAny(path string, roots []string) bool {
	return slices.ContainsFunc(roots, func(root string) bool { return within(path, root) })
}
