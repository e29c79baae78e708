package admission

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// KeepWorkload returns a routed workload as it is stored when somebody writes after in the place of before.
//
// Its template keeps labels, annotations and port names that the record lists. What the writer changes on purpose is followed: a
// name of the owner's own takes the place of the recorded one; a port that moves to another number takes its name
// along; a container that is renamed keeps its ports' names; and what is gone leaves the record.
func KeepWorkload(before, after *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	kept := after.DeepCopy()
	if owned(after) {
		return kept, nil // a ReplicaSet has copies of its Deployment's annotations, and its template is the Deployment's to write
	}
	record, ok, err := intent(before, after)
	if err != nil || !ok {
		return kept, err
	}
	if record.Leaving {
		return kept, disown(kept)
	}
	at := templatePath(before, after)
	w := &workloadKeeper{before: templateOf(before, at), after: templateOf(kept, at), record: record, renamed: map[string]string{}}
	if w.record.Ports == "" && templateText(before, at, "labels", sandbox.LabelRole) == sandbox.RoleBaseline {
		w.record.Ports = templateText(before, at, "annotations", sandbox.AnnotationPorts) // a record of an earlier version
	}
	w.keepNames()
	w.followPorts()
	if record.Ports != "" || w.record.Ports != "" {
		w.mark(kept, at)
	}
	if at := text(before, "metadata", "annotations", sandbox.AnnotationTemplate); at != "" && record.Template {
		setAnnotation(kept, sandbox.AnnotationTemplate, at)
	}
	setAnnotation(kept, sandbox.AnnotationRouted, w.record.String())
	return kept, disown(kept)
}

// owned reports whether a controller writes the object.
func owned(u *unstructured.Unstructured) bool {
	for _, owner := range u.GetOwnerReferences() {
		if owner.Controller != nil && *owner.Controller {
			return true
		}
	}
	return false
}

// intent returns the record that holds: the one that is written, unless it is missing, can't be read, or is older than the one before. A
// rollout undo brings along the annotations of a ReplicaSet; a manifest may hold those of the day when it was exported.
func intent(before, after *unstructured.Unstructured) (record sandbox.RouteRecord, ok bool, err error) {
	old, had := before.GetAnnotations()[sandbox.AnnotationRouted]
	written, has := after.GetAnnotations()[sandbox.AnnotationRouted]
	switch {
	case !had && !has:
		return record, false, nil
	case !had:
		record, err = sandbox.ParseRouteRecord(written)
		return record, err == nil, err
	}
	record, err = sandbox.ParseRouteRecord(old)
	switch {
	case !has:
		return record, err == nil && !record.Leaving, err
	case written == old:
		return record, err == nil, err
	}
	is, unreadable := sandbox.ParseRouteRecord(written)
	switch {
	case unreadable != nil:
		return record, err == nil, err
	case err != nil || is.Since >= record.Since:
		return is, true, nil //nolint:nilerr // the record of before is replaced by one that can be read
	}
	return record, true, nil
}

// templatePath returns where the workload has its pod template.
func templatePath(before, after *unstructured.Unstructured) []string {
	for _, u := range []*unstructured.Unstructured{after, before} {
		if at := text(u, "metadata", "annotations", sandbox.AnnotationTemplate); at != "" {
			return strings.Split(at, ".")
		}
	}
	return []string{"spec", "template"}
}

func templateText(u *unstructured.Unstructured, at []string, field, key string) string {
	return text(u, append(slices.Clone(at), "metadata", field, key)...)
}

func setAnnotation(u *unstructured.Unstructured, key, value string) {
	annotations, _ := mapAt(u.Object, "metadata", "annotations")
	annotations[key] = value
}

// A workloadKeeper works out what a template keeps.
type workloadKeeper struct {
	before, after []container // the latter is changed in place
	record        sandbox.RouteRecord
	renamed       map[string]string // names of the record to the owner's own
}

// keepNames has ports go on with the names that `route` gave them.
func (w *workloadKeeper) keepNames() {
	var names []sandbox.AddedName
	for _, n := range w.record.Names {
		if w.keepName(&n) {
			names = append(names, n)
		}
	}
	w.record.Names = names
}

