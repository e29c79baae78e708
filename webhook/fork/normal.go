package fork

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork/env"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// The API server admits lists that contain a key twice: two variables with one name, or two ports with one number. But
// it refuses them in server-side apply, by which forks are written. So a fork is created from a template without
// duplicates that means the same to the kubelet. Patches of forks are computed from, and applied to, such templates.

// normalize leaves one element for each key of the template's lists, in place. It returns what was lost, for people.
func normalize(template map[string]any) (lost []string) {
	spec, _ := template["spec"].(map[string]any)
	if spec == nil {
		return nil
	}
	value, _, _ := unstructured.NestedString(template, "metadata", "annotations", sandbox.AnnotationPorts)
	captured, _ := sandbox.ParsePorts(value) // admission reports what is wrong with it
	for _, list := range []string{"containers", "initContainers"} {
		for _, c := range objects(spec[list]) {
			n := normalizer{container: c, at: fmt.Sprintf("container %v", c["name"])}
			n.env()
			n.ports(captured)
			n.last("volumeMounts", "mountPath")
			n.last("volumeDevices", "devicePath")
			lost = append(lost, n.lost...)
		}
	}
	n := normalizer{container: spec}
	n.last("imagePullSecrets", "name")
	n.hostAliases()
	return lost
}

// Lost returns what a fork cannot keep of the baseline's template because it is in a list that contains a key twice.
func Lost(template map[string]any) []string {
	return normalize(runtime.DeepCopyJSON(template))
}

// A normalizer works on one container, or on the pod spec.
type normalizer struct {
	container map[string]any
	at        string
	lost      []string
}

// list returns the objects of a list, and whether it contains a key twice. It leaves lists of anything else than
// objects with string keys to the API server, which refuses them.
func (n *normalizer) list(field, key string) (list []map[string]any, duplicates bool) {
	all, _ := n.container[field].([]any)
	list = objects(n.container[field])
	if len(list) != len(all) {
		return nil, false
	}
	seen := map[string]bool{}
	for _, e := range list {
		k, ok := e[key].(string)
		if !ok {
			return nil, false
		}
		duplicates = duplicates || seen[k]
		seen[k] = true
	}
	return list, duplicates
}

// last keeps the last of the elements with the same key, at the position of the first: the last mount hides the others.
func (n *normalizer) last(field, key string) {
	list, duplicates := n.list(field, key)
	if !duplicates {
		return
	}
	var kept []any
	at := map[string]int{}
	for _, e := range list {
		k := e[key].(string)
		if i, ok := at[k]; ok {
			kept[i] = e
			continue
		}
		at[k] = len(kept)
		kept = append(kept, e)
	}
	n.container[field] = kept
}

