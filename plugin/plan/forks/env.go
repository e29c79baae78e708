package forks

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork/env"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// EnvSources are the objects from which containers take variables by envFrom, as "configmap/NAME" and "secret/NAME".
// Objects that do not exist are left out. Only the keys of a Secret are kept.
type EnvSources map[string]env.Object

// sources returns the objects in the form that package env resolves envFrom with.
func (s EnvSources) sources() env.Sources {
	of := func(kind string) func(string) (env.Object, bool) {
		return func(name string) (env.Object, bool) { o, ok := s[kind+"/"+name]; return o, ok }
	}
	return env.Sources{ConfigMap: of(fromConfigMap), Secret: of(fromSecret)}
}

// EnvSourceRefs returns the names, in the form of EnvSources, of all objects that containers of the forks may take
// variables from by envFrom: those of the baselines and those in the patch.
func EnvSourceRefs(o *Options, workloads []*plan.Workload, forks []unstructured.Unstructured) []string {
	found := map[string]bool{}
	for _, w := range workloads {
		envSources(w.Template(), found)
	}
	for i := range forks { // what an earlier change added
		envSources(forks[i].Object["spec"], found)
	}
	if o.Patch != nil {
		envSources(o.Patch.doc, found)
	}
	return slices.Sorted(maps.Keys(found))
}

// envSources adds the objects that are named in anything that looks like an entry of envFrom, anywhere in v.
func envSources(v any, found map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for field, kind := range map[string]string{"configMapRef": fromConfigMap, "secretRef": fromSecret} {
			if ref, ok := v[field].(map[string]any); ok {
				if name, ok := ref["name"].(string); ok && name != "" {
					found[kind+"/"+name] = true
				}
			}
		}
		for _, e := range v {
			envSources(e, found)
		}
	case []any:
		for _, e := range v {
			envSources(e, found)
		}
	}
}

// setEnv changes the environment of a container in place. An existing variable keeps its position, unless an earlier
// one refers to it: the kubelet resolves only references to earlier variables. A new variable is placed before those
// that refer to it, or last. Of several changes to one variable, the last wins.
func setEnv(container map[string]any, changes []EnvChange) (removed []string) {
	for i, change := range changes {
		if slices.ContainsFunc(changes[i+1:], func(later EnvChange) bool { return later.Name == change.Name }) {
			continue
		}
		list, _ := container["env"].([]any)
		at := slices.IndexFunc(list, func(e any) bool { return nameOf(e) == change.Name })
		if change.Remove {
			if at < 0 {
				continue
			}
			removed = append(removed, change.Name)
			// Keep the list even if it is empty: the patch then removes that variable, and not variables that the
			// baseline may get later.
			container["env"] = slices.DeleteFunc(list, func(e any) bool { return standsFor(e, change.Name) })
			continue
		}
		for _, e := range list { // what had an earlier value of it
			if of, ok := fork.EarlierOf(nameOf(e)); ok && of == change.Name {
				name := nameOf(e)
				variable := e.(map[string]any)
				clear(variable)
				maps.Copy(variable, change.variable())
				variable["name"] = name
			}
		}
		first := slices.IndexFunc(list, func(e any) bool { return nameOf(e) != change.Name && slices.Contains(referredTo(e), change.Name) })
		switch {
		case at >= 0 && (first < 0 || at < first):
			list[at] = change.variable()
		case first < 0:
			list = append(list, change.variable())
		default:
			if at >= 0 {
				list = slices.Delete(list, at, at+1)
			}
			list = slices.Insert(list, first, any(change.variable()))
		}
		container["env"] = list
	}
	return removed
}

// standsFor reports whether an entry of env is the variable, or keeps an earlier value of it.
func standsFor(e any, name string) bool {
	of, ok := fork.EarlierOf(nameOf(e))
	return nameOf(e) == name || ok && of == name
}

func nameOf(e any) string {
	m, _ := e.(map[string]any)
	name, _ := m["name"].(string)
	return name
}

// referredTo returns the variables that the value of an entry of env refers to.
func referredTo(e any) []string {
	m, _ := e.(map[string]any)
	value, _ := m["value"].(string)
	return env.References(value)
}

// references describes where a container refers to a variable.
func references(container map[string]any, name string) (places []string) {
	list, _ := container["env"].([]any)
	for _, e := range list {
		if slices.Contains(referredTo(e), name) {
			places = append(places, "variable "+nameOf(e))
		}
	}
	refers := func(words any) bool {
		list, _ := words.([]any)
		return slices.ContainsFunc(list, func(w any) bool {
			word, _ := w.(string)
			return slices.Contains(env.References(word), name)
		})
	}
	for _, field := range []string{"command", "args"} {
		if refers(container[field]) {
			places = append(places, field)
		}
	}
	for _, field := range []string{"startupProbe", "readinessProbe", "livenessProbe"} {
		probe, _ := container[field].(map[string]any)
		exec, _ := probe["exec"].(map[string]any)
		if refers(exec["command"]) {
			places = append(places, field)
		}
	}
	mounts, _ := container["volumeMounts"].([]any)
	for _, m := range mounts {
		mount, _ := m.(map[string]any)
		if refers([]any{mount["subPathExpr"]}) {
			places = append(places, fmt.Sprintf("mount %v", mount["mountPath"]))
		}
	}
	return places
}