// keepName reports whether the name is still one that `route` gave.
func (w *workloadKeeper) keepName(n *sandbox.AddedName) bool {
	c := w.container(n.Container)
	if c == nil {
		return false
	}
	n.Container = c.name()
	for _, other := range w.after {
		for _, p := range other.ports() {
			if p.name() == n.Name && p.number() != n.Port {
				return false // the owner gave the name to another port
			}
		}
	}
	if p := c.port(n.Port); p != nil {
		return w.name(p, n)
	}
	if n.Made != sandbox.MadeName {
		n.Made = c.declare(n.Name, n.Port)
		return true
	}
	if p := w.moved(c); p != nil {
		n.Port = p.number()
		return w.name(p, n)
	}
	return false
}

// name gives a port the name, unless its owner gave it another.
func (w *workloadKeeper) name(p port, n *sandbox.AddedName) bool {
	switch p.name() {
	case n.Name:
		return true
	case "":
		p["name"] = n.Name
		n.Made = sandbox.MadeName
		return true
	}
	w.renamed[n.Name] = p.name()
	return false
}

// container returns the container of a name, or else the one that has taken its place.
func (w *workloadKeeper) container(name string) *container {
	for i := range w.after {
		if w.after[i].name() == name {
			return &w.after[i]
		}
	}
	i := slices.IndexFunc(w.before, func(c container) bool { return c.name() == name })
	if i < 0 || len(w.before) != len(w.after) || slices.ContainsFunc(w.before, func(c container) bool { return c.name() == w.after[i].name() }) {
		return nil
	}
	return &w.after[i]
}

// moved returns the one TCP port that a container has and that the one before it had not; nil where there is none, or several.
func (w *workloadKeeper) moved(c *container) port {
	var found port
	before := slices.IndexFunc(w.before, func(o container) bool { return o.name() == c.name() })
	if before < 0 {
		return nil
	}
	for _, p := range c.ports() {
		if w.before[before].port(p.number()) != nil {
			continue
		}
		if found != nil {
			return nil
		}
		found = p
	}
	return found
}

// followPorts has the captured ports be those that the template has.
func (w *workloadKeeper) followPorts() {
	ports, err := sandbox.ParsePorts(w.record.Ports)
	if err != nil {
		return // admission of pods says so
	}
	var followed []sandbox.Port
	for _, p := range ports {
		if name, ok := w.renamed[p.Name]; ok {
			p.Name = name
		}
		if w.followPort(&p) && !slices.ContainsFunc(followed, func(q sandbox.Port) bool { return q.Name == p.Name }) {
			followed = append(followed, p)
		}
	}
	w.record.Ports = sandbox.FormatPorts(followed)
}

// followPort reports whether the template still has the port, by its name or by its number.
func (w *workloadKeeper) followPort(p *sandbox.Port) bool {
	for _, c := range w.after {
		for _, q := range c.ports() {
			if q.name() == p.Name {
				p.Number = q.number()
				return true
			}
		}
	}
	for i := range w.after {
		c := &w.after[i]
		q := c.port(p.Number)
		if q == nil && w.named(c.name(), p.Name) {
			q = w.moved(c)
		}
		if q == nil {
			continue
		}
		p.Number = q.number()
		if q.name() == "" { // its owner took the name off, and Services go to it
			q["name"] = p.Name
			w.record.Names = append(w.record.Names, sandbox.AddedName{Container: c.name(), Port: p.Number, Name: p.Name, Made: sandbox.MadeName})
		}
		p.Name = q.name()
		return true
	}
	return false
}

// named reports whether a container had a port of that name before.
func (w *workloadKeeper) named(container, port string) bool {
	for _, c := range w.before {
		for _, p := range c.ports() {
			if c.name() == container && p.name() == port {
				return true
			}
		}
	}
	return false
}

// mark has the template's pods ask for routers.
func (w *workloadKeeper) mark(kept *unstructured.Unstructured, at []string) {
	for field, marks := range map[string]map[string]string{
		"labels":      {sandbox.LabelRole: sandbox.RoleBaseline, sandbox.LabelWorkload: sandbox.WorkloadLabel(kept.GetKind(), kept.GetName())},
		"annotations": {sandbox.AnnotationPorts: w.record.Ports},
	} {
		m, made := mapAt(kept.Object, append(slices.Clone(at), "metadata", field)...)
		for _, path := range made {
			if !slices.Contains(w.record.Made, path) {
				w.record.Made = append(w.record.Made, path)
			}
		}
		for key, value := range marks {
			m[key] = value
		}
	}
	slices.Sort(w.record.Made)
}
