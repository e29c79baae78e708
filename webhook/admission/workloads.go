package admission

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// KeepWorkload returns the routed workload to store when somebody replaces before by after.
//
// Its template keeps the recorded labels, annotations and port names. Intentional changes win: a name that the owner
// sets replaces the recorded one. A port whose number changes keeps its name, and a renamed container keeps the names
// of its ports. What the owner removes leaves the record.
func KeepWorkload(before, after *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	kept := after.DeepCopy()
	if owned(after) {
		return kept, nil // a ReplicaSet has copies of its Deployment's annotations, and only the Deployment writes its template
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
	w.updatePorts()
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

// intent returns the record that applies: the new one, unless it is missing, unreadable, or older than the previous
// one. A rollout undo copies annotations from a ReplicaSet; a manifest may hold those of the day it was exported.
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
		return is, true, nil //nolint:nilerr // a readable record replaces the previous one
	}
	return record, true, nil
}

// templatePath returns the path of the workload's pod template.
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

// A workloadKeeper computes what a template keeps.
type workloadKeeper struct {
	before, after []container // after is changed in place
	record        sandbox.RouteRecord
	renamed       map[string]string // from recorded names to those that the owner set
}

// keepNames keeps the port names that `route` added.
func (w *workloadKeeper) keepNames() {
	var names []sandbox.AddedName
	for _, n := range w.record.Names {
		if w.keepName(&n) {
			names = append(names, n)
		}
	}
	w.record.Names = names
}

// keepName reports whether the name is still one that `route` added.
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

// name gives a port the name, unless the owner gave it another.
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

// container returns the container with a name, or else the one that replaced it.
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

// moved returns the only TCP port that a container has now and did not have before; nil if there is none or several.
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

// updatePorts updates the captured ports to those of the template.
func (w *workloadKeeper) updatePorts() {
	ports, err := sandbox.ParsePorts(w.record.Ports)
	if err != nil {
		return // admission of pods reports it
	}
	var followed []sandbox.Port
	for _, p := range ports {
		if name, ok := w.renamed[p.Name]; ok {
			p.Name = name
		}
		if w.updatePort(&p) && !slices.ContainsFunc(followed, func(q sandbox.Port) bool { return q.Name == p.Name }) {
			followed = append(followed, p)
		}
	}
	w.record.Ports = sandbox.FormatPorts(followed)
}

// updatePort reports whether the template still has the port, by name or by number.
func (w *workloadKeeper) updatePort(p *sandbox.Port) bool {
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
		if q.name() == "" { // its owner removed the name, which Services use
			q["name"] = p.Name
			w.record.Names = append(w.record.Names, sandbox.AddedName{Container: c.name(), Port: p.Number, Name: p.Name, Made: sandbox.MadeName})
		}
		p.Name = q.name()
		return true
	}
	return false
}

// named reports whether a container had a port with that name before.
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

// mark sets the label and annotation by which the template's pods request routers.
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