// hostAliases merges the entries of one address, which the kubelet writes to one file.
func (n *normalizer) hostAliases() {
	list, duplicates := n.list("hostAliases", "ip")
	if !duplicates {
		return
	}
	var kept []any
	of := map[string]map[string]any{}
	for _, e := range list {
		ip := e["ip"].(string)
		first, ok := of[ip]
		if !ok {
			of[ip] = e
			kept = append(kept, e)
			continue
		}
		names, _ := first["hostnames"].([]any)
		more, _ := e["hostnames"].([]any)
		for _, name := range more {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
		first["hostnames"] = names
	}
	n.container["hostAliases"] = kept
}

// earlierPrefix begins the names of variables that preserve earlier values of a name that is set again.
const earlierPrefix = "SANDBOX_EARLIER_"

func earlier(name string, n int) string { return fmt.Sprintf("%s%d_%s", earlierPrefix, n, name) }

// EarlierOf returns the original name of a variable with an earlierPrefix; false if it is none.
func EarlierOf(name string) (string, bool) {
	rest, ok := strings.CutPrefix(name, earlierPrefix)
	if !ok {
		return "", false
	}
	_, of, ok := strings.Cut(rest, "_")
	return of, ok
}

// env keeps the last variable of each name, in its position: the process gets its value. Variables between it and an
// earlier one may refer to the earlier one. If any does, that is kept under a name of its own.
func (n *normalizer) env() {
	list, duplicates := n.list("env", "name")
	if !duplicates {
		return
	}
	last := map[string]int{}
	taken := map[string]bool{}
	for i, e := range list {
		last[e["name"].(string)] = i
		taken[e["name"].(string)] = true
	}
	stand := map[string]string{} // new names of variables that are set again later
	var kept []any
	for i, e := range list {
		name := e["name"].(string)
		if value, ok := e["value"].(string); ok && value != "" {
			e["value"] = env.Rewrite(value, func(name string) (string, bool) {
				other, ok := stand[name]
				return env.Reference(other), ok
			})
		}
		delete(stand, name)
		if last[name] != i {
			next := i + 1 + slices.IndexFunc(list[i+1:], func(e map[string]any) bool { return e["name"] == name })
			if mayBeMissing(list[next]) {
				n.lost = append(n.lost, fmt.Sprintf("variable %s of %s, set twice, whose last source is optional: the fork lacks it where that is missing", name, n.at))
			}
			if !slices.ContainsFunc(list[i+1:next+1], func(e map[string]any) bool { return refers(e, name) }) {
				continue
			}
			k := 1
			for taken[earlier(name, k)] {
				k++
			}
			stand[name] = earlier(name, k)
			taken[stand[name]] = true
			e["name"] = stand[name]
		}
		kept = append(kept, e)
	}
	n.container["env"] = kept
}

// refers reports whether the value of a variable refers to another.
func refers(variable map[string]any, name string) bool {
	value, _ := variable["value"].(string)
	return slices.Contains(env.References(value), name)
}

// mayBeMissing reports whether a variable comes from an optional source.
func mayBeMissing(variable map[string]any) bool {
	from, _ := variable["valueFrom"].(map[string]any)
	for _, source := range from {
		if s, ok := source.(map[string]any); ok && s["optional"] == true {
			return true
		}
	}
	return false
}

// ports merges the ports of one number and protocol. It keeps one name, preferably a captured one. Requests reach a
// fork by number if it lacks the name, and its own probes and hooks are changed to numbers.
func (n *normalizer) ports(captured []sandbox.Port) {
	type key struct {
		number   any
		protocol string
	}
	all, _ := n.container["ports"].([]any)
	list := objects(n.container["ports"])
	if len(list) != len(all) {
		return
	}
	isCaptured := func(name string) bool {
		return slices.ContainsFunc(captured, func(p sandbox.Port) bool { return p.Name == name })
	}
	var kept []any
	of := map[key]map[string]any{}
	numbers := map[string]any{} // of removed names
	for _, p := range list {
		k := key{p["containerPort"], "TCP"}
		if protocol, _ := p["protocol"].(string); protocol != "" {
			k.protocol = protocol
		}
		first, ok := of[k]
		if !ok {
			of[k] = p
			kept = append(kept, p)
			continue
		}
		name, _ := p["name"].(string)
		was, _ := first["name"].(string)
		switch {
		case name == "":
		case was == "" || isCaptured(name) && !isCaptured(was):
			first["name"] = name
			if was != "" {
				numbers[was] = k.number
			}
		default:
			numbers[name] = k.number
		}
		n.hostPort(first, p)
	}
	if len(kept) == len(list) {
		return
	}
	n.container["ports"] = kept
	renumber(n.container, numbers)
}

// hostPort moves the node's port of another port to the one that replaces it.
func (n *normalizer) hostPort(first, other map[string]any) {
	port, ok := other["hostPort"]
	if !ok || port == first["hostPort"] && other["hostIP"] == first["hostIP"] {
		return
	}
	if first["hostPort"] != nil {
		n.lost = append(n.lost, fmt.Sprintf("hostPort %v of %s, whose port %v has another already", port, n.at, first["containerPort"]))
		return
	}
	first["hostPort"] = port
	if ip, ok := other["hostIP"]; ok {
		first["hostIP"] = ip
	}
}

// renumber replaces port names in probes and hooks of a container by numbers.
func renumber(container, numbers map[string]any) {
	handler := func(v any) {
		h, _ := v.(map[string]any)
		for _, kind := range []string{"httpGet", "tcpSocket"} {
			if action, ok := h[kind].(map[string]any); ok {
				if name, ok := action["port"].(string); ok && numbers[name] != nil {
					action["port"] = numbers[name]
				}
			}
		}
	}
	for _, probe := range []string{"livenessProbe", "readinessProbe", "startupProbe"} {
		handler(container[probe])
	}
	lifecycle, _ := container["lifecycle"].(map[string]any)
	handler(lifecycle["postStart"])
	handler(lifecycle["preStop"])
}
