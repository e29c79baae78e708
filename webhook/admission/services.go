package admission

import (
	"fmt"
	"maps"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/structured-merge-diff/v6/value"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A Write is what admission knows about a write of a Service, beside the object.
type Write struct {
	Now string // RFC 3339
	// Named reports whether all pods that a Service selects are known to have the names of its targetPorts; nil if no pod
	// is known.
	Named func(*corev1.Service) bool
}

// KeepService returns the switched Service to store when somebody replaces before by after.
//
// A recorded port keeps its name if the writer states its recorded number, or a number whose name the record has.
// Intentional changes win: another number stays a number until the controller finds a name for it. Another name, or a
// removed port, leaves the record. A new selector turns all names into numbers, unless the newly selected pods are
// known to have the names. A Service on which the guard restored numbers keeps them.
func KeepService(before, after *unstructured.Unstructured, w Write) (*unstructured.Unstructured, error) {
	was, is := new(corev1.Service), new(corev1.Service)
	for from, to := range map[*unstructured.Unstructured]*corev1.Service{before: was, after: is} {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(from.Object, to); err != nil {
			return nil, fmt.Errorf("decode Service: %w", err)
		}
	}
	kept := after.DeepCopy()
	s, err := newServiceKeeper(was, is)
	switch {
	case err != nil || s == nil:
		return kept, err
	case len(s.record) == 0: // released
		return kept, disown(kept)
	}
	if s.had && !reflect.DeepEqual(was.Spec.Selector, is.Spec.Selector) && (w.Named == nil || !w.Named(s.named())) {
		s.reselect(w.Now)
	}
	s.restore(w.Now)
	s.dropMissingPorts()
	shared := s.writePorts(kept)
	s.writeMarks(kept)
	return kept, disown(kept, shared...)
}

// A serviceKeeper computes what a Service keeps.
type serviceKeeper struct {
	is     *corev1.Service
	had    bool                // the Service was switched before
	stated sandbox.TargetPorts // the record before the writer's changes
	record sandbox.TargetPorts // the record after them
	note   string              // AnnotationRestored: ports stay numbers
	listed string              // AnnotationWorkloads
}

// newServiceKeeper returns nil for a Service that is switched neither before nor after.
func newServiceKeeper(was, is *corev1.Service) (*serviceKeeper, error) {
	old, had := was.Annotations[sandbox.AnnotationTargetPorts]
	from := is
	text, has := is.Annotations[sandbox.AnnotationTargetPorts]
	switch {
	case !has && !had:
		return nil, nil
	case !has: // `kubectl replace` drops what its manifest lacks
		from, text = was, old
	}
	record, err := sandbox.ParseTargetPorts(text)
	return &serviceKeeper{
		is: is, had: had, stated: record, record: maps.Clone(record),
		note: from.Annotations[sandbox.AnnotationRestored], listed: from.Annotations[sandbox.AnnotationWorkloads],
	}, err
}

// named returns the Service as it is if it keeps its names.
func (s *serviceKeeper) named() *corev1.Service {
	named := s.is.DeepCopy()
	if named.Annotations == nil {
		named.Annotations = map[string]string{}
	}
	named.Annotations[sandbox.AnnotationWorkloads] = s.listed
	for i := range named.Spec.Ports {
		p := &named.Spec.Ports[i]
		if target, listed := s.record[sandbox.PortKey(string(p.Protocol), p.Port)]; listed && p.TargetPort == intstr.FromInt32(int32(target.Number)) {
			p.TargetPort = intstr.FromString(target.Name)
		}
	}
	return named
}

// reselect turns all names into numbers, until the controller finds that all pods have the names.
func (s *serviceKeeper) reselect(now string) {
	s.note = sandbox.FormatRestored(sandbox.Restored{Time: now, Reason: "the selector of service/" + s.is.Name + " was changed"})
	for i := range s.is.Spec.Ports {
		p := &s.is.Spec.Ports[i]
		if target, listed := s.record[sandbox.PortKey(string(p.Protocol), p.Port)]; listed && p.TargetPort == intstr.FromString(target.Name) {
			p.TargetPort = intstr.FromInt32(int32(target.Number))
		}
	}
}

// restore sets the recorded targetPorts. A port whose number changed stays a number until the controller finds a name
// that refers to it in all pods.
func (s *serviceKeeper) restore(now string) {
	putBack := s.note != ""
	names := map[uint16]string{}
	for _, target := range s.stated {
		names[target.Number] = target.Name
	}
	for i := range s.is.Spec.Ports {
		p := &s.is.Spec.Ports[i]
		if p.Protocol != corev1.ProtocolTCP && p.Protocol != "" {
			continue
		}
		key := sandbox.PortKey(string(p.Protocol), p.Port)
		target, listed := s.record[key]
		switch {
		case p.TargetPort.Type == intstr.Int:
			n := number(int64(p.TargetPort.IntVal))
			if n == 0 {
				n = number(int64(p.Port))
			}
			name, known := names[n]
			if listed && n == target.Number {
				name = target.Name
			}
			switch {
			case known:
				s.record[key] = sandbox.TargetPort{Number: n, Name: name}
				if !putBack {
					p.TargetPort = intstr.FromString(name)
				}
			case listed:
				s.record[key] = sandbox.TargetPort{Number: n, Name: target.Name}
				s.note = sandbox.FormatRestored(sandbox.Restored{Time: now, Reason: fmt.Sprintf("the targetPort of port %d was changed to %d", p.Port, n)})
			}
		case listed && p.TargetPort.StrVal != target.Name:
			delete(s.record, key)
		}
	}
}

// dropMissingPorts removes the ports from the record that the Service no longer has.
func (s *serviceKeeper) dropMissingPorts() {
	ports := map[string]bool{}
	for i := range s.is.Spec.Ports {
		ports[sandbox.PortKey(string(s.is.Spec.Ports[i].Protocol), s.is.Spec.Ports[i].Port)] = true
	}
	maps.DeleteFunc(s.record, func(key string, _ sandbox.TargetPort) bool { return !ports[key] })
}

// writePorts copies the targetPorts to the object. It returns the fields that no manager may own: those that `route`
// turned into names.
func (s *serviceKeeper) writePorts(kept *unstructured.Unstructured) []fieldpath.Path {
	ports, _, _ := unstructured.NestedSlice(kept.Object, "spec", "ports")
	var shared []fieldpath.Path
	for i := range ports {
		port, ok := ports[i].(map[string]any)
		if !ok || i >= len(s.is.Spec.Ports) {
			continue
		}
		p := &s.is.Spec.Ports[i]
		if target, listed := s.record[sandbox.PortKey(string(p.Protocol), p.Port)]; listed && p.TargetPort == intstr.FromString(target.Name) {
			shared = append(shared, targetPortPath(p))
		}
		if p.TargetPort.Type == intstr.String {
			port["targetPort"] = p.TargetPort.StrVal
		} else if _, ok := port["targetPort"]; ok {
			port["targetPort"] = int64(p.TargetPort.IntVal)
		}
	}
	if len(ports) > 0 {
		_ = unstructured.SetNestedSlice(kept.Object, ports, "spec", "ports") // spec is a map: it was decoded
	}
	return shared
}

func targetPortPath(p *corev1.ServicePort) fieldpath.Path {
	protocol := string(p.Protocol)
	if protocol == "" {
		protocol = string(corev1.ProtocolTCP)
	}
	key := value.FieldList{{Name: "port", Value: value.NewValueInterface(int64(p.Port))}, {Name: "protocol", Value: value.NewValueInterface(protocol)}}
	return fieldpath.MakePathOrDie("spec", "ports", &key, "targetPort")
}

// writeMarks writes the record to the object; if the record is empty, it removes all marks.
func (s *serviceKeeper) writeMarks(kept *unstructured.Unstructured) {
	annotations, labels := kept.GetAnnotations(), kept.GetLabels()
	if annotations == nil {
		annotations = map[string]string{}
	}
	if labels == nil {
		labels = map[string]string{}
	}
	if len(s.record) == 0 {
		for _, key := range []string{sandbox.AnnotationTargetPorts, sandbox.AnnotationRestored, sandbox.AnnotationWorkloads} {
			delete(annotations, key)
		}
		if labels[sandbox.LabelRole] == sandbox.RoleService {
			delete(labels, sandbox.LabelRole)
		}
	} else {
		labels[sandbox.LabelRole] = sandbox.RoleService
		if annotations[sandbox.AnnotationTargetPorts] == "" || !maps.Equal(s.record, s.stated) {
			annotations[sandbox.AnnotationTargetPorts] = sandbox.FormatTargetPorts(s.record)
		}
		for key, value := range map[string]string{sandbox.AnnotationRestored: s.note, sandbox.AnnotationWorkloads: s.listed} {
			if value != "" {
				annotations[key] = value
			}
		}
	}
	setStrings(kept, annotations, "metadata", "annotations")
	setStrings(kept, labels, "metadata", "labels")
}

// setStrings sets a map of strings at path, or removes it if it is empty.
func setStrings(u *unstructured.Unstructured, m map[string]string, path ...string) {
	if len(m) == 0 {
		unstructured.RemoveNestedField(u.Object, path...)
		return
	}
	_ = unstructured.SetNestedStringMap(u.Object, m, path...) // metadata is a map: it was decoded
}
