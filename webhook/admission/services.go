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

// A Write is what admission knows of a request that writes a Service, beside the object.
type Write struct {
	Now string // RFC 3339
	// Named says whether all pods that a Service selects are known to have the names of its targetPorts; nil: no pod is known.
	Named func(*corev1.Service) bool
}

// KeepService returns a switched Service as it is stored when somebody writes after in the place of before.
//
// Each port that the record lists goes on to its name, where the writer states the recorded number again, and a port that states a
// number of which the record knows the name does too. What the writer changes on purpose is followed: another number
// stays a number, until the controller finds a name for it; another name, and a port that is gone, leave the record; another
// selector makes all numbers, unless the pods that it selects are known to have the names. A Service that the guard put back stays on
// numbers.
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
	s.follow()
	shared := s.writePorts(kept)
	s.writeMarks(kept)
	return kept, disown(kept, shared...)
}

// A serviceKeeper works out what a Service keeps.
type serviceKeeper struct {
	is     *corev1.Service
	had    bool                // the Service was switched before
	stated sandbox.TargetPorts // the record as it was before it followed the writer
	record sandbox.TargetPorts // and as it is afterwards
	note   string              // AnnotationPutBack: ports stay numbers
	listed string              // AnnotationWorkloads
}

// newServiceKeeper returns nil for a Service that is not switched, neither before nor after.
func newServiceKeeper(was, is *corev1.Service) (*serviceKeeper, error) {
	old, had := was.Annotations[sandbox.AnnotationTargetPorts]
	from := is
	text, has := is.Annotations[sandbox.AnnotationTargetPorts]
	switch {
	case !has && !had:
		return nil, nil
	case !has: // `kubectl replace` leaves out what its manifest does not have
		from, text = was, old
	}
	record, err := sandbox.ParseTargetPorts(text)
	return &serviceKeeper{
		is: is, had: had, stated: record, record: maps.Clone(record),
		note: from.Annotations[sandbox.AnnotationPutBack], listed: from.Annotations[sandbox.AnnotationWorkloads],
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

// reselect makes numbers of all names, until the controller finds that all pods have the names.
func (s *serviceKeeper) reselect(now string) {
	s.note = sandbox.FormatPutBack(sandbox.PutBack{Time: now, Reason: "the selector of service/" + s.is.Name + " was changed"})
	for i := range s.is.Spec.Ports {
		p := &s.is.Spec.Ports[i]
		if target, listed := s.record[sandbox.PortKey(string(p.Protocol), p.Port)]; listed && p.TargetPort == intstr.FromString(target.Name) {
			p.TargetPort = intstr.FromInt32(int32(target.Number))
		}
	}
}

// restore sets the targetPorts that the record knows. A port whose number changed stays a number, until the controller finds a name that
// leads there in all pods.
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
				s.note = sandbox.FormatPutBack(sandbox.PutBack{Time: now, Reason: fmt.Sprintf("the targetPort of port %d was changed to %d", p.Port, n)})
			}
		case listed && p.TargetPort.StrVal != target.Name:
			delete(s.record, key)
		}
	}
}

// follow drops from the record the ports that the Service has no more.
func (s *serviceKeeper) follow() {
	ports := map[string]bool{}
	for i := range s.is.Spec.Ports {
		ports[sandbox.PortKey(string(s.is.Spec.Ports[i].Protocol), s.is.Spec.Ports[i].Port)] = true
	}
	maps.DeleteFunc(s.record, func(key string, _ sandbox.TargetPort) bool { return !ports[key] })
}

// writePorts carries the targetPorts over to the object, and returns the fields that nobody is to own: those that are names by `route`.
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

// writeMarks has the object carry the record, or, where nothing is left in it, none of the marks.
func (s *serviceKeeper) writeMarks(kept *unstructured.Unstructured) {
	annotations, labels := kept.GetAnnotations(), kept.GetLabels()
	if annotations == nil {
		annotations = map[string]string{}
	}
	if labels == nil {
		labels = map[string]string{}
	}
	if len(s.record) == 0 {
		for _, key := range []string{sandbox.AnnotationTargetPorts, sandbox.AnnotationPutBack, sandbox.AnnotationWorkloads} {
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
		for key, value := range map[string]string{sandbox.AnnotationPutBack: s.note, sandbox.AnnotationWorkloads: s.listed} {
			if value != "" {
				annotations[key] = value
			}
		}
	}
	setStrings(kept, annotations, "metadata", "annotations")
	setStrings(kept, labels, "metadata", "labels")
}

// setStrings sets a map of strings at path, or removes an empty one.
func setStrings(u *unstructured.Unstructured, m map[string]string, path ...string) {
	if len(m) == 0 {
		unstructured.RemoveNestedField(u.Object, path...)
		return
	}
	_ = unstructured.SetNestedStringMap(u.Object, m, path...) // metadata is a map: it was decoded
}
