package fork

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork/env"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A fork's pods lose the labels of the baseline's, and some annotations. What the template itself reads of them, by a variable or a
// file of the downward API, keeps its value.

// A Metadata is a reference to the labels or annotations of the pod itself.
type Metadata struct {
	Field string // "labels" or "annotations"
	Key   string // empty: all of them
}

// ParseMetadata reads the fieldPath of a fieldRef; false: it is about something else.
func ParseMetadata(fieldPath string) (Metadata, bool) {
	path, key := fieldPath, ""
	if before, ok := strings.CutSuffix(fieldPath, "']"); ok {
		if path, key, ok = strings.Cut(before, "['"); !ok {
			return Metadata{}, false
		}
	}
	field, ok := strings.CutPrefix(path, "metadata.")
	return Metadata{field, key}, ok && (field == "labels" || field == "annotations")
}

// An owner gives what a template reads of its own metadata the values that it has in the baseline.
type owner struct {
	// baseline is the metadata of the baseline's template, and fork that of the fork's, by field. The fork's annotations are
	// added to.
	baseline, fork map[string]map[string]any
}

// own replaces the references in spec, in place, that would lead to nothing in the fork's pods.
func (o *owner) own(spec map[string]any) {
	for _, list := range []string{"initContainers", "containers"} {
		for _, c := range objects(spec[list]) {
			for _, e := range objects(c["env"]) {
				o.variable(e)
			}
		}
	}
	for _, v := range objects(spec["volumes"]) {
		o.files(v["downwardAPI"])
		projected, _ := v["projected"].(map[string]any)
		for _, source := range objects(projected["sources"]) {
			o.files(source["downwardAPI"])
		}
	}
}

// gone returns the value of what the baseline's template has and the fork's does not.
func (o *owner) gone(m Metadata) (value string, ok bool) {
	if _, kept := o.fork[m.Field][m.Key]; kept {
		return "", false
	}
	value, ok = o.baseline[m.Field][m.Key].(string)
	return value, ok
}

func fieldRef(of map[string]any) map[string]any {
	ref, _ := of["fieldRef"].(map[string]any)
	return ref
}

func (o *owner) variable(e map[string]any) {
	from, _ := e["valueFrom"].(map[string]any)
	path, _ := fieldRef(from)["fieldPath"].(string)
	m, ok := ParseMetadata(path)
	if !ok {
		return
	}
	if value, ok := o.gone(m); ok {
		delete(e, "valueFrom")
		e["value"] = env.Literal(value)
	}
}

// files has the files of a volume be of annotations of the fork's own that hold the values.
func (o *owner) files(downward any) {
	volume, _ := downward.(map[string]any)
	for _, item := range objects(volume["items"]) {
		ref := fieldRef(item)
		path, _ := ref["fieldPath"].(string)
		m, ok := ParseMetadata(path)
		if !ok {
			continue
		}
		value, ok := o.gone(m)
		if m == (Metadata{Field: "labels"}) {
			value, ok = o.labels()
		}
		if ok {
			name := sandbox.InheritedAnnotation(m.Field, m.Key)
			o.fork["annotations"][name] = value
			ref["fieldPath"] = "metadata.annotations['" + name + "']"
		}
	}
}

// labels returns all labels of the baseline's template and the fork's as the downward API writes them; false where the fork's are
// all that the baseline's template has.
func (o *owner) labels() (string, bool) {
	all := maps.Clone(o.fork["labels"])
	lacks := false
	for name, value := range o.baseline["labels"] {
		if _, ok := all[name]; !ok {
			all[name], lacks = value, true
		}
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		value, _ := all[name].(string)
		lines = append(lines, name+"="+strconv.Quote(value))
	}
	return strings.Join(lines, "\n"), lacks
}
