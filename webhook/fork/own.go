package fork

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/fork/env"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A fork's pods lose the baseline's labels, and some annotations. References of the template to them, in variables or
// in files of the downward API, keep their values.

// A Metadata is a reference to the labels or annotations of the pod itself.
type Metadata struct {
	Field string // "labels" or "annotations"
	Key   string // empty: all of them
}

// ParseMetadata parses the fieldPath of a fieldRef; false if it refers to something else.
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

// An owner resolves a template's references to its own metadata to the values in the baseline.
type owner struct {
	// baseline is the metadata of the baseline's template, fork that of the fork's, by field. own adds annotations to the
	// fork's.
	baseline, fork map[string]map[string]any
}

// own replaces references in spec, in place, that the fork's pods could not resolve.
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

// gone returns a value that the baseline's template has and the fork's lacks.
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

// files makes the files of a volume refer to annotations of the fork that hold the values.
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

// labels returns all labels of the baseline's template and the fork's in the format of the downward API; false if the
// fork has all labels of the baseline.
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