// changeEnv applies --env to containers in place, and returns for each of them the variables that it removed.
func changeEnv(containers []map[string]any, changes []EnvChange) (removed [][]string) {
	for _, c := range containers {
		removed = append(removed, setEnv(c, changes))
	}
	return removed
}

// warnOfEnv warns of what --env does not do, or breaks, in containers whose variables are changed. removed are the
// variables that were removed, for each of them.
func (r *request) warnOfEnv(w *plan.Workload, containers []map[string]any, removed [][]string) (said warnings) {
	for i, c := range containers {
		for _, name := range removed[i] {
			if places := references(c, name); len(places) > 0 {
				said.add("%s: --env %s-: %s of container %s refers to it, and keeps the text %s unless "+
					"something else sets it; give it a value by --env=%s=...",
					w, name, strings.Join(places, " and "), nameOf(c), env.Reference(name), name)
			}
		}
		said = append(said, r.warnOfOrder(w, c)...)
	}
	all := slices.Concat(removed...)
	for i, change := range r.Env {
		again := slices.ContainsFunc(r.Env[i+1:], func(later EnvChange) bool { return later.Name == change.Name })
		if !change.Remove || again {
			continue
		}
		from := r.state.EnvFrom.origins(containers, change.Name)
		switch {
		case len(from) > 0:
			said.add("%s: --env %s: it comes from %s by envFrom, which gives all that it holds; --env=%s= makes it empty",
				w, change, strings.Join(from, " and "), change.Name)
		case !slices.Contains(all, change.Name):
			said.add("%s: --env %s: no container sets it, so there is nothing to remove", w, change)
		}
	}
	return said
}

// warnOfOrder warns if a variable of --env refers to a later one. It can't be moved behind that one, because earlier
// variables refer to it.
func (r *request) warnOfOrder(w *plan.Workload, container map[string]any) (said warnings) {
	list, _ := container["env"].([]any)
	for at, e := range list {
		if !slices.ContainsFunc(r.Env, func(c EnvChange) bool { return c.Name == nameOf(e) && !c.Remove }) {
			continue
		}
		for _, name := range referredTo(e) {
			if slices.ContainsFunc(list[at+1:], func(later any) bool { return nameOf(later) == name }) {
				said.add("%s: --env %s: container %s sets %s after it, so it keeps the text %s; "+
					"a --env of %s as well gives it a value before",
					w, nameOf(e), nameOf(container), name, env.Reference(name), name)
			}
		}
	}
	return said
}

// origins returns the objects from which containers get a variable by envFrom, as far as they could be read.
func (s EnvSources) origins(containers []map[string]any, name string) (from []string) {
	for _, c := range containers {
		if v, ok := s.byEnvFrom(c).Lookup(name); ok {
			from = plan.AppendNew(from, v.Origin)
		}
	}
	return from
}

// byEnvFrom returns the variables that a container gets by envFrom.
func (s EnvSources) byEnvFrom(container map[string]any) *env.Environment {
	var decoded corev1.Container
	if runtime.DefaultUnstructuredConverter.FromUnstructured(map[string]any{"envFrom": container["envFrom"]}, &decoded) != nil {
		return &env.Environment{} // the API server will report the error
	}
	return env.Resolve(&decoded, s.sources())
}

// envFrom returns the value of sandbox.AnnotationEnvFrom for a fork of that template. before is the value on the
// existing fork.
func envFrom(template map[string]any, before string, known EnvSources) string {
	was, _ := sandbox.ParseEnvFrom(before)
	names := map[string][]string{}
	for _, c := range namedMaps(template, "containers") {
		e := known.byEnvFrom(c)
		var own []string
		for _, name := range sandbox.GivenEnv() {
			_, has := e.Lookup(name)
			if has || len(e.Unread) > 0 && slices.Contains(was[nameOf(c)], name) {
				own = append(own, name)
			}
		}
		if len(own) > 0 {
			names[nameOf(c)] = own
		}
	}
	return sandbox.FormatEnvFrom(names)
}

// warnOfEnvFrom warns of objects that containers take variables from and that could not be read.
func (r *request) warnOfEnvFrom(w *plan.Workload, template map[string]any) (said warnings) {
	unread := map[string][]string{}
	for _, c := range namedMaps(template, "containers") {
		for _, object := range r.state.EnvFrom.byEnvFrom(c).Unread {
			unread[object] = append(unread[object], nameOf(c))
		}
	}
	for _, object := range slices.Sorted(maps.Keys(unread)) {
		said.add("%s: container %s has variables from %s by envFrom, which you may not read: if HTTP_PROXY, NO_PROXY or "+
			"OTEL_PROPAGATORS is among them, the fork has that of its router in its place; --env=NAME=... sets it",
			w, strings.Join(unread[object], ", "), object)
	}
	return said
}
